"""Interpolated Kneser-Ney n-grams over token ids: what counting alone achieves on the same tokens.

Modified Kneser-Ney of Chen and Goodman, Computer Speech and Language 13 (1999) 359: every count gives up a discount,
and what a history gives up is shared out by the next shorter history. Shorter histories count not how often a word
came but after how many different words it did: "Francisco" is frequent, but only after "San".

    p_k(w | h) = max(c(h w) - D(c(h w)), 0) / c(h .) + share(h) p_(k-1)(w | h without its first word)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nanochat.errors import UsageError
from nanochat.evaluate.bits import UNIT, Held
from nanochat.evaluate.figures import Figure, ratio

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
LOCKED_DISCOUNT = 0.75  # where there are too few kinds of counts to estimate one from


@dataclass(frozen=True)
class Order:
    """The n-grams of one length: number i is `keys[i]` = number of its first n - 1 words x V + its last word."""

    keys: Ints  # sorted
    probability: Floats  # of the last word, shorter orders included
    share: Floats  # by number of a *history* of n - 1 words: what it passes on to the shorter one


@dataclass(frozen=True)
class NGram:
    """A trained model: tables for each length up to `order`. `bos` fills the history before a document's start."""

    vocab_size: int
    bos: int
    orders: tuple[Order, ...]

    @property
    def order(self) -> int:
        """Words of an n-gram, the predicted one included."""
        return len(self.orders)

    def probabilities(self, grams: Ints) -> Floats:
        """p(last word | the words before it) for each row of `grams`, which is (N, order)."""
        result = self.orders[0].probability[grams[:, -1]]
        for words in range(2, self.order + 1):
            table = self.orders[words - 1]
            history = self.find(grams[:, self.order - words : -1])
            found = look_up(table.keys, history, grams[:, -1], self.vocab_size)
            # A history never seen passes everything on.
            passed_on = np.where(history >= 0, table.share[history], 1.0) * result
            result = np.where(found >= 0, table.probability[found], passed_on)
        return result

    def find(self, grams: Ints) -> Ints:
        """Numbers of n-grams, (N, n), or -1 for those never seen: word by word, as the keys were made."""
        number = grams[:, 0]
        for place in range(1, grams.shape[1]):
            number = look_up(self.orders[place].keys, number, grams[:, place], self.vocab_size)
        return number

    def document_nats(self, ids: Sequence[int]) -> float:
        """-ln p of a document whose first id is <|bos|>."""
        stream = np.concatenate((np.full(self.order - 1, self.bos), np.asarray(ids[1:], dtype=np.int64)))
        if len(ids) < 2:
            return 0.0
        grams = np.lib.stride_tricks.sliding_window_view(stream, self.order)
        return -float(np.log(self.probabilities(grams)).sum())

    def bits_per_byte(self, held: Held, *, stage: str = "pretrain", name: str = "bpb_trigram") -> Figure:
        """The figure to set beside a model's on the same documents; another order is named `bpb_5gram`."""
        bits = [self.document_nats(ids) / math.log(2) for ids in held.ids]
        return ratio(stage, name, bits, held.num_bytes, UNIT)


def look_up(keys: Ints, history: Ints, word: Ints, vocab_size: int) -> Ints:
    """Places in the sorted `keys` of (history, word), -1 where there is none or the history is -1."""
    key = history * vocab_size + word
    place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
    found: Ints = np.where((history >= 0) & (keys[place] == key), place, -1)
    return found


def train_ngram(documents: Sequence[Sequence[int]], vocab_size: int, bos: int, order: int = 3) -> NGram:
    """An n-gram model of documents without <|bos|>; seconds for millions of tokens, since all counting is sorting."""
    if order < 1 or not any(len(ids) for ids in documents):
        raise UsageError("an order of at least 1 and some tokens", f"order {order}, {len(documents)} documents")
    padding = np.full(order - 1, bos, dtype=np.int64)
    stream: Ints = np.concatenate([part for ids in documents for part in (padding, np.asarray(ids, dtype=np.int64))])
    predicted = stream != bos
    # numbers[k][i]: which n-gram of k + 1 words ends at place i of the stream.
    keys, first, numbers = [np.arange(vocab_size)], [np.empty(0, dtype=np.int64)], [stream]
    for _ in range(1, order):
        pairs = np.roll(numbers[-1], 1) * vocab_size + stream
        kinds, places, which = np.unique(pairs, return_index=True, return_inverse=True)
        keys, first, numbers = [*keys, kinds], [*first, places], [*numbers, which]
    counts = [np.bincount(numbers[-1][predicted], minlength=len(keys[-1]))]
    for longer in range(order - 1, 0, -1):
        # Each kind of longer n-gram counts once for the n-gram that it ends in. Kinds that end in padding do not count.
        places = first[longer][predicted[first[longer]]]
        counts.insert(0, np.bincount(numbers[longer - 1][places], minlength=len(keys[longer - 1])))
    orders = [lowest(counts[0], vocab_size)]
    for k in range(1, order):
        shorter = orders[-1].probability[numbers[k - 1][first[k]]]
        orders.append(interpolated(keys[k], counts[k], shorter, len(keys[k - 1]), vocab_size))
    return NGram(vocab_size, bos, tuple(orders))


def lowest(counts: Ints, vocab_size: int) -> Order:
    """Words without history; below them every word of the vocabulary is as likely as any other."""
    return interpolated(np.arange(vocab_size), counts, np.full(vocab_size, 1 / vocab_size), 1, vocab_size)


def interpolated(keys: Ints, counts: Ints, shorter: Floats, histories: int, vocab_size: int) -> Order:
    """The tables of one length, from its counts and the probabilities that shorter histories give to the same words."""
    history = keys // vocab_size
    total = np.bincount(history, weights=counts, minlength=histories)
    discount = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    given_up = np.bincount(history, weights=discount, minlength=histories)
    # Histories at a document's end were never followed by anything: they pass all of it on.
    share = np.divide(given_up, total, out=np.ones(histories), where=total > 0)
    own = np.divide(counts - discount, total[history], out=np.zeros(len(keys)), where=total[history] > 0)
    return Order(keys, own + share[history] * shorter, share)


def discounts(counts: Ints) -> tuple[float, float, float]:
    """What counts of 1, 2 and 3 or more give up, from how many n-grams came 1, 2, 3 and 4 times (equation 17)."""
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return LOCKED_DISCOUNT, LOCKED_DISCOUNT, LOCKED_DISCOUNT
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    # The estimate supposes that rarer is more frequent; where a small corpus has it otherwise, it can leave its range.
    usable = all(0 < discount <= times for times, discount in enumerate(found, start=1))
    return found if usable else (LOCKED_DISCOUNT, LOCKED_DISCOUNT, LOCKED_DISCOUNT)
