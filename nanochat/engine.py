"""The engine: prompts in, answers out, many at once and one token at a time.

Reading a prompt is one pass over all its tokens. After it every step feeds each row its newest token and draws the next
from the model's distribution; keys and values of earlier tokens wait in a cache. Each row of the batch is an answer of
its own, with its own prompt, random numbers and tool calls, and leaves the batch when it ends: it is the same answer,
up to float rounding, whatever rows are beside it.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nanochat.answer import Alternatives, Answer, Completion, Drawn, Finish, Kind, Piece, Rules
from nanochat.attention import KVCache, rounded
from nanochat.errors import UsageError
from nanochat.gpt import GPTConfig
from nanochat.runtime import Runtime
from nanochat.sampling import Sampling, distribution, draw, entropy
from nanochat.tokenizer import Tokenizer
from nanochat.tools import Tool

__all__ = ["Completion", "Engine", "Finish", "Kind", "LanguageModel", "Piece", "Sampling"]

SLOTS = 64  # by how many tokens a row a cache grows when it is full
SHOWN = 5  # alternatives that are listed beside a streamed token


class LanguageModel(Protocol):
    """What the engine needs of a model; `GPT` has it."""

    @property
    def config(self) -> GPTConfig: ...
    def features(self, ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T C"]: ...
    def logits(self, features: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows V"]: ...
    def empty_cache(self, batch: int, capacity: int | None = None) -> KVCache: ...


class Engine:
    """Answers from one model. Nothing in it changes, so that threads may share it."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        runtime: Runtime,
        tools: Mapping[str, Tool] | None = None,
        max_calls: int = 8,
    ) -> None:
        self.model, self.tokenizer, self.runtime = model, tokenizer, runtime
        self.rules = Rules(tokenizer, model.config.context, dict(tools or {}), max_calls)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | None = None,
        rows: Sequence[int] | None = None,
        batch: int = 128,
    ) -> list[Completion]:
        """An answer to each prompt, `batch` of them at a time. A prompt that a batch has several times is read once.

        Row r's draws are named by (seed, r) alone. `rows` numbers the prompts where they are a part of a larger set,
        so that work that is split gives the same answers; by default they count from 0.
        """
        numbers = range(len(prompts)) if rows is None else rows
        if len(numbers) != len(prompts):
            raise UsageError("a row number for each prompt", f"{len(numbers)} for {len(prompts)} prompts")
        sampling = sampling or Sampling()
        answers = [Answer(self.rules, prompt, sampling, row) for prompt, row in zip(prompts, numbers, strict=True)]
        for start in range(0, len(answers), batch):
            for _ in Batch(self, answers[start : start + batch], sampling, is_watched=False).run():
                pass
        return [answer.completion() for answer in answers]

    def stream(
        self, prompt: Sequence[int], sampling: Sampling | None = None, row: int = 0
    ) -> Generator[Piece, None, None]:
        """The answer that `generate` gives for this row, token by token; no piece where the prompt fills the context.

        Close it to stop early.
        """
        sampling = sampling or Sampling()
        return Batch(self, [Answer(self.rules, prompt, sampling, row)], sampling, is_watched=True).run()


class Batch:
    """Answers that are written side by side, one row of the cache each."""

    def __init__(self, engine: Engine, answers: Sequence[Answer], sampling: Sampling, is_watched: bool) -> None:
        self.model, self.runtime, self.tokenizer = engine.model, engine.runtime, engine.tokenizer
        self.sampling, self.is_watched = sampling, is_watched
        self.answers = [answer for answer in answers if answer.finish is None]

    def run(self) -> Generator[Piece, None, None]:
        """Every piece of every row, until all rows have ended."""
        if self.answers:
            self.read_prompts()
        while self.answers:
            for answer, drawn in self.draw():
                yield from answer.take(drawn)
            self.drop_ended()
            if self.answers:
                self.feed()

    # Computation is free of gradients here, method by method: around a `yield` the mode would leak to whoever iterates.
    @torch.inference_mode()
    def read_prompts(self) -> None:
        """Fill the cache with the prompts. Each different one is read once, and copied to all rows that have it."""
        prompts = [answer.prompt for answer in self.answers]
        places = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        longest = min(rounded(max(map(len, places))), self.model.config.context)
        padded = self.whole([[*prompt, *[0] * (longest - len(prompt))] for prompt in places])
        lengths = self.whole([len(prompt) for prompt in places])
        cache = self.model.empty_cache(len(places), longest)
        features = self.model.features(padded, cache)
        # The padding was read too, but it lies behind all that is real: with the true lengths it is never seen.
        cache.lengths = lengths
        logits = self.model.logits(features[torch.arange(len(places), device=lengths.device), lengths - 1])
        rows = self.whole([places[prompt] for prompt in prompts])
        is_shared = len(places) < len(prompts)
        self.cache, self.logits = (cache.select(rows), logits[rows]) if is_shared else (cache, logits)

    @torch.inference_mode()
    def draw(self) -> list[tuple[Answer, Drawn]]:
        """A new token for each row whose tokens have all been read."""
        waiting = [number for number, answer in enumerate(self.answers) if answer.needs_token]
        if not waiting:
            return []
        answers = [self.answers[number] for number in waiting]
        logits = self.logits if len(waiting) == len(self.answers) else self.logits[self.whole(waiting)]
        uniforms = [answer.uniforms.random() for answer in answers]
        shown = SHOWN if self.is_watched else None
        return list(zip(answers, draw_tokens(self.tokenizer, logits, self.sampling, uniforms, shown), strict=True))

    @torch.inference_mode()
    def drop_ended(self) -> None:
        """Take ended rows out of the cache. That copies it, so they wait until they are a quarter of it."""
        live = [number for number, answer in enumerate(self.answers) if answer.finish is None]
        if not live:
            self.answers = []
        elif 4 * len(live) <= 3 * len(self.answers):
            self.cache = self.cache.select(self.whole(live))
            self.answers = [self.answers[number] for number in live]

    @torch.inference_mode()
    def feed(self) -> None:
        """One step: the model reads the next token of every row, and we keep the scores of what may follow.

        Where every row has a tool's output to read, the step takes as many tokens as the shortest of them has left.
        """
        tokens = min(len(answer.pending) for answer in self.answers if answer.finish is None)
        ids = self.whole([answer.next_ids(tokens) for answer in self.answers])
        if ended := [number for number, answer in enumerate(self.answers) if answer.finish is not None]:
            # They still take part until they are dropped, and must not run into the end of the cache.
            self.cache.lengths[self.whole(ended)] = 0
        needed = int(self.cache.lengths.max()) + tokens
        if needed > self.cache.capacity:
            self.cache = grown(self.model, self.cache, min(needed + SLOTS, self.model.config.context))
        self.logits = self.model.logits(self.model.features(ids, self.cache)[:, -1])

    def whole(self, numbers: Sequence[object]) -> Tensor:
        """Whole numbers as a tensor on the model's device."""
        return self.runtime.tensor(numbers, torch.long)


def draw_tokens(
    tokenizer: Tokenizer,
    logits: Float[Tensor, "B V"],
    sampling: Sampling,
    uniforms: Sequence[float],
    shown: int | None = None,
) -> list[Drawn]:
    """The next token of each row, each by its own random number; with entropy and `shown` alternatives where asked."""
    log_p = distribution(logits, sampling)
    ids = draw(log_p, torch.tensor(uniforms, dtype=torch.float64))
    if sampling.logprobs_of == "model" and not sampling.is_plain:
        log_p = logits.log_softmax(dim=-1)
    return describe(tokenizer, log_p, ids, shown)


def describe(
    tokenizer: Tokenizer, log_p: Float[Tensor, "B V"], ids: Int[Tensor, " B"], shown: int | None = None
) -> list[Drawn]:
    """What is to be told of one token a row: ln p, and where asked the entropy and the likeliest alternatives."""
    columns = [ids.tolist(), log_p.gather(1, ids[:, None]).squeeze(1).tolist()]
    if shown is not None:
        columns += [entropy(log_p).tolist(), likeliest(tokenizer, log_p, shown)]
    return [Drawn(*row) for row in zip(*columns, strict=True)]


def likeliest(tokenizer: Tokenizer, log_p: Float[Tensor, "B V"], count: int) -> list[Alternatives]:
    """The `count` likeliest tokens of each row, of those that can be drawn."""
    best = log_p.exp().topk(min(count, log_p.shape[-1]), dim=-1)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        tuple((token, tokenizer.decode([token]), p) for token, p in zip(*row, strict=True) if p > 0) for row in rows
    ]


def grown(model: LanguageModel, cache: KVCache, capacity: int) -> KVCache:
    """What `cache` holds, with room for `capacity` tokens a row."""
    larger = model.empty_cache(len(cache.lengths), capacity)
    larger.keys[:, :, :, : cache.capacity] = cache.keys
    larger.values[:, :, :, : cache.capacity] = cache.values
    larger.ids[:, : cache.capacity] = cache.ids
    larger.lengths = cache.lengths
    return larger
