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
from collections.abc import Callable, Iterator
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
    return same and first.dtype in FORMATS and library(first.dtype) is not None


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
    compiled = library(dtype)
    assert compiled is not None, "ask `available` first"
    function = getattr(compiled, name)
    function.argtypes, function.restype = [TYPES[kind] for kind in SIGNATURES[name]], None
    found: Callable[..., int] = function
    return found


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
    path = home() / "compiled" / f"native-{hashlib.sha256(about.encode()).hexdigest()[:24]}.so"
    for again in (False, True):  # a file that cannot be loaded is made anew
        try:
            if again or not path.exists():
                build(command, path)
            return ctypes.CDLL(str(path))
        except subprocess.SubprocessError:
            break
        except OSError:
            continue
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


def lacking(device: torch.device, dtype: torch.dtype) -> str:
    """Why there are no kernels on a CPU that could use them; empty where there are, or where none are needed."""
    if device.type != "cpu" or dtype not in FORMATS or library(dtype) is not None:
        return ""
    return "no C compiler found" if find_compiler() is None else "native.c could not be compiled"
