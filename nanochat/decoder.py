"""What a scheduler asks of a model: read runs of tokens into numbered slots, and tell the scores of what may follow.

A slot holds the keys and values of one row. Which tokens of it count is the scheduler's to know: every run says where
it starts, and what lies beyond its end is overwritten before it can be seen. So a slot is taken back to an earlier
token, or given to somebody else, at no cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nanochat.answer import Drawn
from nanochat.attention import KVCache, rounded
from nanochat.engine import Engine, describe, draw_tokens
from nanochat.sampling import Sampling

__all__ = ["CHUNK", "Decoder", "PlainDecoder", "Run"]


CHUNK = 128  # prompt tokens that a step reads at most, of all rows together


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one slot, the first of them at position `start`."""

    slot: int
    start: int
    ids: Sequence[int]
    scored: int = 0  # of how many of its last tokens the scores are wanted


class Decoder(Protocol):
    """A model with a cache of slots."""

    slots: int
    capacity: int  # tokens that a slot can hold
    is_invariant: bool  # whether a row's scores are the same bits whatever is read beside it, and in however many runs
    spare: int  # tokens of a pass up to which guesses are worth their time

    def read(self, runs: Sequence[Run]) -> Float[Tensor, "scored V"]:
        """Read one run of each of several slots; scores after the tokens that asked for them, in order."""
        ...

    def draw(
        self,
        logits: Float[Tensor, "scored V"],
        rows: Sequence[int],
        laws: Sequence[Sampling],
        uniforms: Sequence[float],
    ) -> list[Drawn]:
        """A token from each of these rows of scores, by its own law and random number."""
        ...

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Make the first `tokens` tokens of slot `source` those of slot `target` too."""
        ...


class PlainDecoder:
    """The model as it is, on any device: rows with one token to read take a step together, longer runs one by one.

    With `is_fixed` every product has the same shape in every step, however many rows there are: then a row's scores do
    not depend on its neighbours. It costs as much as a full house.
    """

    def __init__(self, engine: Engine, slots: int, chunk: int = CHUNK, is_fixed: bool = False) -> None:
        self.model, self.tokenizer, self.runtime = engine.model, engine.tokenizer, engine.runtime
        self.slots, self.chunk, self.is_fixed = slots, chunk, is_fixed
        self.capacity, self.is_invariant, self.spare = self.model.config.context, False, 0
        # What fills a product up to its shape is written behind a slot's tokens, where nobody looks.
        self.cache = self.model.empty_cache(slots, rounded(self.capacity) + rounded(chunk))
        self.ends = [0] * slots

    @torch.inference_mode()
    def read(self, runs: Sequence[Run]) -> Float[Tensor, "scored V"]:
        """Scores after the tokens that asked for them."""
        single = {run.slot: run for run in runs if len(run.ids) == 1}
        stepped = dict(zip(single, self.step(single), strict=True)) if single else {}
        features = []
        for run in runs:
            read = stepped[run.slot] if len(run.ids) == 1 else self.read_long(run)
            features += [read[len(read) - run.scored :]] if run.scored else []
            self.ends[run.slot] = run.start + len(run.ids)
        if not features:
            return torch.empty(0, self.model.config.vocab_size)
        return self.logits(torch.cat(features))

    def logits(self, features: Float[Tensor, "scored C"]) -> Float[Tensor, "scored V"]:
        """Scores of the next token; where shapes are fixed, of so many rows at a time as there are slots."""
        if not self.is_fixed:
            return self.model.logits(features)
        padding = -len(features) % self.slots
        parts = F.pad(features, (0, 0, 0, padding)).split(self.slots)
        return torch.cat([self.model.logits(part) for part in parts])[: len(features)]

    def step(self, runs: Mapping[int, Run]) -> list[Float[Tensor, "1 C"]]:
        """Features of one token of each of these slots, in one pass over all slots up to the last of them."""
        rows = self.slots if self.is_fixed else max(runs) + 1
        ids = [[runs[slot].ids[0]] if slot in runs else [0] for slot in range(rows)]
        starts = [runs[slot].start if slot in runs else self.ends[slot] for slot in range(rows)]
        features = self.pass_through(slice(0, rows), ids, starts)
        return [features[slot] for slot in runs]

    def read_long(self, run: Run) -> Float[Tensor, "T C"]:
        """Features of a run's tokens, `chunk` at a time."""
        parts = []
        for at in range(0, len(run.ids), self.chunk):
            part = list(run.ids[at : at + self.chunk])
            tokens = self.chunk if self.is_fixed else min(rounded(len(part)), self.chunk)
            padded = [part + [0] * (tokens - len(part))]
            features = self.pass_through(slice(run.slot, run.slot + 1), padded, [run.start + at])
            parts.append(features[0, : len(part)])
        return torch.cat(parts)

    def pass_through(self, rows: slice, ids: list[list[int]], starts: list[int]) -> Float[Tensor, "B T C"]:
        """The model's features of the next tokens of some neighbouring slots, which from now on hold them."""
        view = Slots(self.cache, rows, self.whole(starts), self.is_fixed)
        return self.model.features(self.whole(ids), view)

    def draw(
        self,
        logits: Float[Tensor, "scored V"],
        rows: Sequence[int],
        laws: Sequence[Sampling],
        uniforms: Sequence[float],
    ) -> list[Drawn]:
        """Those of one law together."""
        found: dict[int, Drawn] = {}
        for law in dict.fromkeys(laws):
            alike = [number for number, other in enumerate(laws) if other == law]
            scores = logits[self.whole([rows[number] for number in alike])]
            tokens = draw_tokens(scores, law, [uniforms[number] for number in alike])
            found |= zip(alike, describe(self.tokenizer, *tokens), strict=True)
        return [found[number] for number in range(len(rows))]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy a prefix."""
        for held in (self.cache.keys, self.cache.values):
            held[:, target, :, :tokens] = held[:, source, :, :tokens]
        self.cache.ids[target, :tokens] = self.cache.ids[source, :tokens]
        self.ends[target] = tokens

    def whole(self, numbers: Sequence[object]) -> Int[Tensor, "..."]:
        """Whole numbers as a tensor on the model's device."""
        return self.runtime.tensor(numbers, torch.long)


class Slots(KVCache):
    """Some neighbouring slots of a larger cache, which is written through it; `starts` says what each holds."""

    def __init__(self, cache: KVCache, rows: slice, starts: Int[Tensor, " B"], is_fixed: bool) -> None:
        self.keys, self.values, self.ids = cache.keys[:, rows], cache.values[:, rows], cache.ids[rows]
        self.lengths, self.is_fixed = starts, is_fixed

    def used(self, positions: Int[Tensor, "B T"]) -> int:
        """All slots where shapes are fixed."""
        return self.capacity if self.is_fixed else super().used(positions)
