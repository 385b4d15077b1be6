"""Kernels in C for what lies between two matrix products, compiled on this machine in a second, where it can be done.

PyTorch on a CPU does element-wise work one operation at a time, each a walk over whole tensors, and that takes as long
as the products. `native.c` does such chains in one walk. Without a C compiler, on a GPU, and in float64 the callers'
plain PyTorch runs instead: the same numbers to rounding, more slowly.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nanochat.runtime import cpu_flags, home

SOURCE = Path(__file__).with_suffix(".c")
FORMATS = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}
# NaN and infinity keep their meaning: only `errno` and floating-point traps, which nobody reads, are given up.
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
Argument = Tensor | int | float | None


def available(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these tensors: on a CPU, all of one format that they are compiled for."""
    first = tensors[0]
    same = all(x.device.type == "cpu" and x.dtype == first.dtype for x in tensors)
    return same and first.dtype in FORMATS and not switched_off[-1] and library(first.dtype) is not None


def run(dtype: torch.dtype, name: str, *arguments: Argument) -> None:
    """Call a kernel. Tensors must be contiguous: only their addresses are passed."""
    kernels = library(dtype)
    assert kernels is not None, "ask `available` first"
    kernels[name](*map(as_c, arguments))


def as_c(x: Argument) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float:
    """A Python value as the type that native.c expects."""
    if x is None:
        return ctypes.c_void_p(None)
    if isinstance(x, Tensor):
        assert x.is_contiguous()
        return ctypes.c_void_p(x.data_ptr())
    return ctypes.c_int64(x) if isinstance(x, int) else ctypes.c_float(x)


switched_off = [False]  # the innermost `plainly` is last


@contextmanager
def plainly(off: bool = True) -> Iterator[None]:
    """Plain PyTorch inside: for comparisons, and for who wants to read along in a debugger."""
    switched_off.append(off)
    try:
        yield
    finally:
        switched_off.pop()


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels for one number format, compiled unless an earlier process did; None where that fails."""
    compiler = find_compiler()
    if compiler is None:
        return None
    wide = ("-mprefer-vector-width=512",) if "avx512f" in cpu_flags() else ()
    command = [compiler, *FLAGS, *wide, *FORMATS[dtype]]
    # Code for one processor may not run on another, and a home may be shared: both decide the name.
    about = "\n".join((*command, platform.machine(), *sorted(cpu_flags()), SOURCE.read_text(encoding="utf-8")))
    path = home() / "kernels" / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.so"
    try:
        if not path.exists():
            build(command, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def build(command: list[str], path: Path) -> None:
    """Compile, then rename: two processes that build at once are in nobody's way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        words = [*command, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
        made.replace(path)


def find_compiler() -> str | None:
    """The C compiler named by `$CC`, else the system's; None on Windows, whose compiler takes other flags."""
    if platform.system() == "Windows":
        return None
    asked = os.environ.get("CC")
    return shutil.which(asked) if asked else next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def state(dtype: torch.dtype) -> str:
    """How the element-wise work will be done on a CPU, for whoever reads along."""
    if dtype not in FORMATS:
        return "plain PyTorch"
    if library(dtype) is not None:
        return "C kernels"
    reason = "no C compiler found" if find_compiler() is None else "the C compiler failed"
    return f"plain PyTorch, which takes longer: {reason}"
