"""Many processes as one: who sums what. The model and the optimizer know nothing of it.

PyTorch starts the processes (`torchrun`), connects them (`torch.distributed`, gloo on CPUs, nccl on GPUs) and adds
numbers up across them (`all_reduce`).
"""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from nanochat.errors import UsageError
from nanochat.runtime import Runtime
from nanochat.train import Alone, Ranks

PATIENCE = timedelta(hours=12)


class AllRanks:
    """Every process holds the whole model; gradients are summed after the last micro-batch of a step."""

    def __init__(self, runtime: Runtime) -> None:
        self.device = runtime.device

    def total(self, values: list[float]) -> list[float]:
        """Each value summed over all processes, in float64."""
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def sum_gradients(self, model: nn.Module) -> None:
        """One all-reduce of all gradients laid end to end: few large messages beat many small ones."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        # A process whose share of a step had no targets still takes part, with zeros.
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)


@contextlib.contextmanager
def joined(runtime: Runtime) -> Iterator[Ranks]:
    """The processes of this run, connected while the block lasts; just this one where it is alone.

    A block inside another keeps the connection: under `torchrun` it can be made only once.
    """
    if runtime.world == 1:
        yield Alone()
        return
    ours = not dist.is_initialized()
    if ours:
        # The others wait while one learns merges, or evaluates: that may take longer than torch's ten minutes.
        on_gpu = runtime.device.type == "cuda"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", timeout=PATIENCE, device_id=runtime.device if on_gpu else None
        )
    try:
        yield AllRanks(runtime)
    finally:
        if ours:
            dist.destroy_process_group()


def share(count: int, field: str, runtime: Runtime) -> int:
    """Each process's part of `count`, the value of `--field`. Raises UsageError where a rest is left."""
    if count % runtime.world:
        raise UsageError(f"{field} a multiple of the processes", f"{count} and {runtime.world}", f"change --{field}")
    return count // runtime.world


def barrier(runtime: Runtime) -> None:
    """Wait until every process has come here."""
    if runtime.world > 1:
        dist.barrier()
