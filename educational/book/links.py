"""Links, anchors, sources, pictures and numbered equations: whatever one place of the book says of another."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

from educational.book import references
from educational.book.chapter import Book, Chapter, Fault

TAG = re.compile(r"\\tag\{([^}]*)\}")
CALLED = re.compile(r"(?<![\w)])\(((?:\d|[A-Z])\.\d{1,2}[a-z]?)\)")
FIGURE = re.compile(r"\bFigure ((?:\d|[A-Z])\.\d{1,2})\b")
CAPTION = re.compile(r"^\*Figure ((?:\d|[A-Z])\.\d{1,2})\. ")
OUTSIDE = ("http://", "https://", "mailto:")


def slug(title: str) -> str:
    """A heading's anchor, as a code host makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """What a Markdown file offers and asks for, each with its line."""

    text: str

    @cached_property
    def tokens(self) -> list[Token]:
        reader = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)
        return reader.parse(self.text)

    @cached_property
    def inline(self) -> list[tuple[int, Token]]:
        """Every piece of text, link and picture in order, with its line counted from 0."""
        found = []
        for block in (token for token in self.tokens if token.children):
            line = block.map[0] if block.map else 0
            for token in block.children or []:
                found.append((line, token))
                line += token.type in {"softbreak", "hardbreak"}
        return found

    @cached_property
    def anchors(self) -> set[str]:
        """Those of headings, numbered where two are the same, and those written as HTML."""
        times: Counter[str] = Counter()
        found = set()
        for before, token in zip(self.tokens, self.tokens[1:], strict=False):
            if before.type == "heading_open":
                name = slug("".join(child.content for child in token.children or []))
                found.add(f"{name}-{times[name]}" if times[name] else name)
                times[name] += 1
        html = [t.content for t in self.tokens if t.type == "html_block"]
        html += [t.content for _, t in self.inline if t.type == "html_inline"]
        return found | set(re.findall(r"\b(?:id|name)=\"([^\"]+)\"", "".join(html)))

    @cached_property
    def equations(self) -> list[tuple[int, str]]:
        """The numbers of displays, with the lines where they begin."""
        displays = [(t.map[0] if t.map else 0, t.content) for t in self.tokens if t.type.startswith("math_block")]
        return [(line, tag) for line, content in displays for tag in TAG.findall(content)]

    @cached_property
    def called(self) -> list[tuple[int, str]]:
        """Equations that the text speaks of."""
        return [(line, tag) for line, t in self.inline if t.type == "text" for tag in CALLED.findall(t.content)]


@dataclass
class Links:
    """The links of a whole book. Each file is read once, so that nothing looks new when someone saves it meanwhile."""

    book: Book
    chapters: list[Chapter]
    pages: dict[Path, Page] = field(default_factory=dict)

    def __post_init__(self) -> None:
        read = {chapter.path for chapter in self.chapters}
        self.chapters = [*self.chapters, *(chapter for chapter in self.book.chapters() if chapter.path not in read)]
        self.chapters.sort(key=lambda chapter: chapter.path.name)
        self.pages = {chapter.path.resolve(): Page(chapter.text) for chapter in self.chapters}

    def page(self, path: Path) -> Page:
        if path.resolve() not in self.pages:
            self.pages[path.resolve()] = Page(path.read_text(encoding="utf-8"))
        return self.pages[path.resolve()]

    @cached_property
    def keys(self) -> set[str]:
        return set(references.entries(self.book))

    @cached_property
    def tags(self) -> dict[str, list[Fault]]:
        """Where each equation's number is defined, in the whole book."""
        found: dict[str, list[Fault]] = {}
        for chapter in self.chapters:
            for line, tag in self.page(chapter.path).equations:
                found.setdefault(tag, []).append(chapter.fault(line, ""))
        return found

    def faults(self, chapter: Chapter) -> Iterator[Fault]:
        """What is wrong with the links, pictures and numbers of one chapter."""
        page = self.page(chapter.path)
        for line, token in page.inline:
            if token.type == "link_open":
                yield from (chapter.fault(line, what) for what in self.link(chapter, str(token.attrGet("href") or "")))
            elif token.type == "image":
                yield from (chapter.fault(line, what) for what in picture(chapter, token))
        for number, text in chapter.prose():
            if TAG.search(text) and number < len(chapter.lines) and "$" in text and text.strip().count("$") == 2:
                yield chapter.fault(number, "a numbered equation is a display: put $$ on lines of their own around it")
        yield from self.numbers(chapter, page)
        yield from self.captions(chapter)

    def numbers(self, chapter: Chapter, page: Page) -> Iterator[Fault]:
        for line, tag in page.equations:
            first = self.tags[tag][0]
            if (first.path, first.line) != (chapter.name, line + 1):
                yield chapter.fault(line, f"({tag}) is also the number of {first.path}:{first.line}: choose another")
            if chapter.number and not tag.startswith(f"{chapter.number}."):
                yield chapter.fault(line, f"({tag}) stands in chapter {chapter.number}: its numbers begin with that")
        for line, tag in page.called:
            if tag not in self.tags:
                yield chapter.fault(line, f"no equation has the number ({tag}): add \\tag, or mend the reference")

    @cached_property
    def captioned(self) -> dict[str, list[Fault]]:
        """Where each figure's number has its caption, in the whole book."""
        found: dict[str, list[Fault]] = {}
        for chapter in self.chapters:
            for line, text in chapter.prose():
                if match := CAPTION.match(text):
                    found.setdefault(match[1], []).append(chapter.fault(line, ""))
        return found

    def captions(self, chapter: Chapter) -> Iterator[Fault]:
        for line, text in chapter.prose():
            match = CAPTION.match(text)
            first = self.captioned[match[1]][0] if match else None
            if match and first and (first.path, first.line) != (chapter.name, line + 1):
                yield chapter.fault(
                    line, f"Figure {match[1]} is also at {first.path}:{first.line}: choose another number"
                )
            if match and chapter.number and not match[1].startswith(f"{chapter.number}."):
                yield chapter.fault(line, f"Figure {match[1]} stands in chapter {chapter.number}: begin with that")
            for number in FIGURE.findall(text):
                if number not in self.captioned:
                    yield chapter.fault(line, f"no caption *Figure {number}. ...* is in the book: mend the reference")

    def link(self, chapter: Chapter, href: str) -> Iterator[str]:
        """What is wrong with one address."""
        if href.startswith(OUTSIDE):
            if not re.match(r"mailto:.+@|https?://[\w.-]+\.\w+", href):
                yield f"{href} is no address"
            return
        name, _, anchor = href.partition("#")
        path = chapter.path.parent / name if name else chapter.path
        if path.resolve() == (self.book.folder / "references.md").resolve():
            if anchor not in self.keys:
                yield f"references.bib has no entry {anchor!r}: add it, or mend the key"
        elif not path.exists():
            yield f"there is no {name}: mend the link"
        elif anchor and path.suffix == ".md" and anchor not in self.page(path).anchors:
            near = [a for a in self.page(path).anchors if a.split("-")[0] == anchor.split("-")[0]]
            yield f"{path.name} has no heading #{anchor}" + (f": perhaps #{', #'.join(sorted(near))}" if near else "")


def picture(chapter: Chapter, token: Token) -> Iterator[str]:
    """What is wrong with one picture: no words for those who cannot see it, no file, nothing that draws it."""
    source = str(token.attrGet("src") or "")
    if len(token.content.strip()) < 12:
        yield f"{source} has no text alternative: say in the brackets what it shows"
    path = chapter.path.parent / source
    figure = re.fullmatch(r"figures/([^_/]+)_(\w+)\.svg", source)
    if figure:
        script = chapter.book.folder / "figures" / f"ch{figure[1]}.py"
        if not script.is_file() or not re.search(rf"^def {figure[2]}\(\)", script.read_text(encoding="utf-8"), re.M):
            yield f"nothing draws {source}: write a function {figure[2]}() in figures/{script.name}"
            return
    elif not source.startswith("../"):
        yield f"{source}: a figure of the book is figures/NN_name.svg, drawn by name() in figures/chNN.py"
    if not path.is_file():
        yield f"there is no {source}: run `make guide-sync`"
