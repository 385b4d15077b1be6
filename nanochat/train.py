"""The one loop. Every stage is next-token prediction with weighted tokens, and goes through `train`.

Pretraining weighs every token 1; fine-tuning ignores the prompt's targets; reinforcement weighs a token by its
advantage. What else a stage does, logging, evaluation, checkpoints, it does in the body of its own `for`, between two
steps: there are no hooks.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.loss import IGNORE, weighted_nll
from nanochat.optim import Together


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


class Ranks(Protocol):
    """What a step needs of the other processes."""

    def total(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        ...

    def sum_gradients(self, model: torch.nn.Module) -> None:
        """Make every process's gradients the sum of all."""
        ...


class Alone:
    """One process: every sum is its own."""

    def total(self, values: list[float]) -> list[float]:
        return values

    def sum_gradients(self, model: torch.nn.Module) -> None:
        pass


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
        for batch in micro:
            part = weighted_nll(model.features(batch.inputs), model.head, batch) / max(learned, 1.0)
            part.backward()
            loss += part.detach().cpu().double()
        ranks.sum_gradients(model)
        mean_loss, norm = ranks.total([float(loss)])[0], gradient_norm(model)
        # Every process sees the same sums, and so decides the same.
        finite = mean_loss - mean_loss == 0 and norm - norm == 0
        skipped = "" if finite and learned and weight else "nothing to learn" if finite else "not finite"
        factor = schedule(index)
        if not skipped:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - began
        yield Step(index, mean_loss, int(tokens), int(learned), norm, factor, seconds, micro[-1].cursor, skipped)


def gradient_norm(model: torch.nn.Module) -> float:
    """Length of all gradients taken as one vector."""
    return float(torch.nn.utils.get_total_norm([w.grad for w in model.parameters() if w.grad is not None]))
