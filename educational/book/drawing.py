"""Figures: `figures/04_residual_norm.svg` is what `residual_norm()` in `figures/ch04.py` returns."""

import re
from collections.abc import Iterator
from pathlib import Path

from educational.book import session
from educational.book.chapter import Chapter, Fault

PICTURE = re.compile(r"!\[[^\]]*\]\((figures/([^_/)]+)_(\w+)\.svg)\)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
NAMED = re.compile(r"\b[a-z]\w?[0-9a-f]{10}\b")  # Matplotlib's names for parts, hashes of their shapes
# In points: what another processor's last digit may move.
CLOSE = 1.0


def work(chapter: Chapter, write: bool) -> Iterator[Fault]:
    """Draws the chapter's figures and saves them, or says which differ from what is saved."""
    folder = chapter.book.folder / "figures"
    found = [(n, match) for n, line in chapter.prose() for match in PICTURE.finditer(line)]
    found = [(n, match) for n, match in found if draws(folder / f"ch{match[2]}.py", match[3])]
    code = [(chapter.path.name, number, drawing(chapter.book.name, match)) for number, match in found]
    results = session.remembered(chapter.book, f"{chapter.path.stem}.figures.json", code, keep_going=True)
    for (number, match), ran in zip(found, results, strict=False):
        path = chapter.path.parent / match[1]
        if ran.error:
            yield chapter.fault(number, f"{match[3]}() in figures/ch{match[2]}.py fails:\n{ran.error.rstrip()}")
        elif path.is_file() and same(path.read_text(encoding="utf-8"), ran.printed):
            continue
        elif write:
            path.write_text(ran.printed, encoding="utf-8")
        elif path.is_file():
            yield chapter.fault(number, f"{match[1]} is not what {match[3]}() draws now: run `make guide-sync`")


def draws(script: Path, name: str) -> bool:
    """Whether a script has the function; where it has not, links.py says so."""
    return script.is_file() and bool(re.search(rf"^def {name}\(\)", script.read_text(encoding="utf-8"), re.MULTILINE))


def drawing(book: str, match: re.Match[str]) -> str:
    """The code that prints a figure as SVG."""
    return (
        f"from educational.figures.style import svg\n"
        f"from {book}.figures.ch{match[2]} import {match[3]}\n"
        f"print(svg({match[3]}()), end='')"
    )


def same(old: str, new: str) -> bool:
    """Whether two drawings are the same to within a point."""
    old, new = NAMED.sub("", old), NAMED.sub("", new)
    if old == new:
        return True
    if NUMBER.sub("", old) != NUMBER.sub("", new):
        return False
    numbers = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return all(abs(float(a) - float(b)) <= max(CLOSE, 0.01 * abs(float(b))) for a, b in numbers)
