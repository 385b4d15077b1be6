"""Where the computation runs: device, number format, processes and threads."""

import ctypes
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.errors import DeviceError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class Runtime:
    """One process of a run. `dtype` is what products are computed in; weights and optimizer stay in float32."""

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1
    threads: int = 1

    @property
    def is_main(self) -> bool:
        """True in the one process that prints and writes."""
        return self.rank == 0

    def tensor(self, values: Sequence[object] | Tensor, dtype: torch.dtype) -> Tensor:
        """`values` as a tensor on this device."""
        return torch.as_tensor(values, dtype=dtype).to(self.device)

    def synchronize(self) -> None:
        """Wait until the device has finished, so that a clock read afterwards tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def home() -> Path:
    """Where runs and sources are kept: `$NANOCHAT_HOME`, else `~/.cache/nanochat`."""
    return Path(os.environ.get("NANOCHAT_HOME") or Path.home() / ".cache" / "nanochat")


def detect(device: str = "auto", dtype: str = "auto", threads: int = 0, deterministic: bool = False) -> Runtime:
    """The runtime of this process; sets torch's thread count, and its deterministic mode where asked for.

    Under `torchrun` rank and world size come from the environment that it sets. Raises DeviceError for a device that
    is not there.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    where = pick_device(device)
    if where.type == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0")) if where.index is None else where.index
        if index >= torch.cuda.device_count():
            got = f"{torch.cuda.device_count()}"
            raise DeviceError(f"at least {index + 1} GPUs", got, "start fewer processes, or name another --device")
        where = torch.device("cuda", index)
        torch.cuda.set_device(where)
    # torch would guess from the machine; the number is set, and recorded, because it changes the order of sums.
    per_process = threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(per_process)
    torch.use_deterministic_algorithms(deterministic)
    keep_freed_memory()
    if deterministic and where.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return Runtime(where, pick_dtype(dtype, where), rank, world, per_process)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor, which otherwise goes back to the system each time.

    A training step frees and takes hundreds of megabytes, and the system clears every page that it hands out: an eighth
    of a step (LOG.md, 2026-11-22). GNU's library only; the most memory held at a time stays what it was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def pick_device(name: str) -> torch.device:
    """The best device there is for `auto`, else the one named."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, is_there in present.items() if is_there)
        raise DeviceError("a device that this machine has", repr(name), f"use --device with one of: auto, {there}")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it quickly, else float32; or the one named."""
    if name == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    if name not in DTYPES:
        raise UsageError("a number format", repr(name), f"use --dtype with one of: auto, {', '.join(DTYPES)}")
    if name == "float64" and device.type == "mps":
        raise DeviceError("a number format that MPS has", "'float64'", "use --dtype float32 or --device cpu")
    return DTYPES[name]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; a CPU by AVX512-BF16 or AMX, or Arm's BF16 extension."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return True
    flags = cpu_flags()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_flags() -> set[str]:
    """The processor's feature flags as Linux lists them; empty where it cannot be asked."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = next((row for row in text.splitlines() if row.lower().startswith(("flags", "features"))), "")
    return set(line.partition(":")[2].split())


def available_cores() -> int:
    """Cores that this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_peak(runtime: Runtime, seconds: float = 0.3) -> float:
    """Matrix-product speed of this machine in FLOP/s: median over `seconds`, on a CPU of a 4096 x 384 x 1536 product.

    The yardstick of every utilisation (MFU) that we print. Measured beside the work and not once for all, since shared
    machines swing.
    """
    on_cpu = runtime.device.type == "cpu"
    # A GPU is done with the CPU's product in microseconds, and what would be measured is how long it takes to ask.
    rows, inner, columns = (4096, 384, 1536) if on_cpu else (8192, 8192, 8192)
    times = 1 if on_cpu else 20
    x = torch.randn(rows, inner, device=runtime.device, dtype=runtime.dtype)
    weight = torch.randn(columns, inner, device=runtime.device, dtype=runtime.dtype)
    F.linear(x, weight)
    speeds: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(speeds) < 3:
        runtime.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            F.linear(x, weight)
        runtime.synchronize()
        speeds.append(2 * times * rows * inner * columns / (time.perf_counter() - began))
    return statistics.median(speeds)


def peak_memory_gb() -> float:
    """The most memory this process has held so far, in 10^9 bytes, on a GPU where it used one; 0 where unknown."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 1e9 if platform.system() == "Darwin" else largest * 1024 / 1e9


def machine(runtime: Runtime) -> dict[str, object]:
    """What a reader needs to know of the machine to compare figures, ready for JSON."""
    return {
        "device": torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else runtime.device.type,
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "cores": available_cores(),
        "threads": runtime.threads,
        "world": runtime.world,
        "dtype": str(runtime.dtype).removeprefix("torch."),
    }


def processor_name() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions that decide the bits: Python, torch, ours."""
    from nanochat import __version__

    return {"python": platform.python_version(), "torch": str(torch.__version__), "nanochat": __version__}


def commit() -> str:
    """The git commit of this source tree, with `+` where files differ from it; empty outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        ask = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
