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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nanochat.errors import DeviceError
from nanochat.files import flush
from nanochat.runtime import cpu_flags, home

SOURCE = Path(__file__).with_suffix(".c")
FORMATS = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}
# NaN and infinity keep their meaning: only `errno` and floating-point traps, which nobody reads, are given up.
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")
COMPILERS = {".c": ("CC", "cc", "gcc", "clang"), ".cpp": ("CXX", "c++", "g++", "clang++")}  # a variable, and names
Argument = Tensor | int | float | None

# What each kernel takes: p a tensor, n a size, f a number.
SIGNATURES = {
    "rms_norm": "pppnnf",
    "rms_norm_backward": "ppppnn",
    "relu_squared": "ppn",
    "relu_squared_backward": "pppn",
    "heads": "ppppppppnnnnnff",
    "heads_backward": "pppppppppnnnnnf",
    "causal_softmax": "pnnnnnff",
    "causal_softmax_backward": "ppnnnnnf",
    "capped_nll": "ppppnnf",
    "accumulate": "ppn",
    "adamw": "ppppnffffff",
    "momentum": "pppnf",
    "descend": "ppnff",
    "transpose": "ppnnn",
}
TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float}

switched_on = [False]  # the innermost `kernels` is last


@contextmanager
def kernels(on: bool = True) -> Iterator[None]:
    """Inside, what can be done by kernels is; outside, everything is the plain PyTorch that one reads."""
    switched_on.append(on)
    try:
        yield
    finally:
        switched_on.pop()


def available(*tensors: Tensor) -> bool:
    """Whether kernels are asked for and can work on these tensors: on a CPU, all of one format that they know."""
    if not switched_on[-1]:
        return False
    first = tensors[0]
    same = all(x.device.type == "cpu" and x.dtype == first.dtype for x in tensors)
    return same and first.dtype in FORMATS and not failure()


def run(dtype: torch.dtype, name: str, *arguments: Argument) -> None:
    """Call a kernel. Tensors must be contiguous: only their addresses are passed."""
    assert all(x.is_contiguous() for x in arguments if isinstance(x, Tensor)), name
    kernel(dtype, name)(*[x.data_ptr() if isinstance(x, Tensor) else x for x in arguments])


def transposed(x: Tensor) -> Tensor:
    """`x` (..., rows, columns) with its last two axes swapped in memory too; quickly where that can be done."""
    rows, columns = x.shape[-2:]
    if rows % 32 or columns % 32 or not x.is_contiguous() or not available(x):
        return x.mT.contiguous()
    y = x.new_empty(*x.shape[:-2], columns, rows)
    run(x.dtype, "transpose", x, y, x.numel() // (rows * columns), rows, columns)
    return y


@functools.cache
def kernel(dtype: torch.dtype, name: str) -> Callable[..., int]:
    """One function of native.c, for one number format."""
    found_library = library(dtype)
    assert isinstance(found_library, ctypes.CDLL), "ask `available` first"
    function = getattr(found_library, name)
    function.argtypes, function.restype = [TYPES[kind] for kind in SIGNATURES[name]], None
    found: Callable[..., int] = function
    return found


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | DeviceError:
    """The kernels for one number format, or why there are none."""
    wide = ("-mprefer-vector-width=512",) if "avx512f" in cpu_flags() else ()
    try:
        return compiled(SOURCE, (*FLAGS, *wide, *FORMATS[dtype]))
    except DeviceError as error:
        return error


def lacking(device: torch.device, dtype: torch.dtype) -> str:
    """Why there are no kernels on a CPU that could use them; empty where there are, or where none are needed."""
    return failure() if device.type == "cpu" and dtype in FORMATS else ""


def failure() -> str:
    """Why a format has no kernels: a step takes those of both, so all are there or none is used."""
    return next((str(found) for found in map(library, FORMATS) if isinstance(found, DeviceError)), "")


def compiled(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The library that the system's compiler makes of a file, for this processor; made unless an earlier process did.

    It is kept under the home of runs. Raises DeviceError where there is no compiler, or where it fails.
    """
    variable, compiler = COMPILERS[source.suffix][0], find_compiler(source.suffix)
    if compiler is None:
        remedy = f"install one (Debian, Ubuntu: sudo apt install g++), or set ${variable}"
        raise DeviceError(f"a compiler for {source.name}", "none", remedy)
    command = [compiler, *flags, "-march=native", "-shared", "-fPIC"]
    # Code for one processor may not run on another, and a home may be shared: both decide the name.
    about = "\n".join((*command, platform.machine(), *sorted(cpu_flags()), source.read_text(encoding="utf-8")))
    path = home() / "compiled" / f"{source.stem}-{hashlib.sha256(about.encode()).hexdigest()[:24]}.so"
    try:
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                pass  # a file that cannot be loaded is made anew
        build([*command, str(source)], path)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        got = f"{compiler}: {next(iter(error.stderr.splitlines()), 'a failure without a word')}"
        raise DeviceError(f"a compiler that takes {source.name}", got, f"name another by ${variable}") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError(f"{source.name} compiled in {path.parent}", str(error)) from None


def build(command: Sequence[str], path: Path) -> None:
    """Compile, then rename: two processes that build at once are in nobody's way, and a power cut leaves no half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        subprocess.run([*command, "-o", str(made), "-lm"], check=True, capture_output=True, text=True, timeout=300)
        flush(made)
        made.replace(path)


def find_compiler(suffix: str = ".c") -> str | None:
    """The compiler named by `$CC` or `$CXX`, else the system's; None on Windows, whose compiler takes other flags."""
    if platform.system() == "Windows":
        return None
    variable, *names = COMPILERS[suffix]
    asked = os.environ.get(variable)
    return shutil.which(asked) if asked else next(filter(None, map(shutil.which, names)), None)
