"""Tokens on disk: what a tokenizer made of a corpus, read without loading it.

A store is three files. NAME.npy holds the tokens of all documents, one after the other (uint16, or uint32 where the
vocabulary needs it); NAME.offsets.npy where each begins, and the end; NAME.json how they were made. No special token is
stored: the packer puts a BOS before each document. The JSON is written last, so a store that was interrupted is none.

Encoding goes part by part, some megabytes of text each. What is finished lies in `.NAME.npy.partial`, and how far it
goes is written down after each part; whoever asks for the same documents and tokenizer again goes on from there.
"""

import contextlib
import glob
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from nanochat.data.readers import Document
from nanochat.errors import DataError
from nanochat.files import flush, sha256, write_atomically

Tokens = npt.NDArray[np.unsignedinteger[Any]]
VERSION = 1
REMEDY = "encode the corpus again: python -m nanochat tokenizer"
PART = 8 << 20  # characters of text that are encoded at once; after each part the work could be resumed


class Encoder(Protocol):
    """What of a tokenizer is needed here; `nanochat.tokenizer.BulkEncoder` has it."""

    vocab_size: int
    fingerprint: str

    def encode_batch(self, texts: Sequence[str]) -> tuple[Tokens, npt.NDArray[np.int64]]:
        """(the ids of all texts, one after the other, how many each text has)."""


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
    encoder: Encoder,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore:
    """Encode `documents` into the store at `path` (NAME.npy) and open it. Replaces one that is there, all or nothing.

    Goes on where an earlier call for the same documents and tokenizer was interrupted. `progress` is called with
    (documents done, of how many) when they are safe on disk. Memory stays flat: tokens go to disk as they come. Raises
    DataError where that fails, or where another process is at it.
    """
    dtype = "uint16" if encoder.vocab_size <= 1 << 16 else "uint32"
    begun = Record(encoder.fingerprint, fingerprint(documents), 0, 0, 0, dtype, "", "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Partial.open(path, begun) as partial:
            clear_away(path)
            for part in parts(documents[partial.record.documents :]):
                partial.append([document.text for document in part], encoder)
                if progress is not None:
                    progress(partial.record.documents, len(documents))
            partial.finish()
    except OSError as error:
        raise DataError(f"to write {path}", str(error), "free some space or choose another folder") from error
    return open_store(path, verify=False)


def parts(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """The documents in groups of about `PART` characters."""
    part, size = list[Document](), 0
    for document in documents:
        part.append(document)
        size += len(document.text)
        if size >= PART:
            yield part
            part, size = [], 0
    if part:
        yield part


class Partial:
    """A store in the making: `record` says how much of it is safe on disk."""

    def __init__(self, path: Path, tokens: BinaryIO, offsets: BinaryIO) -> None:
        self.path, self.tokens, self.offsets = path, tokens, offsets
        self.record = Record("", "", 0, 0, 0, "", "", "")

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, begun: Record) -> Iterator["Partial"]:
        """What was left of making `begun`, or a new beginning; both files are cut to what the journal vouches for."""
        tokens_path, offsets_path, journal = partial_paths(path)
        with tokens_path.open("a+b") as tokens, offsets_path.open("a+b") as offsets:
            lock(tokens, path)
            partial = cls(path, tokens, offsets)
            with contextlib.suppress(DataError):
                partial.record = read_record(journal)
            if replace(partial.record, documents=0, tokens=0, text_bytes=0) != begun or not partial.is_whole():
                partial.record = begun
                journal.unlink(missing_ok=True)
            tokens.truncate(partial.size_of_tokens())
            offsets.truncate(partial.size_of_offsets())
            if not partial.record.documents:
                tokens.truncate(0)
                write_header(tokens, np.dtype(begun.dtype), 0)
                tokens.flush()
            yield partial

    def size_of_tokens(self) -> int:
        """Bytes of the tokens that are recorded, their header included."""
        return header_size() + self.record.tokens * np.dtype(self.record.dtype).itemsize

    def size_of_offsets(self) -> int:
        """Bytes of the recorded documents' ends."""
        return 8 * self.record.documents

    def is_whole(self) -> bool:
        """Whether both files hold at least what is recorded."""
        sizes = [os.fstat(file.fileno()).st_size for file in (self.tokens, self.offsets)]
        return sizes[0] >= self.size_of_tokens() and sizes[1] >= self.size_of_offsets()

    def append(self, texts: Sequence[str], encoder: Encoder) -> None:
        """Encode some more documents and record them, when they are on disk."""
        ids, lengths = encoder.encode_batch(texts)
        self.tokens.write(ids.astype(self.record.dtype).tobytes())
        self.offsets.write((self.record.tokens + np.cumsum(lengths, dtype=np.int64)).tobytes())
        for file in (self.tokens, self.offsets):
            file.flush()
            os.fsync(file.fileno())
        self.record = replace(
            self.record,
            documents=self.record.documents + len(texts),
            tokens=self.record.tokens + len(ids),
            text_bytes=self.record.text_bytes + sum(len(text.encode()) for text in texts),
        )
        write_atomically(partial_paths(self.path)[2], dumps(self.record))

    def finish(self) -> None:
        """Put the finished store in its place. Until its record is written, a kill leaves a store to be made again."""
        tokens_path, offsets_path, record_path = store_paths(self.path)
        partial_tokens, partial_offsets, journal = partial_paths(self.path)
        with partial_tokens.open("r+b") as file:
            write_header(file, np.dtype(self.record.dtype), self.record.tokens)
        self.offsets.seek(0)
        ends = np.frombuffer(self.offsets.read(), np.int64)
        # In a file of its own: the other must stay what the journal describes.
        offsets = offsets_path.with_name(f".{offsets_path.name}.partial")
        with offsets.open("wb") as file:
            np.save(file, np.concatenate([np.zeros(1, np.int64), ends]))
        flush(partial_tokens)
        flush(offsets)
        record = replace(self.record, sha256=sha256(partial_tokens), offsets_sha256=sha256(offsets))
        record_path.unlink(missing_ok=True)  # from here on what was there is no store any more
        journal.unlink(missing_ok=True)
        if os.name == "nt":  # where an open file cannot be renamed
            self.tokens.close()
            self.offsets.close()
        partial_tokens.replace(tokens_path)
        offsets.replace(offsets_path)
        partial_offsets.unlink()
        write_atomically(record_path, dumps(record))


def lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes off while `file` is open. Raises DataError where one is at it. Windows has no such locks."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        got = "another process that is writing it"
        raise DataError(f"to be alone in writing {path}", got, "wait until it has ended, or stop it") from None


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


def clear_away(path: Path) -> None:
    """Remove what killed writers of the record or the journal have left: who holds the lock is the only writer."""
    for written in (store_paths(path)[2], partial_paths(path)[2]):
        for left in path.parent.glob(f".{glob.escape(written.name)}.*.partial"):
            left.unlink()


def store_paths(path: Path) -> tuple[Path, Path, Path]:
    """Tokens, offsets and record of the store at `path`, which is NAME.npy."""
    return path, path.with_suffix(".offsets.npy"), path.with_suffix(".json")


def partial_paths(path: Path) -> tuple[Path, Path, Path]:
    """Tokens, ends of documents and journal of a store in the making."""
    tokens, offsets, record = (
        made.with_name(f".{made.name}.partial")
        for made in (path, path.with_suffix(".offsets"), path.with_suffix(".json"))
    )
    return tokens, offsets, record


def dumps(record: Record) -> str:
    """The record as JSON."""
    return json.dumps(vars(record), indent=2) + "\n"


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


def header_size() -> int:
    """Bytes of the head that `write_header` writes."""
    with io.BytesIO() as file:
        write_header(file, np.dtype(np.uint16), 0)
        return file.tell()


def write_header(file: Any, dtype: np.dtype[Any], length: int) -> None:
    """The head of a one-dimensional .npy file.

    NumPy leaves room in it for the first axis to grow, so that the head of a finished file is as long as that of an
    empty one, and can be written over it.
    """
    descriptor = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descriptor, "fortran_order": False, "shape": (length,)})
