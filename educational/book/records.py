"""Numbers in the text that come from a record: `1.049<!-- = runs/laptop.json figures/0/value .3f -->`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from educational.book.chapter import Chapter, Edit, Fault, Wrong

NUMBER = re.compile(r"([-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?|\?)?<!-- = (.*?) -->")
FORMAT = re.compile(r"[-+]?,?(\.\d+)?[dfeg%]")


def work(chapter: Chapter) -> Iterator[Edit | Fault]:
    """For every line with such numbers the edit that makes them what their records say, or what is wrong."""
    for number, line in chapter.prose():
        faults: list[Fault] = []

        def now(found: re.Match[str], number: int = number, faults: list[Fault] = faults) -> str:
            try:
                return f"{value(found[2], chapter.book.root)}<!-- = {found[2]} -->"
            except Wrong as error:
                faults.append(chapter.fault(number, str(error)))
                return found[0]

        written = NUMBER.sub(now, line)
        yield from faults
        if written != line:
            yield Edit(number, number + 1, [written])


def value(reference: str, root: Path) -> str:
    """The number that `FILE PATH [*FACTOR] FORMAT` names, as it is printed."""
    words = reference.split()
    if len(words) not in {3, 4} or not FORMAT.fullmatch(words[-1]):
        raise Wrong(f"not understood: {reference!r}; write FILE PATH [*FACTOR] FORMAT, as in runs/x.json a/b .3f")
    if not (root / words[0]).is_file():
        raise Wrong(f"there is no record {words[0]}")
    text = (root / words[0]).read_text(encoding="utf-8")
    record = [json.loads(line) for line in text.splitlines()] if words[0].endswith(".jsonl") else json.loads(text)
    found = follow(record, words[1])
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Wrong(f"{words[1]} of {words[0]} is {type(found).__name__}, not a number")
    if len(words) == 4:
        if not re.fullmatch(r"\*[\d.]+(e-?\d+)?", words[2]):
            raise Wrong(f"{words[2]!r} is no factor: write *100, or leave it out")
        found *= float(words[2][1:])
    return format(round(found) if words[-1].endswith("d") else found, words[-1])


def follow(record: Any, path: str) -> Any:
    """What lies at `path`: names, positions in lists, or `field=value,...` that picks one entry of a list."""
    for part in path.split("/"):
        if isinstance(record, list):
            record = pick(record, part, path)
        elif isinstance(record, dict) and part in record:
            record = record[part]
        else:
            raise Wrong(f"the record has no {part!r} at {path}; it has: {shown(record)}")
    return record


def pick(entries: list[Any], part: str, path: str) -> Any:
    """One entry of a list, by position or by the fields that it must have."""
    if re.fullmatch(r"-?\d+", part):
        if not -len(entries) <= int(part) < len(entries):
            raise Wrong(f"the list at {path} has {len(entries)} entries, no number {part}")
        return entries[int(part)]
    wanted = [pair.partition("=")[::2] for pair in part.split(",")]
    found = [e for e in entries if isinstance(e, dict) and all(str(e.get(k)) == v for k, v in wanted)]
    if len(found) != 1:
        raise Wrong(f"{len(found)} entries of the list have {part}, at {path}: name fields that one entry has")
    return found[0]


def shown(record: Any) -> str:
    return ", ".join(map(str, record)) if isinstance(record, dict) else repr(record)[:60]
