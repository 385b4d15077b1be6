"""Derivations and their checks: `<!-- check ch04.rope_is_relative 1e-12 -->` and the line below it."""

import ast
import re
from collections.abc import Iterator

from educational.book import session
from educational.book.chapter import Chapter, Edit, Fault, Mark, Wrong
from educational.book.quote import find

ARGUMENT = re.compile(r"(ch\w+)\.(\w+) ([\d.]+(?:e-?\d+)?)")


def work(chapter: Chapter) -> Iterator[Edit | Fault]:
    """For every check the edit that writes its line; a fault where there is none, or where its error is too large."""
    good: list[tuple[Mark, str, str, float]] = []
    for mark in (mark for mark in chapter.marks if mark.kind == "check"):
        try:
            module, name, bound = named(chapter, mark)
        except Wrong as error:
            yield chapter.fault(mark.line, str(error))
            continue
        good.append((mark, module, name, float(bound)))
        line = f"*Checked: [{name}](checks/{module}.py), error below {bound}.*"
        below = mark.line + 1
        old = chapter.lines[below] if below < len(chapter.lines) else ""
        if old != line:
            yield Edit(below, below + old.startswith("*Checked:"), [line])
    code = [
        (
            chapter.path.name,
            mark.line,
            f"from {chapter.book.name}.checks.{module} import {name}\nprint(float({name}()))",
        )
        for mark, module, name, _ in good
    ]
    results = session.remembered(chapter.book, f"{chapter.path.stem}.checks.json", code, keep_going=True)
    for (mark, _, name, most), ran in zip(good, results, strict=False):
        if ran.error:
            yield chapter.fault(mark.line, f"the check {name} fails:\n{ran.error.rstrip()}")
        elif not (found := float(ran.printed.split()[-1])) <= most:
            yield chapter.fault(mark.line, f"{name} finds an error of {found:.3g}, above {most:g}: both sides differ")


def named(chapter: Chapter, mark: Mark) -> tuple[str, str, str]:
    """Module, function and bound of a check that is there and says what it compares."""
    found = ARGUMENT.fullmatch(mark.argument)
    if not found:
        raise Wrong(f"not understood: check {mark.argument}; write check ch04.function 1e-12")
    path = chapter.book.folder / "checks" / f"{found[1]}.py"
    if not path.is_file():
        raise Wrong(f"there is no checks/{found[1]}.py: write it, with a function {found[2]}()")
    node = find(path.read_text(encoding="utf-8"), found[2], f"checks/{found[1]}.py")
    if not isinstance(node, ast.FunctionDef) or not ast.get_docstring(node):
        raise Wrong(f"checks/{found[1]}.py: {found[2]} has no docstring that says what it compares")
    return found[1], found[2], found[3]
