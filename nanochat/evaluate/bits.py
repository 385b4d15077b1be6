"""Bits per byte: how many bits a model needs to say which byte comes next, on text that it has never seen.

Loss per token cannot be compared between tokenizers; bits per byte can, and with compressors too. Ours is defined on
whole documents and does not know how training packs or batches them: the document stands behind <|bos|>, the model's
context slides over it by half its length, and each byte is counted once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nanochat.attention import rounded
from nanochat.distributed import gathered
from nanochat.errors import DataError
from nanochat.evaluate.figures import Figure, ratio
from nanochat.gpt import GPT
from nanochat.keyed import key
from nanochat.loss import IGNORE, log_probabilities
from nanochat.runtime import Runtime

BOS = "<|bos|>"
UNIT = "bits/byte"
Progress = Callable[[int, int], None]  # (done, of how many)


class Encoder(Protocol):
    """What is needed of a tokenizer here."""

    def encode(self, text: str) -> list[int]: ...
    def special(self, name: str) -> int: ...


@dataclass(frozen=True)
class Held:
    """Held-out documents, encoded once to be scored often: <|bos|> and tokens of each, and its UTF-8 bytes."""

    ids: tuple[tuple[int, ...], ...]
    num_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Part of a document as the model sees it: `ids[start:stop]` go in, targets from `scored` up to `stop` count."""

    document: int
    start: int
    scored: int
    stop: int  # the last target's place; inputs end one before it


def encode_held(tokenizer: Encoder, texts: Sequence[str], limit: int | None = None, seed: int = 0) -> Held:
    """`texts`, or a keyed sample of `limit` of them, ready to be scored. Raises DataError where no text is left."""
    chosen = sample(len(texts), limit, seed)
    kept = [texts[index] for index in chosen if texts[index]]
    if not kept:
        raise DataError("held-out documents that hold text", f"none in {len(texts)}", "use a larger source")
    bos = tokenizer.special(BOS)
    ids = tuple((bos, *tokenizer.encode(text)) for text in kept)
    return Held(ids, tuple(len(text.encode()) for text in kept))


def sample(count: int, limit: int | None, seed: int) -> list[int]:
    """`limit` of the numbers below `count`, in order, drawn by the seed; all of them without a limit."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(sorted(range(count), key=lambda index: key(seed, "held-out sample", index))[:limit])


def windows(document: int, length: int, context: int) -> Iterator[Window]:
    """Windows over a document of `length` ids (<|bos|> and tokens), which between them score each token once.

    The first scores all that it holds. Each later one starts half a context further on and scores only what the ones
    before did not reach, so that every token has half a context of history or more, where there is as much.
    """
    stride, scored, start = max(1, context // 2), 1, 0
    while scored < length:
        stop = min(start + context, length - 1)
        yield Window(document, start, scored, stop)
        scored, start = stop + 1, start + stride


def bits_per_byte(
    model: GPT,
    tokenizer: Encoder,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    stage: str = "",
    name: str = "bpb",
    limit: int | None = None,
    seed: int = 0,
    batch: int = 16,
    progress: Progress | None = None,
) -> Figure:
    """Total bits that the model spends on `texts`, over their UTF-8 bytes; the interval is over documents."""
    held = encode_held(tokenizer, texts, limit, seed)
    return score_held(model, held, runtime, stage=stage, name=name, batch=batch, progress=progress)


def score_held(
    model: GPT,
    held: Held,
    runtime: Runtime,
    *,
    stage: str = "",
    name: str = "bpb",
    batch: int = 16,
    progress: Progress | None = None,
) -> Figure:
    """`bits_per_byte` of documents that are already encoded: for the curve that training draws."""
    nats = document_nats(model, held, runtime, batch, progress)
    return ratio(stage, name, (nats / math.log(2)).tolist(), held.num_bytes, UNIT)


@torch.inference_mode()
def document_nats(
    model: GPT, held: Held, runtime: Runtime, batch: int = 16, progress: Progress | None = None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """-ln p of each document given <|bos|>, in float64. Processes share the work out; each gets all of the result."""
    context = model.config.context
    todo = [window for index, ids in enumerate(held.ids) for window in windows(index, len(ids), context)]
    # Equal lengths side by side: padding is the only waste, and it is a matter of time, never of the result.
    todo.sort(key=lambda window: window.stop - window.start)
    nats = np.zeros(len(held.ids))
    batches = [todo[first : first + batch] for first in range(0, len(todo), batch)]
    for number in range(runtime.rank, runtime.world * -(-len(batches) // runtime.world), runtime.world):
        # A model that is cut up computes only when all do: who has no batch left takes one again, and counts nothing.
        rows = batches[number % len(batches)]
        inputs, targets = padded(rows, held, runtime)
        scores = log_probabilities(model.features(inputs), model.head, targets).cpu().double().sum(dim=1)
        for window, score in zip(rows, scores.tolist(), strict=True) if number < len(batches) else ():
            nats[window.document] -= score
        if progress is not None:
            progress(min((number + 1) * batch, len(todo)), len(todo))
    total: np.ndarray[tuple[int], np.dtype[np.float64]] = np.sum(gathered(nats, runtime), axis=0)
    return total


def padded(rows: Sequence[Window], held: Held, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Inputs and targets of some windows, (rows, longest): padded on the right, where nothing causal can see it."""
    longest = rounded(max(window.stop - window.start for window in rows))
    inputs, targets = np.zeros((len(rows), longest), np.int64), np.full((len(rows), longest), IGNORE, np.int64)
    for row, window in enumerate(rows):
        ids, size = held.ids[window.document], window.stop - window.start
        inputs[row, :size] = ids[window.start : window.stop]
        targets[row, window.scored - window.start - 1 : size] = ids[window.scored : window.stop + 1]
    return runtime.tensor(torch.from_numpy(inputs), torch.long), runtime.tensor(torch.from_numpy(targets), torch.long)
