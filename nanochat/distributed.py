"""Many processes as one: who holds what, and who tells whom. The model and the optimizer know nothing of it.

PyTorch does the work; what is ours is to say which part of it, where:

    torchrun                      starts the processes and numbers them; ends all when one dies, or starts all again
    torch.distributed             connects them, and adds up across them: gloo between CPUs, nccl between GPUs
    DistributedDataParallel       `ddp`: each process holds everything; gradients are summed while backward runs
    fully_shard (FSDP2)           `zero`, `fsdp`: each process holds its rows of every weight, gradient and moment;
                                  weights are gathered to compute with, gradients summed and scattered in one
    DTensor                       what is cut up so: a tensor that knows which rows of it are here
    torch.distributed.checkpoint  checkpoints that another number of processes can read (`sharded_checkpoint`)

What `zero` and `fsdp` differ in is when gathered weights are dropped: after the whole step, or after each layer, so
that no device ever holds all of them. `zero` sends no more than `ddp` and shares out the optimizer's memory and work:
it is the default. `fsdp` sends half as much again, each micro-batch, and is for models larger than a device.
"""

import contextlib
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from nanochat.errors import RankError, UsageError
from nanochat.gpt import GPT
from nanochat.optim import Together
from nanochat.runtime import Runtime
from nanochat.sharded import Sharded, rows
from nanochat.train import Alone, Batch, Of, Ranks, nll

Parallel = Literal["zero", "ddp", "fsdp"]
PATIENCE = timedelta(hours=12)  # where one process works alone and the others wait: a vocabulary of a large corpus
MOMENT = 5.0  # seconds in which survivors of a lost connection find one another
Anything = TypeVar("Anything")


class Connected(Alone):
    """This process among the others. What it is asked to do, all are asked to do, in the same order."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.patient = dist.new_group(backend="gloo", timeout=PATIENCE)

    def total(self, values: list[float]) -> list[float]:
        """Each value summed over all processes, in float64 and by way of the CPUs: a GPU would have to stop for it."""
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def wait(self, patiently: bool = False) -> None:
        """Return when every process has come here; `patiently`, where one has hours of work to do alone."""
        if patiently:
            dist.barrier(self.patient)
        else:
            self.total([0.0])


class Replicated(Connected):
    """`ddp`: every process holds the whole model, the whole gradient, the whole optimizer."""

    def wrap(self, model: GPT, optimizer: Together, device: torch.device) -> Together:
        """Move the model to `device`, and have its gradients summed."""
        self.together = DistributedDataParallel(Loss(model.to(device)), gradient_as_bucket_view=True)
        # DDP averages, unless told otherwise. Our loss is divided by the targets of all processes: gradients add up.
        self.together.register_comm_hook(None, summed)
        return optimizer

    def nll(self, model: GPT, batch: Batch, last: bool) -> Tensor:
        """The loss of a micro-batch; gradients are summed in the backward pass of the `last`, with all before it."""
        with contextlib.nullcontext() if last else self.together.no_sync():
            loss: Tensor = self.together(batch)
        return loss


class Loss(nn.Module):
    """A model and its loss as one module, for DDP, which stands around `forward`."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return nll(self.model, batch)


def summed(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """DDP's hook for a bucket of gradients: their sum over all processes."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return cast("torch.futures.Future[Tensor]", work.get_future().then(lambda done: done.value()[0]))


class Cut(Connected):
    """`zero` and `fsdp`: every process holds its rows of each weight, and of what belongs to it."""

    def __init__(self, runtime: Runtime, frees: bool) -> None:
        super().__init__(runtime)
        self.frees = frees  # gathered weights, as soon as a layer has been computed

    def wrap(self, model: GPT, optimizer: Together, device: torch.device) -> Together:
        """Cut up the model, layer by layer on its way to `device`; the optimizer for this process's share of it."""
        names = {cast(Tensor, weight): name for name, weight in model.named_parameters()}
        # A handful of numbers, which FSDP2 could not cut either: they stay whole, everywhere.
        few = {weight for weight in model.parameters() if weight.ndim < 2}
        for weight in few:
            weight.data = weight.data.to(device)
        mesh = init_device_mesh(device.type, (self.runtime.world,))
        exact, quick = MixedPrecisionPolicy(), MixedPrecisionPolicy()
        if self.runtime.dtype == torch.bfloat16:
            # Matrices travel in the format that they multiply in. Tables do not: their gradients are sums over rows.
            quick = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        self.parts = [cast(FSDPModule, part) for part in (*model.blocks, model)]
        for part in (*model.blocks, model):
            has_table = any(isinstance(module, nn.Embedding) for module in part.modules())
            # The head is read after `features` has returned: the outermost part keeps what it has gathered.
            fully_shard(
                part, mesh=mesh, mp_policy=exact if has_table else quick, ignored_params=few,
                reshard_after_forward=self.frees and part is not model,
            )  # fmt: skip
        for shard in self.parts:
            shard.set_gradient_divide_factor(1.0)
            shard.set_force_sum_reduction_for_comms(True)
            # Buffers that are first filled in inference mode could never be trained with.
            shard.unshard()
            shard.reshard()
        register_fsdp_forward_method(model, "features")
        self.weights = dict(model.named_parameters())
        self.few = [weight for weight in self.weights.values() if weight.ndim < 2]
        return Sharded(optimizer, names, self.weights, mesh)

    def nll(self, model: GPT, batch: Batch, last: bool) -> Tensor:
        """The loss of a micro-batch. Under `zero` weights are gathered once a step, and gradients scattered once."""
        if not self.frees:
            outermost = self.parts[-1]
            outermost.set_requires_gradient_sync(last)
            outermost.set_reshard_after_backward(last)
        return nll(model, batch)

    def sum_gradients(self, model: GPT) -> None:
        """What `fully_shard` left to us: the gradients of the few numbers that are not cut up."""
        if self.few:
            for weight in self.few:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            flat = torch.cat([cast(Tensor, weight.grad).flatten() for weight in self.few])
            dist.all_reduce(flat)
            for weight, part in zip(self.few, flat.split([weight.numel() for weight in self.few]), strict=True):
                weight.grad = part.view_as(weight)

    def lengths(self, model: GPT, of: Of = "gradients") -> dict[str, float]:
        """Length of each weight's gradient, or its own: squares are summed here, then over all."""
        squares = []
        for weight in self.weights.values():
            tensor = weight.grad if of == "gradients" else weight
            mine = weight.ndim > 1 or self.runtime.is_main  # what all hold counts once
            squares.append(0.0 if tensor is None or not mine else float(rows(tensor).double().square().sum()))
        return {name: square**0.5 for name, square in zip(self.weights, self.total(squares), strict=True)}

    @contextlib.contextmanager
    def whole(self, model: GPT) -> Iterator[None]:
        """The model with all its weights on every process, which each may use at a pace of its own."""
        for part in self.parts:
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for part in self.parts:
                part.set_reshard_after_forward(self.frees and part is not self.parts[-1], recurse=False)
                part.reshard()


@contextlib.contextmanager
def joined(runtime: Runtime, parallel: Parallel = "zero", timeout: int = 600) -> Iterator[Ranks]:
    """The processes of this run, connected while the block lasts; just this one where it is alone.

    A block inside another keeps the connection: under `torchrun` it can be made only once. Raises RankError where
    another process died, or gave no sign for `timeout` seconds.
    """
    if runtime.world == 1:
        yield Alone()
    elif dist.is_initialized():
        yield ranks_of(runtime, parallel)
    else:
        on_gpu = runtime.device.type == "cuda"
        store = common_list()
        store.set(f"machine of {runtime.rank}", platform.node())
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=runtime.rank, world_size=runtime.world,
            timeout=timedelta(seconds=timeout), device_id=runtime.device if on_gpu else None,
        )  # fmt: skip
        try:
            yield ranks_of(runtime, parallel)
        except (dist.DistError, RuntimeError) as error:
            if not is_lost_connection(error):
                raise
            raise lost(error, store, runtime) from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def common_list() -> Any:
    """The list that torchrun keeps for all processes, as far as it belongs to this attempt."""
    store, _, world = next(rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") != str(world):
        # On several machines attempts are not counted alike, and torchrun must be told to make a new list for each:
        # TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (runs/cluster/slurm.sh).
        return store
    # Started again, processes would find the addresses of those that died.
    return dist.distributed_c10d.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def ranks_of(runtime: Runtime, parallel: Parallel) -> Ranks:
    """This process among the others, in the way that `--parallel` names."""
    return Replicated(runtime) if parallel == "ddp" else Cut(runtime, frees=parallel == "fsdp")


def is_lost_connection(error: Exception) -> bool:
    """Whether an error came from between processes: gloo has no class of its own for it."""
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "Gloo", "NCCL"))


def lost(error: Exception, store: Any, runtime: Runtime) -> RankError:
    """What to say when the connection broke: which processes are gone, as far as this one can tell."""
    with contextlib.suppress(ValueError):  # torchrun ends those who are left: not before they have said why
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    dist.destroy_process_group()  # so that who waits for us notices, too
    reason = str(error).partition("\n")[0].rpartition("] ")[2].partition(". This is")[0]
    remedy = "the same command goes on from the last checkpoint; `torchrun --max-restarts N` does so by itself"
    # If the list itself lies behind the broken connection, asking for it can take the system's quarter of an hour.
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(missing(store, runtime)), daemon=True)
    asking.start()
    asking.join(2 * MOMENT)
    address = os.environ.get("MASTER_ADDR", "the first machine")
    who = found[0] if found else f"no way to {address}, where the list of processes is kept"
    return RankError(f"{runtime.world} processes that answer", f"{who} (process {runtime.rank}: {reason})", remedy)


def missing(store: Any, runtime: Runtime) -> str:
    """The processes that are gone: those left sign in the list that torchrun keeps, and see who else has."""
    store.set(f"left: {runtime.rank}", "")
    gone, deadline = list(range(runtime.world)), time.monotonic() + MOMENT
    while gone and time.monotonic() < deadline:
        time.sleep(0.1)
        gone = [rank for rank in gone if not store.check([f"left: {rank}"])]
    names = [f"{rank} on {store.get(f'machine of {rank}').decode()}" for rank in gone]
    return f"process {', '.join(names)} gone" if gone else "the connection broken, all of them alive"


def gathered(mine: Anything, runtime: Runtime) -> list[Anything]:
    """What each process brings, by rank; of one alone, its own. Whatever the bytes on disk, these come from us."""
    if runtime.world == 1:
        return [mine]
    everyone: list[Any] = [None] * runtime.world
    dist.all_gather_object(everyone, mine)
    return everyone


def share(count: int, field: str, runtime: Runtime) -> int:
    """Each process's part of `count`, the value of `--field`. Raises UsageError where a rest is left."""
    if count % runtime.world:
        raise UsageError(f"{field} a multiple of the processes", f"{count} and {runtime.world}", f"change --{field}")
    return count // runtime.world
