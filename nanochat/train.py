"""The one loop. Every stage is next-token prediction with weighted tokens, and goes through `train`.

Pretraining weighs every token 1; fine-tuning ignores the prompt's targets; reinforcement weighs a token by its
advantage. What else a stage does, logging, evaluation, checkpoints, it does in the body of its own `for`, between two
steps: there are no hooks.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.loss import IGNORE, weighted_nll
from nanochat.optim import Together

NOTHING, NOT_FINITE = "nothing to learn", "not finite"  # why a step was skipped


@dataclass(frozen=True)
class Batch:
    """One micro-batch of this process."""

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]  # IGNORE where nothing is learned: padding, prompts, tool output
    weights: Float[Tensor, "B T"]  # scale of each target's loss: 1 to imitate, the advantage to reinforce
    cursor: dict[str, object]  # where the stream was after this batch, enough to resume it


@dataclass(frozen=True)
class Step:
    """What one optimizer step did, over all processes."""

    index: int
    loss: float  # nats a token, weighted
    tokens: int  # read by the model
    learned: int  # targets that were not IGNORE
    grad_norm: float
    lr: float  # the schedule's factor
    seconds: float
    cursor: dict[str, object]
    skipped: str = ""  # why the weights were left as they were
    norms: dict[str, tuple[float, float]] = field(default_factory=dict)  # by layer, where the step was not finite


Of = Literal["gradients", "weights"]


class Ranks(Protocol):
    """What training needs of the other processes. All are asked the same, in the same order."""

    def total(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        ...

    def nll(self, model: GPT, batch: Batch, last: bool) -> Tensor:
        """This process's loss of a micro-batch, weighted and summed; `last` of its step."""
        ...

    def sum_gradients(self, model: GPT) -> None:
        """Make gradients the sum of all processes', where the backward pass has not done so already."""
        ...

    def lengths(self, model: GPT, of: Of = "gradients") -> dict[str, float]:
        """The length of each weight's gradient, or of the weight itself, by name."""
        ...

    def wrap(self, model: GPT, optimizer: Together, device: torch.device) -> Together:
        """Bring a new model to `device`, or this process's part of it; the optimizer to use from here on."""
        ...

    def whole(self, model: GPT) -> AbstractContextManager[None]:
        """A block in which each process can use the model without the others."""
        ...

    def wait(self, patiently: bool = False) -> None:
        """Return when all have come here; `patiently`, where one has long work to do alone."""
        ...


class Alone:
    """One process: every sum is its own."""

    def total(self, values: list[float]) -> list[float]:
        return values

    def nll(self, model: GPT, batch: Batch, last: bool) -> Tensor:
        return nll(model, batch)

    def sum_gradients(self, model: GPT) -> None:
        pass

    def lengths(self, model: GPT, of: Of = "gradients") -> dict[str, float]:
        named = {name: weight.grad if of == "gradients" else weight for name, weight in model.named_parameters()}
        norms = [torch.zeros(()) if tensor is None else tensor.detach().norm().cpu() for tensor in named.values()]
        return dict(zip(named, torch.stack(norms).tolist(), strict=True))

    def wrap(self, model: GPT, optimizer: Together, device: torch.device) -> Together:
        model.to(device)
        return optimizer

    def whole(self, model: GPT) -> AbstractContextManager[None]:
        return nullcontext()

    def wait(self, patiently: bool = False) -> None:
        pass


def nll(model: GPT, batch: Batch) -> Tensor:
    """Sum of weight x -ln p over a micro-batch's targets."""
    return weighted_nll(model.features(batch.inputs), model.head, batch)


def train(
    model: GPT,
    optimizer: Together,
    batches: Iterator[Batch],
    schedule: Callable[[int], float],
    *,
    steps: int,
    accumulate: int = 1,
    start: int = 0,
    ranks: Ranks | None = None,
) -> Iterator[Step]:
    """Yield after every optimizer step; the caller decides what happens between steps.

    A step reads `accumulate` micro-batches. Its loss is the mean over all of the step's targets on all processes, so
    a token weighs the same however the step is cut up. Ends early where `batches` does.
    """
    ranks = ranks or Alone()
    for index in range(start, steps):
        began = time.perf_counter()
        micro = list(islice(batches, accumulate))
        if not micro:
            return
        # Weight zero teaches nothing either: a group of equal rewards has no advantage to learn from.
        counts = [
            sum(int((b.targets != IGNORE).sum()) for b in micro),
            sum(float(b.weights.abs().sum()) for b in micro),
        ]
        learned, weight, tokens = ranks.total([*counts, sum(b.inputs.numel() for b in micro)])
        loss = torch.zeros((), dtype=torch.float64)
        for number, batch in enumerate(micro, start=1):
            part = ranks.nll(model, batch, last=number == len(micro)) / max(learned, 1.0)
            part.backward()
            loss += part.detach().cpu().double()
        ranks.sum_gradients(model)
        mean_loss = ranks.total([float(loss)])[0]
        gradients = ranks.lengths(model)
        norm = math.hypot(*gradients.values())
        # Every process sees the same sums, and so decides the same.
        finite = mean_loss - mean_loss == 0 and norm - norm == 0
        skipped = "" if finite and learned and weight else NOTHING if finite else NOT_FINITE
        norms = {} if finite else paired(ranks.lengths(model, of="weights"), gradients)
        factor = schedule(index)
        if not skipped:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - began
        yield Step(index, mean_loss, int(tokens), int(learned), norm, factor, seconds, micro[-1].cursor, skipped, norms)


def paired(weights: dict[str, float], gradients: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Lengths of each weight and of its gradient: where in a model the numbers went wrong."""
    return {name: (length, gradients[name]) for name, length in weights.items()}
