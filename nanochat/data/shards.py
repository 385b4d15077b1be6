"""Tokens on disk: what a tokenizer made of a corpus, read without loading it.

A store is three files. NAME.npy holds the tokens of all documents, one after the other (uint16, or uint32 where the
vocabulary needs it); NAME.offsets.npy where each begins, and the end; NAME.json how they were made. No special token is
stored: the packer puts a BOS before each document. The JSON is written last, so a store that was interrupted is none.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nanochat.data.readers import Document
from nanochat.errors import DataError
from nanochat.files import flush, sha256, write_atomically

Tokens = npt.NDArray[np.unsignedinteger[Any]]
VERSION = 1
REMEDY = "encode the corpus again: python -m nanochat tokenizer"


class Encoder(Protocol):
    """What of a tokenizer is needed here."""

    vocab_size: int

    def encode(self, text: str) -> list[int]: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Record:
    """How a store was made. `source` is the fingerprint of the documents, `text_bytes` their length in UTF-8."""

    tokenizer: str
    source: str
    documents: int
    tokens: int
    text_bytes: int
    dtype: str
    sha256: str
    offsets_sha256: str
    version: int = VERSION


@dataclass(frozen=True)
class TokenStore:
    """Documents as token arrays, mapped from disk. `store[i]` is a view of document i."""

    tokens: Tokens
    offsets: npt.NDArray[np.int64]
    record: Record

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Tokens:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The tokens of each document."""
        return np.diff(self.offsets)


def fingerprint(documents: Iterable[Document]) -> str:
    """A sha256 of every title and text, in order: it changes when a source, a reader or the split does."""
    digest = hashlib.sha256()
    for document in documents:
        for text in (document.title, document.text):
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def write_store(
    path: Path,
    documents: Sequence[Document],
    tokenizer: Encoder,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore:
    """Encode `documents` into the store at `path` (NAME.npy) and open it. Replaces one that is there, all or nothing.

    `progress` is called with (documents done, of how many). Memory stays flat: tokens go to disk as they come.
    """
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    offsets, text_bytes = array("q", [0]), 0
    tokens_path, offsets_path, record_path = store_paths(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            write_header(file, dtype, 0)
            for number, document in enumerate(documents, 1):
                ids = np.asarray(tokenizer.encode(document.text), dtype=dtype)
                file.write(ids.tobytes())
                offsets.append(offsets[-1] + len(ids))
                text_bytes += len(document.text.encode())
                if progress is not None:
                    progress(number, len(documents))
            file.seek(0)
            write_header(file, dtype, offsets[-1])
        flush(temporary)
        record_path.unlink(missing_ok=True)  # from here on what was there is no store any more
        temporary.replace(tokens_path)
        with temporary.open("wb") as file:
            np.save(file, np.frombuffer(offsets, dtype=np.int64))
        flush(temporary)
        temporary.replace(offsets_path)
        record = Record(
            tokenizer.fingerprint, fingerprint(documents), len(documents), offsets[-1], text_bytes, dtype.name,
            sha256(tokens_path), sha256(offsets_path),
        )  # fmt: skip
        write_atomically(record_path, json.dumps(vars(record), indent=2) + "\n")
    except OSError as error:
        raise DataError(f"to write {path}", str(error), "free some space or choose another folder") from error
    finally:
        if temporary.exists():
            temporary.unlink()
    return open_store(path, verify=False)


def open_store(path: Path, *, tokenizer: str = "", source: str = "", verify: bool = True) -> TokenStore:
    """The store at `path`, mapped from disk. Raises DataError for one that is missing, short, damaged or stale.

    Stale is one whose tokenizer's or documents' fingerprint differs from that given. `verify` reads the files once to
    compare their sha256.
    """
    tokens_path, offsets_path, record_path = store_paths(path)
    record = read_record(record_path)
    if tokenizer and record.tokenizer != tokenizer:
        raise DataError(f"tokens of tokenizer {tokenizer[:12]}", f"{path} of {record.tokenizer[:12]}", REMEDY)
    if source and record.source != source:
        raise DataError(f"tokens of the documents {source[:12]}", f"{path} of {record.source[:12]}", REMEDY)
    try:
        tokens = np.load(tokens_path, mmap_mode="r", allow_pickle=False) if record.tokens else empty(record.dtype)
        offsets = np.load(offsets_path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError("a readable token store", f"{path}: {error}", REMEDY) from error
    shapes = tokens.shape == (record.tokens,) and offsets.shape == (record.documents + 1,)
    if not shapes or tokens.dtype.name != record.dtype or offsets[-1] != record.tokens or offsets[0] != 0:
        raise DataError(f"{record.tokens} tokens in {record.documents} documents", f"{path} with others", REMEDY)
    hashes = (record.sha256, record.offsets_sha256)
    if verify and (sha256(tokens_path), sha256(offsets_path)) != hashes:
        raise DataError("an undamaged token store", f"{path}, whose sha256 is not the recorded one", REMEDY)
    return TokenStore(tokens, offsets, record)


def is_current(path: Path, tokenizer: str, source: str) -> bool:
    """Whether the store at `path` is there, whole, and made of these documents by this tokenizer."""
    try:
        open_store(path, tokenizer=tokenizer, source=source)
    except DataError:
        return False
    return True


def store_paths(path: Path) -> tuple[Path, Path, Path]:
    """Tokens, offsets and record of the store at `path`, which is NAME.npy."""
    return path, path.with_suffix(".offsets.npy"), path.with_suffix(".json")


def read_record(path: Path) -> Record:
    """The record in a JSON file."""
    try:
        record = Record(**json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise DataError("a token store", f"{path}, which is not there", REMEDY) from error
    except (OSError, ValueError, TypeError) as error:
        raise DataError("the record of a token store", f"{path}: {error}", REMEDY) from error
    if record.version != VERSION:
        raise DataError(f"a token store of version {VERSION}", f"{path} of version {record.version}", REMEDY)
    return record


def empty(dtype: str) -> Tokens:
    """No tokens: a file of none cannot be mapped."""
    return np.zeros(0, dtype=np.uint16 if dtype == "uint16" else np.uint32)


def write_header(file: Any, dtype: np.dtype[Any], length: int) -> None:
    """The head of a one-dimensional .npy file.

    NumPy leaves room in it for the first axis to grow, so that the head of a finished file is as long as that of an
    empty one, and can be written over it.
    """
    descriptor = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descriptor, "fortran_order": False, "shape": (length,)})
