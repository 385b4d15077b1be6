"""Both sides of chapter 3's equations, in float64; where whole numbers are compared, how many differ."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch

from nanochat.keyed import rng
from nanochat.plan import count_parameters, shape
from nanochat.tokenizer import PATTERN, Tokenizer, train_tokenizer, training
from nanochat.tokenizer.bpe import compile_pattern, merge, merge_long, split

ROOT = Path(__file__).parents[2]
Pair = tuple[int, int]

TEXTS = [
    "Sift 2 cups of flour into a bowl. Stir in 1 cup of milk, then stir the batter until it is smooth.",
    "2 cups of flour serve 4, 3 cups of flour serve 6, and 5 cups of flour serve 10.",
    "crème brûlée, crème fraîche; the cream is served with the berries. aaaa aaa aa, banana bananas",
]


def naive_merges(texts: list[str], wanted: int) -> list[Pair]:
    """Learning as one would say it: count all pairs in all pieces, merge the first one everywhere, begin again."""
    pieces = [list(piece.encode()) for text in texts for piece in split(compile_pattern(PATTERN), text)]
    merges: list[Pair] = []
    while len(merges) < wanted:
        counts = Counter(pair for piece in pieces for pair in pairwise(piece))
        pair, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=((0, 0), 0))
        if count < 2:
            break
        merges.append(pair)
        pieces = [replaced(piece, pair, 255 + len(merges)) for piece in pieces]
    return merges


def replaced(piece: list[int], pair: Pair, new: int) -> list[int]:
    """`piece` with every `pair`, from left to right, as one `new`."""
    result: list[int] = []
    at = 0
    while at < len(piece):
        found = tuple(piece[at : at + 2]) == pair
        result.append(new if found else piece[at])
        at += 2 if found else 1
    return result


def scribbles(number: int) -> list[str]:
    """Random texts of few letters, where merges overlap and ties abound."""
    draw = rng(0, "chapter 3")
    return ["".join(draw.choices("aaabc 1é", k=draw.randrange(1, 60))) for _ in range(number)]


def utf8() -> float:
    """(3.1): characters whose number, put together from the bytes' free bits, is not the character's; all 1,112,064."""
    wrong = 0
    for point in (*range(0xD800), *range(0xE000, 0x110000)):
        first, *rest = chr(point).encode()
        free = (0x7F, 0x1F, 0x0F, 0x07)[len(rest)]  # the bits of the first byte that do not say how many follow
        value = (first & free) * 64 ** len(rest)
        value += sum((byte & 0x3F) * 64 ** (len(rest) - 1 - place) for place, byte in enumerate(rest))
        wrong += value != point
    return wrong


def incremental_is_naive() -> float:
    """(3.2): merges that differ between corrected counts (`learn_merges`) and counts made anew, over 61 corpora."""
    wrong = 0
    for texts in [TEXTS, *([text] for text in scribbles(60))]:
        ours = training.learn_merges(training.count_pieces(texts, PATTERN), 60)
        theirs = naive_merges(texts, 60)
        wrong += abs(len(ours) - len(theirs)) + sum(a != b for a, b in zip(ours, theirs, strict=False))
    return wrong


def tokens_saved() -> float:
    """(3.3): tokens left after every merge, against those before less one for each replacement."""
    pieces = [list(piece.encode()) for text in TEXTS for piece in split(compile_pattern(PATTERN), text)]
    worst, saved, before = 0, 0, sum(map(len, pieces))
    merges = naive_merges(TEXTS, 80)
    for number, pair in enumerate(merges):
        after = [replaced(piece, pair, 256 + number) for piece in pieces]
        saved += sum(piece.count(256 + number) for piece in after)
        pieces = after
        now = sum(len(Tokenizer(merges[: number + 1]).encode(text)) for text in TEXTS)
        worst = max(worst, abs(now - (before - saved)))
    return worst


def encoding_repeats_learning() -> float:
    """Distinct pieces of the training text that `encode` cuts otherwise than learning left them."""
    merges = naive_merges(TEXTS, 80)
    table = {pair: 256 + rank for rank, pair in enumerate(merges)}
    wrong = 0
    for piece in {piece for text in TEXTS for piece in split(compile_pattern(PATTERN), text)}:
        learned = list(piece.encode())
        for pair, new in table.items():
            learned = replaced(learned, pair, new)
        ids = list(piece.encode())
        wrong += not (merge(list(ids), table) == merge_long(ids, table) == learned)
    return wrong


def uniform_bits() -> float:
    """(3.4): bits of equal logits by torch's cross-entropy, over bytes; against log2 V / (bytes a token)."""
    tokenizer = Tokenizer.load(ROOT / "runs" / "reference" / "tokenizer")
    worst = 0.0
    for text in TEXTS:
        ids = torch.tensor(tokenizer.encode(text))
        logits = torch.zeros(len(ids), tokenizer.vocab_size, dtype=torch.float64)
        nats = torch.nn.functional.cross_entropy(logits, ids, reduction="sum")
        num_bytes = len(text.encode())
        direct = float(nats) / (math.log(2) * num_bytes)
        worst = max(worst, abs(direct - math.log2(tokenizer.vocab_size) / (num_bytes / len(ids))))
    return worst


def break_even() -> float:
    """(3.5): the uniform code's bits before and after a merge of exactly the stated share; relative difference."""
    worst = 0.0
    for size in (256, 1000, 4096, 65536):
        tokens = 1e6
        share = math.log1p(1 / size) / math.log(size + 1)
        before, after = tokens * math.log2(size), (tokens - share * tokens) * math.log2(size + 1)
        worst = max(worst, abs(before - after) / before)
    return worst


def break_even_roughly() -> float:
    """The share of (3.5) against 1 / (V ln V), relative, from V = 256 on: the first term left out is 1/2V."""
    return max(
        abs(math.log1p(1 / size) / math.log(size + 1) * size * math.log(size) - 1) for size in (256, 4096, 65536)
    )


def share_of_tables() -> float:
    """(3.6): V / (V + 6 L d) against the parameters that `plan` counts, with as many key heads as query heads."""
    worst = 0.0
    for depth, vocab in ((2, 1536), (4, 3968), (12, 32768), (20, 65536)):
        model = shape(depth, vocab, 512, 0)
        parts = count_parameters(model)
        counted = (parts["embedding"] + parts["head"]) / sum(parts.values())
        worst = max(worst, abs(counted - vocab / (vocab + 6 * depth * model.n_embd)))
    return worst


def two_tie_rules() -> float:
    """Ids that differ between two orders of equal counts on the text they were learned from; merges must differ."""
    first = Tokenizer([(104, 117), (256, 103)])  # h + u, then hu + g
    second = Tokenizer([(117, 103), (104, 256)])  # u + g, then h + ug
    assert train_tokenizer(["hug hug"], 258, specials=(), pattern=r"\w+| ").merges == first.merges != second.merges
    return sum(a != b for a, b in zip(first.encode("hug hug"), second.encode("hug hug"), strict=True))
