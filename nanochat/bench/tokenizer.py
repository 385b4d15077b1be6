"""`nanochat bench tokenizer`: learning a vocabulary beside `rustbpe`, encoding beside `tiktoken`.

Learning uses all cores on both sides. Encoding is measured on one core, to arrays of two bytes a token as a corpus is
stored, with `tiktoken`'s bare lists beside it; then on all cores. What must be equal is compared: the merges of the
two learners, the ids of every document, and with `--plain` our quick versions with our plain ones.
"""

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nanochat.bench.corpus import bench_texts
from nanochat.bench.measure import Work, in_turn, measurement, ratios, record, show
from nanochat.errors import UsageError
from nanochat.runtime import available_cores, detect, peak_memory_gb
from nanochat.tokenizer import PATTERN, BulkEncoder, Tokenizer, train_tokenizer
from nanochat.tokenizer.bpe import Pair
from nanochat.tokenizer.training import count_pieces, learn_merges

TASKS = ("learn", "encode")
PART = 1000  # documents that are encoded in one call
REMEDY = "install what is compared: pip install 'nanochat[bench]'"
Result = dict[str, Any]


@dataclass(frozen=True)
class TokenizerBench:
    """Learn a vocabulary beside rustbpe, and encode beside tiktoken: both sides in turn, same results checked."""

    AT_LEAST_ONE: ClassVar = ("rounds", "megabytes", "vocab_size")

    tasks: tuple[str, ...] = TASKS
    """what to measure: learn, encode, or both"""
    megabytes: int = 100
    """how much text"""
    sources: tuple[str, ...] = ()
    """files or folders of text of your own; by default prose from four packages and the Python source installed here"""
    vocab_size: int = 32_768
    """tokens of the vocabulary"""
    rounds: int = 5
    """how often each side is measured"""
    plain: bool = False
    """compare with our plain versions too, which takes minutes"""
    save: str = ""
    """a file to keep the record in"""
    json: bool = False
    """print one JSON object and nothing else"""


def bench_tokenizer(config: TokenizerBench) -> int:
    """Measure, print and keep; 0 when done. Raises UsageError where a library to compare with is not installed."""
    if unknown := set(config.tasks) - set(TASKS):
        raise UsageError(f"tasks out of {', '.join(TASKS)}", ", ".join(sorted(unknown)))
    texts = bench_texts(config.megabytes, config.sources)
    runtime = detect("cpu")
    figures: dict[str, float | None] = {}
    measurements: list[Result] = []
    checks: dict[str, bool] = {}
    benches = {"learn": bench_learning, "encode": bench_encoding}
    for task in config.tasks:
        found = benches[task](texts, config)
        figures |= found["figures"]
        measurements += found["measurements"]
        checks |= found["checks"]
    packages = ["rustbpe", "tiktoken", "fastokens", "numpy", "regex"]
    result = record("tokenizer", config, runtime, figures, measurements, packages)
    return show(result | {"checks": checks, "text": about(texts)}, config.json, config.save)


def about(texts: Sequence[str]) -> Result:
    """What the text was."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return {
        "documents": len(texts),
        "bytes": sum(len(text.encode()) for text in texts),
        "ascii_documents": sum(map(str.isascii, texts)),
        "sha256": digest.hexdigest(),
    }


def bench_learning(texts: Sequence[str], config: TokenizerBench) -> Result:
    """A vocabulary of bytes and merges from the texts, on all cores."""
    try:
        import rustbpe
    except ImportError:
        raise UsageError("rustbpe, to compare with", "none installed", REMEDY) from None
    merges: dict[str, list[Pair]] = {}

    def ours() -> None:
        merges["nanochat"] = learned(texts, config.vocab_size)

    def theirs() -> float:
        tokenizer = rustbpe.Tokenizer()
        began = time.perf_counter()
        tokenizer.train_from_iterator(iter(texts), config.vocab_size, pattern=PATTERN)
        seconds = time.perf_counter() - began
        ranks = {bytes(token): rank for token, rank in tokenizer.get_mergeable_ranks()}
        merges["rustbpe"] = Tokenizer.from_ranks(ranks, PATTERN).merges
        return seconds

    learned(texts[:100], 300)  # what is made once a process, such as the table of characters
    seconds = in_turn({"nanochat": ours, "rustbpe": theirs}, config.rounds)
    task = f"learn {config.vocab_size:,} tokens from {config.megabytes} MB, {available_cores()} cores"
    checks = {"same_merges_as_rustbpe": set(merges["nanochat"]) == set(merges["rustbpe"])}
    if config.plain:
        plain = learn_merges(count_pieces(texts, PATTERN), config.vocab_size - 256)
        checks["same_merges_as_plain"] = plain == merges["nanochat"]
    return {
        "figures": {
            "ratio_vs_rustbpe": ratios(seconds["nanochat"], seconds["rustbpe"])["median"],
            "peak_memory_gb": alone(memory_of_learning, texts, config.vocab_size),
        },
        "measurements": [measurement(task, side, seconds[side]) for side in ("rustbpe", "nanochat")],
        "checks": checks,
    }


def learned(texts: Sequence[str], vocab_size: int) -> list[Pair]:
    """Our merges."""
    return train_tokenizer(texts, vocab_size, specials=(), workers=available_cores()).merges


def memory_of_learning(texts: Sequence[str], vocab_size: int) -> float:
    """The most memory that a process holds that has the texts and learns from them, in 10^9 bytes."""
    learned(texts, vocab_size)
    return peak_memory_gb()


def bench_encoding(texts: Sequence[str], config: TokenizerBench) -> Result:
    """Ids of the texts: on one core beside `tiktoken`, then on all."""
    merges = learned(texts, config.vocab_size)
    one = alone(encode_in_turn, texts, merges, config.rounds, True)
    every = alone(encode_in_turn, texts, merges, config.rounds, False)
    tasks = {
        f"encode {config.megabytes} MB, 1 core": one,
        f"encode {config.megabytes} MB, {available_cores()} cores": every,
    }
    seconds, size = one["seconds"], sum(len(text.encode()) for text in texts)
    checks = {"same_ids_as_tiktoken": one["same"] and every["same"]}
    if config.plain:
        tokenizer, encoder = Tokenizer(merges), BulkEncoder(Tokenizer(merges))
        checks["same_ids_as_plain"] = all(
            np.array_equal(encoder.encode_batch([text])[0], tokenizer.encode(text)) for text in texts
        )
    return {
        "figures": {
            "ratio_vs_tiktoken": ratios(seconds["nanochat"], seconds["tiktoken"])["median"],
            "ratio_vs_tiktoken_lists": ratios(seconds["nanochat"], seconds["tiktoken, lists"])["median"],
            "megabytes_per_second": size / 1e6 / float(np.median(seconds["nanochat"])),
            "megabytes_per_second_all_cores": size / 1e6 / float(np.median(every["seconds"]["nanochat"])),
        },
        "measurements": [
            measurement(task, name_of(side, found["backend"]), found["seconds"][side])
            for task, found in tasks.items()
            for side in ("tiktoken", "tiktoken, lists", "nanochat")
            if side in found["seconds"]
        ],
        "checks": checks,
    }


def name_of(side: str, backend: str) -> str:
    """A side's name in the record; ours says which library encoded."""
    return f"{side} ({backend})" if side == "nanochat" else side


def encode_in_turn(texts: Sequence[str], merges: list[Pair], rounds: int, one_core: bool) -> Result:
    """Seconds of each side, and whether the ids of every document are the same."""
    if one_core:
        keep_to_one_core()
    try:
        import tiktoken
    except ImportError:
        raise UsageError("tiktoken, to compare with", "none installed", REMEDY) from None
    tokenizer = Tokenizer(merges)
    sides = {"nanochat": BulkEncoder(tokenizer), "tiktoken": BulkEncoder(tokenizer, ["tiktoken"])}
    ranks = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    bare = tiktoken.Encoding("bare", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={})

    def to_arrays(encoder: BulkEncoder) -> Callable[[], None]:
        def encode() -> None:
            for part in parts(texts):
                encoder.encode_batch(part)[0].astype(np.uint16)

        return encode

    def to_lists() -> None:
        for text in texts:
            bare.encode_ordinary(text)

    works: dict[str, Work] = {name: to_arrays(encoder) for name, encoder in sides.items()}
    if one_core:
        works["tiktoken, lists"] = to_lists
    same = all(same_ids(*(encoder.encode_batch(part) for encoder in sides.values())) for part in parts(texts))
    return {"seconds": in_turn(works, rounds), "same": same, "backend": sides["nanochat"].backend}


def same_ids(ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> bool:
    """Whether two encoders gave every document the same ids."""
    return all(np.array_equal(own, other) for own, other in zip(ours, theirs, strict=True))


def parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts, some at a time."""
    return (texts[start : start + PART] for start in range(0, len(texts), PART))


def keep_to_one_core() -> None:
    """Let this process, and the threads it will start, use one core; where the system can be asked for that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns, in a new process: with memory, threads and caches of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
