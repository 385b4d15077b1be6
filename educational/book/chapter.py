"""A chapter as lines of Markdown: which of them are comments of ours, which are fenced blocks, what is wrong where."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMENT = re.compile(r"<!-- (.*?) -->\s*")
FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
# Files of the folder that are no part of the book itself.
NOT_CHAPTERS = {"AUTHORING.md", "index.md", "references.md"}

ORDER = ["README", "what_to_expect", r"\d", "appendix_"]


@dataclass(frozen=True, order=True)
class Fault:
    """Something to mend: where it stands, what it is, what to do."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


class Wrong(Exception):
    """What a part of the tools raises on one mark; it becomes a Fault at the mark's line."""


@dataclass(frozen=True)
class Book:
    """Where things lie: the repository's root, and in it the folder of the chapters."""

    root: Path = ROOT
    name: str = "educational"

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def build(self) -> Path:
        """What can be made again: caches, the site, the PDF's parts."""
        return self.folder / "_build"

    @property
    def version(self) -> str:
        """That of the package, which the book describes."""
        found = re.search(
            r'__version__ = "(.+?)"', (self.root / "nanochat" / "__init__.py").read_text(encoding="utf-8")
        )
        return found[1] if found else ""

    @property
    def bibliography(self) -> Path:
        return self.folder / "references.bib"

    def chapters(self) -> list["Chapter"]:
        """Every text of the book, in the order in which it is bound."""
        paths = [path for path in sorted(self.folder.glob("*.md")) if path.name not in NOT_CHAPTERS]
        paths.sort(
            key=lambda path: next((n for n, start in enumerate(ORDER) if re.match(start, path.name)), len(ORDER))
        )
        return [Chapter(self, path) for path in paths]

    def chosen(self, names: list[str]) -> list["Chapter"]:
        """Those of `names`: `04`, `4`, `README`, `appendix_glossary`, or a file's name; all where there are none."""
        found = [c for c in self.chapters() if not names or any(c.answers_to(name) for name in names)]
        lacking = [name for name in names if not any(c.answers_to(name) for c in found)]
        if lacking:
            raise Wrong(f"no chapter is called {', '.join(lacking)}")
        return found


@dataclass(frozen=True)
class Mark:
    """A comment of ours on a line of its own, and the block or line below it, which it may own."""

    text: str
    line: int  # counted from 0, of the comment
    first: int = 0  # of the fenced block below: the line of its opening fence ...
    last: int = 0  # ... and of its closing one; both 0 where no block follows

    @property
    def kind(self) -> str:
        word = self.text.split()[0]
        return "quote" if re.match(r"\S+\.py(::\S+)?$", word) else word

    @property
    def argument(self) -> str:
        return self.text.partition(" ")[2].strip()


@dataclass(frozen=True)
class Chapter:
    book: Book
    path: Path

    @property
    def name(self) -> str:
        """As faults call it: `educational/04_transformer_architecture.md`."""
        return self.path.relative_to(self.book.root).as_posix()

    @property
    def number(self) -> str:
        """What its figures, equations and checks begin with: `4`, or a letter for an appendix; else empty."""
        found = re.match(r"(?:0*(\d+)|appendix_([a-z]))_", self.path.name)
        return (found[1] or found[2].upper()) if found else ""

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def fences(self) -> list[tuple[int, int]]:
        """First and last line of every fenced block."""
        found, opened, fence = [], -1, ""
        for number, line in enumerate(self.lines):
            match = FENCE.match(line.lstrip(" >"))
            if opened < 0 and match:
                opened, fence = number, match[1]
            elif opened >= 0 and match and match[1].startswith(fence) and not match[2].strip():
                found.append((opened, number))
                opened = -1
        return found

    @cached_property
    def marks(self) -> list[Mark]:
        found, fences = [], dict(self.fences)
        for number, line in self.prose():
            if match := COMMENT.fullmatch(line):
                below = next((n for n in range(number + 1, len(self.lines)) if self.lines[n].strip()), 0)
                found.append(
                    Mark(match[1], number, below, fences[below]) if below in fences else Mark(match[1], number)
                )
        return found

    def prose(self) -> Iterator[tuple[int, str]]:
        """The lines outside fenced blocks, with their numbers."""
        inside = {n for first, last in self.fences for n in range(first, last + 1)}
        return ((n, line) for n, line in enumerate(self.lines) if n not in inside)

    def body(self, mark: Mark) -> str:
        """What stands in the block that belongs to a mark."""
        return "\n".join(self.lines[mark.first + 1 : mark.last])

    def fault(self, line: int, what: str) -> Fault:
        return Fault(self.name, line + 1, what)

    def answers_to(self, name: str) -> bool:
        return name in {self.number, self.path.stem, self.path.name, self.name} or (
            name.isdigit() and self.number == str(int(name))
        )


@dataclass(frozen=True)
class Edit:
    """Lines of a chapter that are to be something else: those from `first` up to `last`, without it."""

    first: int
    last: int
    lines: list[str]


def edited(chapter: Chapter, edits: list[Edit]) -> str:
    """The chapter's text with `edits` made, which do not overlap."""
    lines = list(chapter.lines)
    for edit in sorted(edits, key=lambda edit: edit.first, reverse=True):
        lines[edit.first : edit.last] = edit.lines
    return "\n".join(lines)
