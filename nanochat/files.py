"""Files that a crash can't hurt: written beside their place, put on the disk, and renamed into it.

A hidden name that ends in `.partial` is on its way in, one that ends in `.removed` on its way out. A crash can leave
such names behind; `sweep` removes them, and nothing else ever reads them.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LEFTOVERS = (".partial", ".removed")


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`: a reader, or a crash, meets the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `final` when the block is done: on the disk and whole, or not there at all.

    Subfolders are not flushed. One that was there before is replaced.
    """
    partial = partial_of(final)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            flush(path)
        if final.exists():
            discard(final)
        partial.rename(final)
        flush(final.parent)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def partial_of(final: Path) -> Path:
    """Where `whole_folder(final)` is filled, by other processes too."""
    return final.with_name(f".{final.name}.partial")


def discard(folder: Path) -> None:
    """Remove a folder: its name is gone at once, so that nobody meets it with half of its files."""
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    folder.rename(removed)
    shutil.rmtree(removed)


def sweep(folder: Path) -> None:
    """Remove what crashed writers have left in `folder`. Whoever calls this is the only one who makes folders there."""
    for path in folder.glob(".*"):
        if path.suffix not in LEFTOVERS or is_being_written(path):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def is_being_written(path: Path) -> bool:
    """Whether the process that a partial file is named after still runs, as far as this machine can tell."""
    process = path.with_suffix("").suffix.removeprefix(".")
    if not process.isdigit():
        return False
    if os.name == "nt":  # there os.kill would end it
        return True
    try:
        os.kill(int(process), 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return int(process) != os.getpid()


def flush(path: Path) -> None:
    """Ask the system to put a file, or the list of a folder's files, on the disk now."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
