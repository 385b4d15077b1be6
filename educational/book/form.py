"""What a chapter's Markdown must look like to be read alike by a code host, the site and the PDF."""

import re
from collections.abc import Iterator

from educational.book.chapter import Chapter, Fault

KINDS = {"quote", "run", "output", "check", "walk"}
OPEN = re.compile(r"<details(?: open)?>\s*<summary>[^<]*(?:<(?:code|b|i|em|strong)>[^<]*</\w+>[^<]*)*</summary>\s*")


def faults(chapter: Chapter) -> Iterator[Fault]:
    """Comments that are none of ours, and folded parts that come apart."""
    yield from comments(chapter)
    yield from folds(chapter)


def comments(chapter: Chapter) -> Iterator[Fault]:
    own = {mark.line for mark in chapter.marks}
    for mark in chapter.marks:
        if mark.kind not in KINDS and not mark.text.startswith("= "):
            yield chapter.fault(mark.line, f"{mark.text.split()[0]!r} is no comment of ours: see AUTHORING.md")
    for number, line in chapter.prose():
        if number not in own and re.search(r"(?<!`)<!--(?! = )", line):
            yield chapter.fault(number, "a comment stands at the start of a line of its own, all on that line")


def folds(chapter: Chapter) -> Iterator[Fault]:
    """A folded part begins and ends on lines of its own, with empty lines inside of them, and has no headings."""
    opened: list[int] = []
    for number, _ in chapter.prose():
        text, after, second = (bare(chapter, n) for n in (number, number + 1, number + 2))
        if text.startswith("<details"):
            opened.append(number)
            joined = text if "<summary" in text else f"{text} {after}"
            behind = after if "<summary" in text else second
            if not OPEN.fullmatch(joined):
                yield chapter.fault(number, "write <details><summary>Words</summary> and nothing else on this line")
            elif behind:
                yield chapter.fault(number, "leave an empty line below, or the Markdown inside is not read")
        elif text.startswith("</details>"):
            if not opened:
                yield chapter.fault(number, "</details> closes nothing")
            elif bare(chapter, number - 1):
                yield chapter.fault(number, "leave an empty line above </details>")
            opened = opened[:-1]
        elif opened and re.match(r"#{1,6} ", text):
            yield chapter.fault(number, "a heading inside a folded part: begin a paragraph with bold words instead")
    for number in opened:
        yield chapter.fault(number, "this folded part is not closed: write </details>, with an empty line above")


def bare(chapter: Chapter, number: int) -> str:
    """A line without the signs of a quote, empty beyond the end."""
    return re.sub(r"^[ >]+", "", chapter.lines[number]).rstrip() if number < len(chapter.lines) else ""
