"""Code of the package under a comment that names it: `<!-- nanochat/gpt.py::Attention.forward # first .. last -->`."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from educational.book.chapter import Chapter, Edit, Fault, Wrong

MOST_LINES = 30
REFERENCE = re.compile(r"(?P<path>\S+\.py)(?:::(?P<symbol>[\w.]+))?(?P<bare> -docstring)?(?: # (?P<span>.+?))?")


def work(chapter: Chapter) -> Iterator[Edit | Fault]:
    """For every quotation: the edit that makes it what the source says now, or what is wrong with it."""
    for mark in chapter.marks:
        if mark.kind != "quote":
            continue
        try:
            source = quoted(mark.text, chapter.book.root)
        except Wrong as error:
            yield chapter.fault(mark.line, str(error))
            continue
        block = ["```python", *source.split("\n"), "```"]
        if len(block) - 2 > MOST_LINES:
            yield chapter.fault(mark.line, f"{len(block) - 2} lines are quoted, at most {MOST_LINES}: choose a span")
        last = mark.last + 1 if mark.last else mark.line + 1
        if chapter.lines[mark.line + 1 : last] != block:
            yield Edit(mark.line + 1, last, block)


def quoted(reference: str, root: Path) -> str:
    """The source that a reference names."""
    found = REFERENCE.fullmatch(reference.strip())
    if not found:
        raise Wrong(f"not understood: {reference!r}; write FILE.py::Symbol [-docstring] [# first text .. last text]")
    path = root / found["path"]
    if not path.is_file():
        raise Wrong(f"{found['path']} is not a file of the repository")
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    first, last, node = 1, len(lines), None
    if found["symbol"]:
        node = find(source, found["symbol"], found["path"])
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        last = node.end_lineno or node.lineno
    span = (found["span"] or "").removesuffix(" -docstring")
    kept = list(range(first - 1, last))
    if span:
        kept = kept[slice(*bounds([lines[n] for n in kept], span))]
    if found["bare"] or (found["span"] or "").endswith(" -docstring"):
        hidden = docstrings(node or ast.parse(source), lines)
        kept = [n for n in kept if n + 1 not in hidden]
    # No empty lines at either end, which is where a docstring or the end of a span leaves them.
    text = textwrap.dedent("\n".join(lines[n] for n in kept))
    return text.strip("\n").rstrip()


def find(source: str, symbol: str, path: str) -> ast.stmt:
    """The class, function or assignment that `symbol`, with dots, names in `source`."""
    node: ast.AST = ast.parse(source)
    for name in symbol.split("."):
        found = [child for child in getattr(node, "body", []) if name in names(child)]
        if not found:
            raise Wrong(f"{path} has no {symbol}: it was renamed or removed; name what takes its place")
        node = found[-1]  # of overloads, and of `if` and `else`, the last one that is written
    assert isinstance(node, ast.stmt)
    return node


def names(node: ast.AST) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    inner = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return {target.id for target in inner if isinstance(target, ast.Name)}


def bounds(lines: list[str], span: str) -> tuple[int, int]:
    """Where `first .. last` begins and ends in `lines`; without `..` it goes to the end."""
    start, dots, stop = span.partition(" .. ")
    first = only(lines, start.strip(), 0)
    return first, (only(lines, stop.strip().removeprefix("# "), first + 1) if dots else len(lines))


def only(lines: list[str], text: str, after: int) -> int:
    """The line from `after` on that contains `text`: a comment that begins with it goes first, then any."""
    comments = [n for n in range(after, len(lines)) if lines[n].strip().startswith(f"# {text}")]
    hits = comments or [n for n in range(after, len(lines)) if text in lines[n]]
    if not hits:
        raise Wrong(f"no line of this symbol contains {text!r}: give a text that stands there now")
    if len(hits) > 1 and after == 0:
        raise Wrong(f"{len(hits)} lines of this symbol contain {text!r}: give more of the line that is meant")
    return hits[0]


def docstrings(node: ast.AST, lines: list[str]) -> set[int]:
    """The lines, counted from 1, of docstrings in `node`, and the empty line that follows each."""
    hidden: set[int] = set()
    for child in ast.walk(node):
        body = getattr(child, "body", None)
        if not isinstance(body, list) or len(body) < 2 or not isinstance(body[0], ast.Expr):
            continue
        if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            end = body[0].end_lineno or body[0].lineno
            hidden |= set(range(body[0].lineno, end + 1 + (not lines[end].strip())))
    return hidden
