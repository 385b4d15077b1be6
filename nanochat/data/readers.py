"""Documents out of bytes: one reader for each kind of file that a source may be.

A reader takes the content and the source's name and returns documents in the file's order. A file that cannot be read
raises DataError naming the file and the place in it. Documents without any text are left out.
"""

import importlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.data.cleaning import plain
from nanochat.data.recipes import parse_recipes, recipe_text
from nanochat.errors import DataError

TITLE_LENGTH = 80  # characters of its first line that stand for a document that has no title


@dataclass(frozen=True)
class Document:
    """One text of a corpus. The title decides on which side of the held-out split it falls."""

    title: str
    text: str
    source: str


Reader = Callable[[bytes, str], list[Document]]


def read_cookbook(content: bytes, source: str) -> list[Document]:
    """The Cookbook's recipes, each as `recipe_text` lays it out."""
    recipes, _ = parse_recipes(content)
    return [Document(recipe.title, recipe_text(recipe), source) for recipe in recipes]


def read_wikipedia(content: bytes, source: str) -> list[Document]:
    """Article leads: the title, its short description on the next line, an empty line, the text."""
    try:
        entries = list(json.loads(content).values())
        return [Document(plain(entry["title"]), lead_text(entry), source) for entry in entries]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError("articles as JSON objects with title, description and extract", repr(error)) from error


def lead_text(entry: Mapping[str, Any]) -> str:
    """ "Tomato / Edible berry / (empty) / The tomato is ...": paragraphs stay, typography is made plain."""
    paragraphs = [line for raw in entry["extract"].splitlines() if (line := plain(raw))]
    head = [plain(entry["title"]), plain(entry["description"])]
    return "\n".join(line for line in head if line) + "\n\n" + "\n".join(paragraphs)


def read_text(content: bytes, source: str, name: str = "") -> list[Document]:
    """A whole .txt file as one document, titled by its name."""
    text = decode(content, name or source).strip()
    return [Document(name or first_line(text), text, source)] if text else []


def read_jsonl(content: bytes, source: str, name: str = "") -> list[Document]:
    """One document a line: {"text": ..., "title": ...}, the title being optional."""
    documents = []
    for number, line in enumerate(decode(content, name or source).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError("one JSON object a line", f"{name or source}, line {number}: {error}") from error
        if document := row_document(row, f"{name or source}, line {number}", source):
            documents.append(document)
    return documents


def read_parquet(content: bytes, source: str, name: str = "") -> list[Document]:
    """One document a row: column `text`, and `title` where there is one. Needs pyarrow."""
    try:
        pyarrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError("pyarrow, to read .parquet", "none installed", "pip install 'nanochat[data]'") from error
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        columns = [column for column in ("text", "title") if column in file.schema_arrow.names]
        rows = [row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist()]
    except pyarrow.ArrowException as error:
        raise DataError("a parquet file", f"{name or source}: {error}") from error
    found = (row_document(row, f"{name or source}, row {number}", source) for number, row in enumerate(rows))
    return [document for document in found if document]


def row_document(row: object, place: str, source: str) -> Document | None:
    """The document that a row of a table holds; None where its text is empty."""
    text = row.get("text") if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        got = f"{place}: {sorted(row) if isinstance(row, Mapping) else type(row).__name__}"
        raise DataError('rows with a string "text"', got)
    title = row.get("title") if isinstance(row, Mapping) else None
    text = unicode(text).replace("\r\n", "\n").strip()
    return Document(unicode(str(title)) if title else first_line(text), text, source) if text else None


def unicode(text: str) -> str:
    """`text` with each lone half of a surrogate pair, which JSON lets through and UTF-8 does not, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def first_line(text: str) -> str:
    """What titles a text that has no title of its own."""
    return text.partition("\n")[0][:TITLE_LENGTH].strip()


def decode(content: bytes, name: str) -> str:
    """UTF-8 as text, with line feeds alone and no byte order mark."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        got = f"{name}, which is not at byte {error.start}"
        raise DataError("text in UTF-8", got, "convert it, for example with iconv -t UTF-8") from error


READERS: dict[str, Callable[..., list[Document]]] = {".txt": read_text, ".jsonl": read_jsonl, ".parquet": read_parquet}


def reader_of(name: str | Path) -> Callable[..., list[Document]]:
    """The reader for a file, by the ending of its name."""
    reader = READERS.get(Path(name).suffix.lower())
    if reader is None:
        raise DataError(f"a file that ends in {', '.join(READERS)}", str(name))
    return reader


def read_path(path: Path, source: str) -> list[Document]:
    """The documents of a file, or of every readable file in a folder, in the order of their paths."""
    if not path.exists():
        raise DataError("a file or a folder", f"{path}, which is not there", "check the path")
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in READERS and file.is_file())
    documents: list[Document] = []
    for file in files:
        documents += named_documents(reader_of(file), file, path, source)
    if not documents:
        got = f"{path}, which holds none" if files else f"{path}, which holds no {', '.join(READERS)} file"
        raise DataError("documents with text", got)
    return documents


def named_documents(reader: Callable[..., list[Document]], file: Path, root: Path, source: str) -> list[Document]:
    """One file's documents; errors name the file. A .txt is titled by its path inside `root`, without the ending."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError("a readable file", f"{file}: {error.strerror}") from error
    documents = reader(content, source, str(file))
    if reader is not read_text:
        return documents
    inside = file.name if file == root else file.relative_to(root).as_posix()
    return [Document(inside[: -len(file.suffix)], document.text, source) for document in documents]
