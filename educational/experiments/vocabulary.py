"""What a larger vocabulary buys on the Cookbook and Wikipedia: bytes a token, and bits per byte before any training.

    python educational/experiments/vocabulary.py

Learns 32,768 - 256 merges from half of the training documents, drawn with three seeds; the first V - 256 of them are
what a vocabulary of V would have learned. Measured on the held-out documents, none of which was learned from. Half a
minute on one core; writes runs/book/vocabulary.json.
"""

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from nanochat.data import documents, split_documents
from nanochat.keyed import rng
from nanochat.runtime import commit, detect, home, machine, versions
from nanochat.tokenizer import PATTERN, Tokenizer, training

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
SIZES = tuple(1 << power for power in range(8, 16))
Pair = tuple[int, int]


def corpus() -> tuple[list[str], dict[str, list[str]]]:
    """(training documents, held-out documents by source)."""
    train: list[str] = []
    held: dict[str, list[str]] = {}
    for source in ("cookbook", "wikipedia"):
        learned, kept = split_documents(documents(source, home()))
        train += [document.text for document in learned]
        held[source] = [document.text for document in kept]
    return train, held


def tokens_at(pieces: Counter[str], merges: Sequence[Pair], sizes: Iterable[int]) -> dict[int, Counter[int]]:
    """How often each token occurs in `pieces` at every size of vocabulary: merges are made one after the other."""
    words, times = list(pieces), list(pieces.values())
    _, places = training.index_pairs(words, times)
    found: dict[int, Counter[int]] = {}
    for size in range(256, max(sizes) + 1):
        if size in sizes:
            found[size] = occurrences(words, times)
        if size - 256 == len(merges):
            break
        left, right = merges[size - 256]
        pair, new = chr(left) + chr(right), chr(size)
        for place in places.pop(pair, ()):
            if pair in words[place]:
                words[place] = words[place].replace(pair, new)
                for a, b in set(pairwise(words[place])):
                    if new in (a, b):
                        places[a + b].append(place)
    return found


def occurrences(words: Sequence[str], times: Sequence[int]) -> Counter[int]:
    """Tokens of words that were seen so many times each."""
    found: Counter[int] = Counter()
    for word, count in zip(words, times, strict=True):
        for character in word:
            found[ord(character)] += count
    return found


def num_bytes(pieces: Counter[str]) -> int:
    """Bytes of the text that the pieces make up."""
    return sum(len(piece) * count for piece, count in pieces.items())


def unigram_bits(learned: Counter[int], held: Counter[int], size: int, over: int) -> float:
    """Bits per byte of a model that knows only how often each token occurs (counts plus one half)."""
    total = learned.total() + size / 2
    return -sum(count * math.log2((learned[token] + 0.5) / total) for token, count in held.items()) / over


def figure(name: str, values: Sequence[float], unit: str) -> dict[str, object]:
    """One line of a record: mean, and the lowest and highest of the seeds."""
    print(f"{name:32} {statistics.fmean(values):14.4f}   {min(values):.4f} to {max(values):.4f} {unit}", flush=True)
    return {"name": name, "value": statistics.fmean(values), "low": min(values), "high": max(values),
            "n": len(values), "unit": unit}  # fmt: skip


def measure(train: list[str], held: dict[str, list[str]]) -> list[dict[str, object]]:
    """Bytes a token and bits per byte at every size, over the seeds."""
    found: dict[str, list[float]] = {}
    counted = {name: training.count_pieces(texts, PATTERN) for name, texts in held.items()}
    counted[""] = counted["cookbook"] + counted["wikipedia"]
    for seed in SEEDS:
        half = rng(seed, "vocabulary").sample(train, len(train) // 2)
        pieces = training.count_pieces(half, PATTERN)
        merges = training.learn_merges(pieces, max(SIZES) - 256)
        assert len(merges) == max(SIZES) - 256, f"only {len(merges)} pairs occur twice"
        learned = tokens_at(pieces, merges, SIZES)
        for name, some in counted.items():
            tokens, size_of_text = tokens_at(some, merges, SIZES), num_bytes(some)
            for size in SIZES:
                each = size_of_text / tokens[size].total()
                found.setdefault(f"bytes_a_token_{name}{'_' if name else ''}{size}", []).append(each)
                if not name:
                    bits = unigram_bits(learned[size], tokens[size], size, size_of_text)
                    found.setdefault(f"uniform_bits_{size}", []).append(math.log2(size) / each)
                    found.setdefault(f"unigram_bits_{size}", []).append(bits)
        texts = held["cookbook"]
        plain = sum(len(Tokenizer(merges[: 4096 - 256]).encode(text)) for text in texts)
        assert plain == tokens_at(counted["cookbook"], merges, (4096,))[4096].total(), "the shortcut is no tokenizer"
    units = {"bytes": "bytes/token", "uniform": "bits/byte", "unigram": "bits/byte"}
    return [figure(name, values, units[name.partition("_")[0]]) for name, values in found.items()]


def write(name: str, began: float, **content: object) -> None:
    """A record in runs/book, with where and when it was made."""
    about = {
        "command": f"python educational/experiments/{name}.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(detect("cpu", "float32", threads=1)),
        "versions": versions(),
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    target = ROOT / "runs" / "book" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(about | content) + "\n")
    print(f"{about['cpu_seconds']} s of CPU time")


def main() -> None:
    """Measure, print as it comes, write the record."""
    began = time.process_time()
    write("vocabulary", began, seeds=list(SEEDS), figures=measure(*corpus()))


if __name__ == "__main__":
    main()
