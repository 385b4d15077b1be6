"""What a model does while it reads: where each head looks, what each layer would say by now, what it remembers.

Nothing is approximated or trained for it. Hooks on the real blocks keep what goes in and comes out, and the model's own
functions are applied to that once more: the weights of attention follow from queries and keys, and the *logit lens*
(nostalgebraist, "interpreting GPT: the logit lens", 2020) reads every layer's residual with the head, which is meant
for the last one. Row i belongs to the token at position i and tells of the prediction of the token after it.

L layers, H heads, K key-and-value heads, D features of a head, T tokens of the text, N of them new, V vocabulary.
"""

import copy
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nanochat.attention import KVCache, rotate
from nanochat.errors import UsageError
from nanochat.gpt import GPT, Attention, Block, rms_norm

MOST_WEIGHTS = 1 << 21  # weights of attention in one answer: all heads of a small model over its whole context
REPEATS = 5  # of a step that is timed; the median is shown


@dataclass(frozen=True)
class Trace:
    """What the model made of the tokens from `start` on."""

    start: int
    logits: Float[Tensor, "N V"]
    lens: Float[Tensor, "layers N V"]  # the head's logits of the embedding and after each block: L + 1 of them
    attention: Float[Tensor, "L H N T"]  # each row sums to 1; T = 0 where it was not asked for
    memory: Float[Tensor, "L N"]  # length of the values that the cache keeps of each token, over all K heads

    def __len__(self) -> int:
        return len(self.logits)


@dataclass
class Seen:
    """What the hooks of one pass have kept, layer by layer."""

    residuals: list[Float[Tensor, "1 N C"]] = field(default_factory=list)
    queries: list[Float[Tensor, "1 H N D"]] = field(default_factory=list)


class Xray:
    """A model opened up. It keeps the keys and values of the last text: a longer one costs its new tokens only."""

    def __init__(self, model: GPT) -> None:
        # Hooks go on a twin that shares the weights, so that they neither see nor slow what the engine computes.
        shared = {id(weight): weight for weight in model.parameters()}
        self.model: GPT = copy.deepcopy(model, dict(shared))
        self.model.eval()
        self.ids: list[int] = []
        self.cache = self.model.empty_cache(1)
        self.lock = threading.Lock()

    def read(self, ids: Sequence[int], start: int = 0, attention: bool = True) -> Trace:
        """Rows `start` to the end of `ids`. Raises UsageError for ids or a start that the model cannot read."""
        self.check(ids, start)
        config = self.model.config
        if attention and config.n_layer * config.n_head * (len(ids) - start) * len(ids) > MOST_WEIGHTS:
            raise UsageError(f"at most {MOST_WEIGHTS:,} weights of attention", "more", "ask for fewer rows at once")
        with self.lock, torch.inference_mode():
            common = next((n for n, (a, b) in enumerate(zip(self.ids, ids, strict=False)) if a != b), len(self.ids))
            kept = min(common, start, len(ids) - 1)
            try:
                self.cache.lengths.fill_(kept)
                found = look(self.model, self.cache, ids[kept:], start - kept, attention)
                self.ids = list(ids)
            except BaseException:
                self.ids = []
                raise
        return Trace(start, *found)

    def time_a_token(self, ids: Sequence[int]) -> list[tuple[str, float]]:
        """(part of the model, milliseconds) of one step: the last of `ids` read with all before it in the cache."""
        self.check(ids, 0)
        with self.lock, torch.inference_mode():
            self.ids = []
            self.cache.lengths.zero_()
            if len(ids) > 1:
                self.model.features(self.whole(ids[:-1]), self.cache)
            steps = []
            for _ in range(REPEATS + 1):
                self.cache.lengths.fill_(len(ids) - 1)
                steps.append(timed_step(self.model, self.cache, self.whole(ids[-1:])))
        # The first step warms up: it may be the first of its shape.
        return [(parts[0][0], statistics.median(ms for _, ms in parts)) for parts in zip(*steps[1:], strict=True)]

    def check(self, ids: Sequence[int], start: int) -> None:
        """Raises UsageError unless these are token ids that fit, and `start` is the place of one of them."""
        config = self.model.config
        if not 0 < len(ids) <= config.context:
            raise UsageError(f"1 to {config.context} tokens", str(len(ids)), "shorten the text")
        if odd := [token for token in ids if not 0 <= token < config.vocab_size]:
            raise UsageError(f"ids of a vocabulary of {config.vocab_size}", str(odd[0]))
        if not 0 <= start < len(ids):
            raise UsageError(f"a start from 0 to {len(ids) - 1}", str(start))

    def whole(self, ids: Sequence[int]) -> Tensor:
        """Ids as a batch of one row."""
        return torch.tensor([list(ids)], dtype=torch.long, device=self.model.embedding.weight.device)


def look(
    model: GPT, cache: KVCache, ids: Sequence[int], skipped: int, attention: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tensors of a `Trace`: `ids` are read on from the cache, and their first `skipped` rows left out."""
    device = model.embedding.weight.device
    with watched(model) as seen:
        features = model.features(torch.tensor([list(ids)], dtype=torch.long, device=device), cache)
    total = int(cache.lengths[0])
    eps = model.config.norm_eps
    lens = torch.stack([model.logits(rms_norm(x, eps))[0, skipped:] for x in seen.residuals])
    heads, rows = model.config.n_head, len(ids) - skipped
    looks = [
        weights(q[:, :, skipped:], cache.keys[layer, :, :, :total])[0] if attention else q.new_zeros(heads, rows, 0)
        for layer, q in enumerate(seen.queries)
    ]
    values = cache.values[:, 0, :, total - len(ids) + skipped : total].float()  # (L, K, N, D)
    memory = values.square().sum(dim=(1, 3)).sqrt()
    return model.logits(features)[0, skipped:], lens, torch.stack(looks), memory


def weights(q: Float[Tensor, "B H N D"], k: Float[Tensor, "B K T D"]) -> Float[Tensor, "B H N T"]:
    """softmax(q k^T / sqrt(D)), causal, in float32: what `attend` mixes values by. The N queries are the last of T."""
    new, total = q.shape[2], k.shape[2]
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.float() @ k.float().mT / math.sqrt(q.shape[-1])
    future = torch.ones(new, total, dtype=torch.bool, device=q.device).triu(diagonal=total - new + 1)
    return scores.masked_fill(future, -math.inf).softmax(dim=-1)


def query_of(attention: Attention, x: Float[Tensor, "B N C"], cosine: Tensor, sine: Tensor) -> Float[Tensor, "B H N D"]:
    """The queries that `Attention.forward` makes of the same input."""
    b, n, _ = x.shape
    config = attention.config
    q = attention.query(x).view(b, n, -1, config.head_size).transpose(1, 2)
    return rms_norm(rotate(q, cosine, sine), config.norm_eps) * config.sharpness


@contextmanager
def watched(model: GPT) -> Iterator[Seen]:
    """Keep what passes through the model's blocks while this is open."""
    seen = Seen()

    def attends(attention: Attention, inputs: tuple[Any, ...]) -> None:
        x, _, cosine, sine, *_ = inputs
        seen.queries.append(query_of(attention, x, cosine, sine))

    def passes(block: Block, inputs: tuple[Any, ...], output: Tensor) -> None:
        if not seen.residuals:
            seen.residuals.append(inputs[0])
        seen.residuals.append(output)

    handles = []
    for block in model.blocks:
        assert isinstance(block, Block)
        handles += [block.attention.register_forward_pre_hook(attends), block.register_forward_hook(passes)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def timed_step(model: GPT, cache: KVCache, ids: Tensor) -> list[tuple[str, float]]:
    """(part, milliseconds) of reading `ids` and scoring what follows: embedding, halves of blocks, head, the rest."""
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    parts: list[tuple[str, nn.Module]] = [("embedding", model.embedding)]
    for number, block in enumerate(blocks, 1):
        parts += [(f"attention {number}", block.attention), (f"MLP {number}", block.mlp)]
    parts.append(("head", model.head))
    spent = dict.fromkeys([name for name, _ in parts], 0.0)
    handles, clock = [], stopwatch(model.embedding.weight.device)
    for name, module in parts:
        handles += time_module(module, name, spent, clock)
    try:
        began = clock()
        model.logits(model.features(ids, cache))
        total = clock() - began
    finally:
        for handle in handles:
            handle.remove()
    return [*spent.items(), ("norms and the rest", max(0.0, total - sum(spent.values())))]


def time_module(module: nn.Module, name: str, spent: dict[str, float], clock: Callable[[], float]) -> list[Any]:
    """Hooks that add the time a module takes to `spent[name]`."""
    began: list[float] = []

    def before(module: nn.Module, inputs: Any) -> None:
        began.append(clock())

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        spent[name] += clock() - began.pop()

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def stopwatch(device: torch.device) -> Callable[[], float]:
    """Milliseconds; on a GPU, when all that was asked of it is done."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1e3 * time.perf_counter()

    return read
