"""Code that runs: all `<!-- run -->` blocks of a chapter in one Python, and what each printed."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from educational.book.chapter import Book, Chapter, Edit, Fault, Mark

MOST_LINES = 10
SECONDS = 300
RUNNER = Path(__file__).with_name("runner.py")
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|(?<![\w.])[-+−]?\.\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Ran:
    """What became of one block: what it printed, its traceback if it failed, and its seconds of CPU time."""

    printed: str
    error: str
    seconds: float


def work(chapter: Chapter) -> Iterator[Edit | Fault]:
    """For every output the edit that writes what is printed now, and what is wrong with blocks and outputs."""
    blocks, outputs = pairs(chapter)
    yield from shape(chapter, blocks)
    results = run(chapter, blocks)
    for mark, output, ran in zip(blocks, outputs, results, strict=False):
        if ran.error:
            yield chapter.fault(mark.first, f"this block fails:\n{ran.error.rstrip()}")
            return
        printed = ran.printed.rstrip("\n").split("\n")
        if output is None:
            if ran.printed.strip():
                yield chapter.fault(mark.last, "this block prints, but no <!-- output --> follows")
            continue
        if not ran.printed.strip():
            yield chapter.fault(output.line, "nothing is printed: remove <!-- output -->, or print")
            continue
        wanted = ["```text", *(line.rstrip() for line in printed), "```"]
        last = output.last + 1 if output.last else output.line + 1
        if not alike(chapter.body(output), "\n".join(wanted[1:-1])) or not output.last:
            yield Edit(output.line + 1, last, wanted)


def pairs(chapter: Chapter) -> tuple[list[Mark], list[Mark | None]]:
    """The blocks that run, and the output that follows each, if one does."""
    marks = [mark for mark in chapter.marks if mark.kind in {"run", "output"}]
    blocks = [mark for mark in marks if mark.kind == "run" and mark.last]
    after = {a.line: b for a, b in pairwise(marks) if (a.kind, b.kind) == ("run", "output")}
    return blocks, [after.get(block.line) for block in blocks]


def shape(chapter: Chapter, blocks: list[Mark]) -> Iterator[Fault]:
    """Blocks that are too long or missing, outputs that belong to nothing."""
    before = ""
    for mark in (mark for mark in chapter.marks if mark.kind in {"run", "output"}):
        if mark.kind == "run" and not mark.last:
            yield chapter.fault(mark.line, "no block of code follows <!-- run -->")
        if mark.kind == "output" and before != "run":
            yield chapter.fault(mark.line, "no <!-- run --> block stands before this <!-- output -->")
        before = mark.kind
    for mark in blocks:
        length = sum(bool(line.strip()) for line in chapter.body(mark).split("\n"))
        if length > MOST_LINES:
            yield chapter.fault(mark.first, f"{length} lines of code, at most {MOST_LINES}: split it in two")
        if line := unpasteable(chapter.body(mark)):
            yield chapter.fault(
                mark.first + line,
                "Python's plain prompt needs an empty line after a loop or a function, and ends both at one inside: "
                "put it there, or take it out",
            )


COMPOUND = (ast.For, ast.While, ast.If, ast.With, ast.FunctionDef, ast.ClassDef, ast.Try)


def unpasteable(code: str) -> int:
    """The line of a block at which Python's plain prompt would stumble over what is pasted; 0 if it would not."""
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        return 0  # running it will tell
    lines = code.split("\n")
    for one, following in pairwise([*statements, None]):
        if not isinstance(one, COMPOUND) or one.end_lineno is None:
            continue
        inside = next((n for n in range(one.lineno, one.end_lineno + 1) if not lines[n - 1].strip()), 0)
        if inside:
            return inside
        if following is not None and lines[one.end_lineno].strip():
            return one.end_lineno + 1
    return 0


def run(chapter: Chapter, blocks: list[Mark]) -> list[Ran]:
    """What each block did."""
    code = [(chapter.path.name, mark.first + 1, chapter.body(mark)) for mark in blocks]
    return remembered(chapter.book, f"{chapter.path.stem}.json", code)


def remembered(book: Book, name: str, code: list[tuple[str, int, str]], keep_going: bool = False) -> list[Ran]:
    """What blocks did; from the cache where neither they nor what they depend on has changed."""
    if not code:
        return []
    texts = [text for _, _, text in code]
    parts = [state(book), RUNNER.read_text(encoding="utf-8"), *texts, *files_read(book, "\n".join(texts))]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    kept = book.build / "sessions" / name
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["key"] == key:
            return [Ran(*result) for result in found["results"]]
    results = fresh(book, [code, keep_going])
    if not any(error for _, error, _ in results):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"key": key, "results": results}), encoding="utf-8")
    return [Ran(*result) for result in results]


def fresh(book: Book, given: object) -> list[tuple[str, str, float]]:
    """The runner in a new process, at the repository's root, on one thread, away from the runs of whoever calls."""
    command = [sys.executable, str(RUNNER)]
    try:
        ended = subprocess.run(
            command, cwd=book.root, env=surroundings(book), input=json.dumps(given), capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [("", f"still running after {SECONDS} seconds", float(SECONDS))]
    if ended.returncode:
        return [("", f"Python ended with {ended.returncode}:\n{ended.stderr[-2000:]}", 0.0)]
    results: list[tuple[str, str, float]] = json.loads(ended.stdout)
    return results


def surroundings(book: Book) -> dict[str, str]:
    """The environment of everything that the book runs."""
    home = book.build / "home"
    home.mkdir(parents=True, exist_ok=True)
    ours = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "NO_COLOR": "1", "COLUMNS": "100"}
    ours |= {"NANOCHAT_HOME": str(home), "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "ignore"}
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONSTARTUP"}} | ours


@cache
def state(book: Book) -> str:
    """A hash of what outputs depend on: the package, the lesson's helper, recorded runs, and this Python."""
    digest = hashlib.sha256(sys.version.encode())
    paths = [
        *(book.root / "nanochat").rglob("*"),
        *(book.root / "runs").rglob("*"),
        book.folder / "lesson.py",
    ]
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(book.root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def files_read(book: Book, text: str) -> list[str]:
    """Hashes of the files that code names, of the modules of the book that it imports, and of what those name."""
    found: dict[Path, str] = {}
    texts = [text]
    while texts:
        text = texts.pop()
        named = {book.root / name for name in re.findall(r"[\w./-]+\.\w+", text)}
        modules = re.findall(rf"\b{book.name}\.([\w.]+)", text)
        named |= {book.folder / f"{module.replace('.', '/')}.py" for module in modules}
        for path in sorted(named - set(found)):
            if path.is_file() and book.root in path.resolve().parents:
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
                texts += [path.read_text(encoding="utf-8")] * (path.suffix == ".py")
    return list(found.values())


def alike(old: str, new: str) -> bool:
    """Whether two outputs say the same: words and whole numbers exactly, other numbers to 1 %, spaces not at all."""
    if [words.split() for words in NUMBER.split(old)] != [words.split() for words in NUMBER.split(new)]:
        return False
    return all(close(a, b) for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True))


def close(old: str, new: str) -> bool:
    """To 1 %, or by one in the last place that is shown."""
    a, b = (float(text.replace(",", "").replace("−", "-")) for text in (old, new))
    if "." not in old + new and "e" not in (old + new).lower():
        return a == b
    mantissa, _, exponent = new.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    return abs(a - b) <= max(0.01 * abs(b), 1.001 * 10.0 ** (int(exponent or 0) - places))


def code_seconds(chapter: Chapter) -> float:
    """Seconds of CPU time that the chapter's blocks took when they last ran."""
    kept: Path = chapter.book.build / "sessions" / f"{chapter.path.stem}.json"
    results = json.loads(kept.read_text(encoding="utf-8"))["results"] if kept.exists() else []
    return sum(float(result[2]) for result in results)
