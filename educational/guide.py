"""The book's command line: `sync` fills in what the comments stand for, `check` fails where something has drifted.

python educational/guide.py sync 04        # write code, outputs, numbers, figures into chapter 4
python educational/guide.py check          # every chapter
python educational/guide.py symbols        # which chapter walks through which public symbol
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [path for path in [str(Path(__file__).parents[1])] if path not in sys.path]

from educational.book import derivations, drawing, form, quote, records, references, session, symbols  # noqa: E402
from educational.book.chapter import Book, Chapter, Edit, Fault, Wrong, edited  # noqa: E402
from educational.book.links import Links  # noqa: E402

# Each yields the edits that bring a chapter up to date, and what no edit can mend.
PARTS: list[Callable[[Chapter], Iterator[Edit | Fault]]] = [quote.work, session.work, records.work, derivations.work]
CHAPTERS_AT_ONCE = 2


def sync(book: Book, names: list[str]) -> list[Fault]:
    """Write everything that comments stand for; what is left to mend by hand comes back."""
    write_references(book)
    chosen = book.chosen(names)
    faults = [fault for found in parallel(sync_one, chosen) for fault in found]
    written = book.chosen(names)
    links = Links(book, written)
    return [*faults, *(fault for chapter in written for fault in rest(chapter, links))]


def sync_one(chapter: Chapter) -> list[Fault]:
    results = [result for part in PARTS for result in part(chapter)]
    faults = [result for result in results if isinstance(result, Fault)]
    text = edited(chapter, [result for result in results if isinstance(result, Edit)])
    # Someone may have saved the file while its blocks ran: then their text counts, and a second call does the rest.
    if text != chapter.text:
        if chapter.path.read_text(encoding="utf-8") != chapter.text:
            return [*faults, chapter.fault(0, "the file was changed while its blocks ran: run sync again")]
        chapter.path.write_text(text, encoding="utf-8")
    return faults + list(drawing.work(Chapter(chapter.book, chapter.path), write=True))


def check(book: Book, names: list[str]) -> list[Fault]:
    """Everything that is wrong, with file and line and what to do."""
    chosen = book.chosen(names)
    links = Links(book, chosen)
    faults = [fault for found in parallel(check_one, chosen) for fault in found]
    faults += [fault for chapter in chosen for fault in rest(chapter, links)]
    if not names:
        faults += references.faults(book)
        page = book.folder / "references.md"
        if book.bibliography.exists() and (not page.exists() or page.read_text("utf-8") != references.page(book)):
            faults.append(Fault(f"{book.name}/references.md", 1, "not made from references.bib: run `make guide-sync`"))
    return sorted(set(faults))


def check_one(chapter: Chapter) -> list[Fault]:
    found = [drifted(chapter, result) for part in PARTS for result in part(chapter)]
    return found + list(drawing.work(chapter, write=False))


def rest(chapter: Chapter, links: Links) -> Iterator[Fault]:
    """What only a person can mend."""
    yield from symbols.faults(chapter)
    yield from links.faults(chapter)
    yield from form.faults(chapter)


def drifted(chapter: Chapter, result: Edit | Fault) -> Fault:
    """An edit that would be made, as a fault at the first line that differs."""
    if isinstance(result, Fault):
        return result
    old = chapter.lines[result.first : result.last]
    place = next((n for n, (a, b) in enumerate(zip(old, result.lines, strict=False)) if a != b), 0)
    was, now = ([*lines, ""][place].strip() for lines in (old, result.lines))
    return chapter.fault(result.first + place, f"it says {was!r}, but now it is {now!r}: run `make guide-sync`")


def write_references(book: Book) -> None:
    if book.bibliography.exists():
        page = book.folder / "references.md"
        if not page.exists() or page.read_text(encoding="utf-8") != references.page(book):
            page.write_text(references.page(book), encoding="utf-8")


def parallel(do: Callable[[Chapter], list[Fault]], chapters: list[Chapter]) -> list[list[Fault]]:
    """`do` for every chapter, a few at once: each waits for a Python of its own."""
    with ThreadPoolExecutor(CHAPTERS_AT_ONCE) as pool:
        return list(pool.map(do, chapters))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["sync", "check", "symbols"])
    parser.add_argument("names", nargs="*", help="chapters, such as 04 or README; all of them where none is named")
    parser.add_argument("--quiet", action="store_true", help="of symbols, only those that lack a walk-through")
    given, book, start = parser.parse_args(), Book(), time.monotonic()
    try:
        if given.verb == "symbols":
            table, lacking = symbols.report(book)
            if not given.quiet:
                print(table)
            what = "have no walk-through: " + ", ".join(lacking) if lacking else "lack a walk-through"
            print(f"{len(lacking)} public symbols {what}")
            return int(bool(lacking))
        faults = (sync if given.verb == "sync" else check)(book, given.names)
        for fault in faults:
            print(fault)
        for chapter in book.chosen(given.names):
            print(f"{chapter.name}: {len(chapter.text.split())} words, {session.code_seconds(chapter):.1f} s of blocks")
        print(f"{len(faults)} to mend, {time.monotonic() - start:.1f} s")
    except Wrong as error:
        print(error, file=sys.stderr)
        return 2
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
