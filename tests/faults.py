"""A file layer that fails on purpose: the n-th operation under a folder breaks off, lies, or is the last that happens.

Operations are numbered as the package makes them: `fsync`, `rename`, `write`. They are taken where Python hands them to
the system, so that nothing of the package is replaced; only safetensors writes from Rust, and is taken as a whole.
"""

import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("fsync", "rename", "write", "short")


@dataclass
class Layer:
    """What happens to operation number `at` of a kind, or of `any`: OSError with `error`, or where that is 0 a kill."""

    root: Path
    kind: str = "any"
    at: int = -1
    error: int = errno.ENOSPC
    seen: list[str] = field(default_factory=list)
    synced: int = -1  # descriptor of a file that is told what was put on the disk: a line of inode and size

    def due(self, kind: str) -> bool:
        """Count an operation; whether it is the one."""
        self.seen.append(kind)
        wanted = "write" if self.kind == "short" else self.kind
        count = len(self.seen) if wanted == "any" else self.seen.count(kind) if wanted == kind else -1
        return count - 1 == self.at

    def fail(self) -> None:
        """What is due."""
        if not self.error:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.error, os.strerror(self.error))

    def ours(self, path: Any) -> bool:
        """Whether a path lies under the folder that fails."""
        return str(path).startswith(str(self.root))

    def install(self, patch: Callable[[Any, str, Any], None]) -> None:
        """Take the system's functions, by `patch(object, name, value)`."""
        from nanochat import checkpoint

        fsync, opened, save_file = os.fsync, io.open, checkpoint.save_file

        def failing_fsync(handle: int) -> None:
            if self.due("fsync"):
                self.fail()
            fsync(handle)
            if self.synced >= 0:
                about = os.fstat(handle)
                os.write(self.synced, f"{about.st_ino} {about.st_size}\n".encode())

        def failing(rename: Callable[..., None]) -> Callable[..., None]:
            def move(source: Any, target: Any, **more: Any) -> None:
                if self.ours(target) and self.due("rename"):
                    self.fail()
                rename(source, target, **more)

            return move

        def failing_open(path: Any, mode: str = "r", *more: Any, **others: Any) -> Any:
            file = opened(path, mode, *more, **others)
            return Writing(file, self) if set(mode) & set("wax+") and self.ours(path) else file

        def failing_save(tensors: Any, path: Path) -> None:
            if self.due("write"):
                with opened(path, "wb") as file:
                    file.write(b"half")
                self.fail()
            save_file(tensors, path)

        patch(os, "fsync", failing_fsync)
        patch(os, "rename", failing(os.rename))
        patch(os, "replace", failing(os.replace))
        patch(io, "open", failing_open)
        patch(checkpoint, "save_file", failing_save)


class Writing:
    """A file open for writing, whose writes count."""

    def __init__(self, file: Any, layer: Layer) -> None:
        self.file, self.layer = file, layer

    def write(self, data: Any) -> int:
        if self.layer.due("write"):
            if self.layer.kind == "short" or not self.layer.error:
                self.file.write(data[: len(data) // 2])
                self.file.flush()
            self.layer.fail()
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
