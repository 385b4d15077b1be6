"""Kneser-Ney: probabilities that sum to one, the same as dictionaries and the formulas of the paper give."""

import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nanochat.errors import UsageError
from nanochat.evaluate.bits import Held
from nanochat.evaluate.ngram import NGram, discounts, train_ngram

VOCABULARY = 60
BOS = VOCABULARY - 1
Documents = list[list[int]]


def corpus(documents: int, seed: int, length: int = 60) -> Documents:
    """Documents over few words with the long tail that words have, each word leaning on the one before."""
    draws = random.Random(seed)
    result = []
    for _ in range(documents):
        ids = [draws.randrange(40)]
        for _ in range(draws.randrange(length)):
            leaning = (ids[-1] * 7 + 3) % 40
            ids.append(leaning if draws.random() < 0.4 else min(39, int(draws.expovariate(0.15))))
        result.append(ids)
    return [*result, []]


class Plain:
    """Interpolated modified Kneser-Ney written from the paper with dictionaries, one sum after the other."""

    def __init__(self, documents: Documents, order: int) -> None:
        self.order = order
        self.counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for ids in documents:
            padded = [BOS] * (order - 1) + ids
            for place in range(order - 1, len(padded)):
                self.counts[order][tuple(padded[place - order + 1 : place + 1])] += 1
        for k in range(order - 1, 0, -1):
            for gram in self.counts[k + 1]:
                self.counts[k][gram[1:]] += 1
        self.following = [defaultdict(Counter) for _ in range(order + 1)]  # type: ignore[var-annotated]
        for k in range(1, order + 1):
            for gram, count in self.counts[k].items():
                self.following[k][gram[:-1]][gram[-1]] = count
        self.discounts = [(0.0, 0.0, 0.0)] + [self.estimate(k) for k in range(1, order + 1)]

    def estimate(self, k: int) -> tuple[float, float, float]:
        n = Counter(self.counts[k].values())
        if not all(n[times] for times in (1, 2, 3, 4)):
            return (0.75, 0.75, 0.75)
        y = n[1] / (n[1] + 2 * n[2])
        return tuple(times - (times + 1) * y * n[times + 1] / n[times] for times in (1, 2, 3))  # type: ignore[return-value]

    def p(self, history: Sequence[int], word: int) -> float:
        return self.level(self.order, tuple(history), word)

    def level(self, k: int, history: tuple[int, ...], word: int) -> float:
        if k == 0:
            return 1 / VOCABULARY
        below = self.level(k - 1, history[1:], word)
        followers = self.following[k].get(history)
        if not followers:
            return below
        total = sum(followers.values())
        taken = sum(self.discounts[k][min(count, 3) - 1] for count in followers.values())
        count = followers.get(word, 0)
        own = count - self.discounts[k][min(count, 3) - 1] if count else 0.0
        return own / total + taken / total * below


def histories(documents: Documents, order: int, draws: random.Random) -> list[tuple[int, ...]]:
    """Histories of each kind: as they occur, at a document's start, at its end, drawn at random, never seen."""
    found = [tuple([BOS] * (order - 1)), tuple([50] * (order - 1)), tuple([BOS] * order)[: order - 1]]
    for _ in range(40):
        ids = [BOS] * (order - 1) + draws.choice(documents)
        place = draws.randrange(order - 1, len(ids) + 1)
        found.append(tuple(ids[place - order + 1 : place]))
        found.append(tuple(draws.randrange(VOCABULARY) for _ in range(order - 1)))
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_over_the_vocabulary_sum_to_one(order: int) -> None:
    documents = corpus(60, seed=0)
    model = train_ngram(documents, VOCABULARY, BOS, order)
    for history in histories(documents, order, random.Random(1)):
        grams = np.array([[*history, word] for word in range(VOCABULARY)])
        probabilities = model.probabilities(grams)
        assert probabilities.sum() == pytest.approx(1, abs=1e-9)
        assert probabilities.min() > 0


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 5, 80])
def test_it_is_what_dictionaries_and_the_formulas_give(order: int, size: int) -> None:
    documents = corpus(size, seed=size)
    model, plain, draws = train_ngram(documents, VOCABULARY, BOS, order), Plain(documents, order), random.Random(2)
    rows = [(*history, draws.randrange(VOCABULARY)) for history in histories(documents, order, draws)]
    rows += [(*history, draws.randrange(40)) for history in histories(documents, order, draws)]
    expected = [plain.p(row[:-1], row[-1]) for row in rows]
    assert model.probabilities(np.array(rows)) == pytest.approx(expected, rel=1e-9)


def test_the_corpora_reach_both_ways_of_discounting() -> None:
    assert len(set(Plain(corpus(1, seed=1), 3).discounts[3])) == 1
    assert len(set(Plain(corpus(80, seed=80), 3).discounts[3])) == 3


def test_discounts_by_hand() -> None:
    # Ten came once, four twice, two three times, one four times: Y = 10 / 18.
    counts = np.array([1] * 10 + [2] * 4 + [3] * 2 + [4, 9, 30])
    y = 10 / 18
    assert discounts(counts) == pytest.approx((1 - 2 * y * 4 / 10, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2))
    assert discounts(np.array([5, 6, 7])) == (0.75, 0.75, 0.75)
    # Where more came three times than twice the formula would hand out more than it has.
    assert discounts(np.array([1, 1, 2, 3, 3, 3, 3, 4])) == (0.75, 0.75, 0.75)


def test_a_word_counts_by_how_many_words_it_follows() -> None:
    # "Francisco" (1) comes often but only after "San" (0); "glasses" (2) comes as often, after many.
    documents = [[0, 1, 30 + place] for place in range(9)] + [[10 + place, 2, 20 + place] for place in range(9)]
    model = train_ngram(documents, VOCABULARY, BOS, 2)
    francisco, glasses = model.probabilities(np.array([[50, 1], [50, 2]]))
    assert glasses > 3 * francisco


def test_bits_of_a_document_by_hand() -> None:
    documents = corpus(30, seed=5)
    model, plain = train_ngram(documents, VOCABULARY, BOS, 3), Plain(documents, 3)
    ids, padded = (BOS, 4, 31, 5, 58), [BOS, BOS, 4, 31, 5, 58]
    expected = -sum(math.log(plain.p(padded[place - 2 : place], padded[place])) for place in range(2, 6))
    assert model.document_nats(ids) == pytest.approx(expected)
    assert model.document_nats((BOS,)) == 0
    figure = model.bits_per_byte(Held((ids, (BOS, 3)), (9, 2)))
    assert figure.value == pytest.approx((expected + model.document_nats((BOS, 3))) / math.log(2) / 11)
    assert (figure.stage, figure.name, figure.n, figure.unit) == ("pretrain", "bpb_trigram", 2, "bits/byte")


def test_longer_histories_help_on_text_that_has_some() -> None:
    train, held = corpus(400, seed=6), corpus(40, seed=7)
    bits = [total_bits(train_ngram(train, VOCABULARY, BOS, order), held) for order in (1, 2)]
    assert bits[1] < 0.9 * bits[0]


def total_bits(model: NGram, documents: Documents) -> float:
    return sum(model.document_nats((BOS, *ids)) for ids in documents)


def test_nothing_to_count_is_a_users_mistake() -> None:
    with pytest.raises(UsageError, match="some tokens"):
        train_ngram([[], []], VOCABULARY, BOS)
    with pytest.raises(UsageError, match="order of at least 1"):
        train_ngram([[1]], VOCABULARY, BOS, order=0)


def test_half_a_million_tokens_take_a_moment() -> None:
    draws = np.random.default_rng(0)
    tokens = np.minimum(draws.zipf(1.3, 500_000), 4000)
    began = time.perf_counter()
    train_ngram([part.tolist() for part in np.split(tokens, 1000)], 4096, 4095, 3)
    assert time.perf_counter() - began < 5


def test_it_beats_a_unigram_on_real_text() -> None:
    path = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "train.jsonl"
    if not path.exists():
        pytest.skip("needs ../shared/data/gsm8k")
    texts = [json.loads(line)["question"] for line in path.read_text().splitlines()[:3000]]
    documents = [list(text.encode()) for text in texts]
    held = Held(tuple((256, *ids) for ids in documents[2800:]), tuple(len(ids) for ids in documents[2800:]))
    bits = [train_ngram(documents[:2800], 257, 256, order).bits_per_byte(held).value for order in (1, 3, 5)]
    # English letters alone carry about 4.2 bits; five of them in a row a good deal less.
    assert 4 < bits[0] < 4.7
    assert bits[1] < 3.2
    assert bits[2] < 2.3
