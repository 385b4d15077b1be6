"""Models that say what they are told to: for what an untrained model would not say."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nanochat.attention import KVCache
from nanochat.gpt import GPTConfig
from nanochat.tokenizer import SPECIALS, Tokenizer

# One token a byte: every character but ASCII is split over tokens.
TOKENIZER = Tokenizer([], specials={name: 256 + number for number, name in enumerate(SPECIALS)})
BOS, ASKED, START, END = (
    TOKENIZER.special(f"<|{name}|>") for name in ("bos", "user_end", "assistant_start", "assistant_end")
)
CALL, CALLED, SHOWN, SHOWED = (
    TOKENIZER.special(f"<|{name}|>") for name in ("call_start", "call_end", "output_start", "output_end")
)


class Scripted:
    """A model that says what a function of all the tokens so far says; its cache holds those tokens."""

    def __init__(self, says: Callable[[list[int]], int], context: int = 400) -> None:
        self.says = says
        self.config = GPTConfig(vocab_size=267, n_layer=1, n_head=1, n_kv_head=1, n_embd=2, context=context)

    def empty_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        return KVCache(1, batch, 1, capacity or self.config.context, 1, torch.device("cpu"), torch.float64)

    def features(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        assert cache is not None
        batch, count = ids.shape
        positions = cache.positions(count)
        cache.keys[0, :, 0, :, 0].scatter_(1, positions, ids.double())
        cache.lengths = cache.lengths + count
        known = torch.full((batch, count, self.config.context), -1.0, dtype=torch.float64)
        for row in range(batch):
            for column in range(count):
                end = int(positions[row, column]) + 1
                known[row, column, :end] = cache.keys[0, row, 0, :end, 0]
        return known

    def logits(self, features: Tensor) -> Tensor:
        scores = torch.zeros(len(features), self.config.vocab_size, dtype=torch.float64)
        for row, known in enumerate(features.long().tolist()):
            scores[row, self.says([token for token in known if token >= 0])] = 50.0
        return scores


def saying(*scripts: Sequence[int], context: int = 400) -> Scripted:
    """A model that answers [number, START] with that script, whatever tools put in between."""
    return Scripted(lambda known: following(scripts[known[0]], known), context)


def answering(scripts: Mapping[str, Sequence[int]], context: int = 400) -> Scripted:
    """A model that answers a question with its script, and makes plain text into the script of ""."""

    def says(known: list[int]) -> int:
        if START not in known:
            return following(scripts[""], [START, *known[known.index(BOS) + 1 :]])
        asked = known[: last(known, START)]
        begin = last(asked, TOKENIZER.special("<|user_start|>"))
        return following(scripts[TOKENIZER.decode(asked[begin + 1 : last(asked, ASKED)])], known)

    return Scripted(says, context)


def following(script: Sequence[int], known: list[int]) -> int:
    """The script's next token, given all tokens so far; <|assistant_end|> after its last."""
    told, inside = 0, False
    for token in known[last(known, START) + 1 :]:
        inside = inside or token == SHOWN
        told += not inside
        inside = inside and token != SHOWED
    return script[told] if told < len(script) else END


def last(ids: list[int], token: int) -> int:
    """Where `token` stands for the last time."""
    return len(ids) - 1 - ids[::-1].index(token)


def said(*parts: str | int) -> list[int]:
    """Ids of texts and special tokens in turn."""
    return [token for part in parts for token in ([part] if isinstance(part, int) else TOKENIZER.encode(part))]
