"""How far counting gets: bits per byte of n-gram models by the length of their history and the amount of text.

    python educational/experiments/ngram_orders.py

Interpolated Kneser-Ney models of 1 to 5 tokens on a sixteenth, a quarter and all of the training documents of the
laptop run, cut by the shipped tokenizer; the parts are drawn with three seeds. Scored on every held-out recipe and
article. Half a minute on one core; needs `python -m nanochat data fetch`; writes runs/book/ngram_orders.json.
"""

import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the book is no installed package

from nanochat.data import documents, split_documents
from nanochat.evaluate.bits import encode_held
from nanochat.evaluate.ngram import train_ngram
from nanochat.keyed import rng
from nanochat.runtime import commit, detect, home, machine, versions
from nanochat.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
ORDERS = (1, 2, 3, 4, 5)
PARTS = {"1/16": 1 / 16, "1/4": 1 / 4, "1": 1.0}


def main() -> None:
    """Measure, print as it comes, write the record."""
    runtime, began = detect("cpu", "float32", threads=1), time.process_time()
    tokenizer = Tokenizer.load(ROOT / "runs/reference/tokenizer")
    bos, train, held = tokenizer.special("<|bos|>"), [], []
    for source in ("cookbook", "wikipedia"):
        learned, kept = split_documents(documents(source, home()))
        train += [tokenizer.encode(document.text) for document in learned]
        held += [document.text for document in kept]
    scored = encode_held(tokenizer, held)
    tokens, num_bytes = sum(map(len, scored.ids)) - len(scored.ids), sum(scored.num_bytes)
    nothing = tokens * math.log2(tokenizer.vocab_size) / num_bytes
    print(f"{len(train):,} training documents, {len(held)} held out, knowing nothing {nothing:.3f}")
    found = [figure("bpb_uniform", [nothing], "", 0)]
    for part, share in PARTS.items():
        for order in ORDERS:
            values = []
            for seed in SEEDS if share < 1 else SEEDS[:1]:
                drawn = rng(seed, "ngram orders").sample(range(len(train)), round(share * len(train)))
                model = train_ngram([train[i] for i in drawn], tokenizer.vocab_size, bos, order)
                values.append(model.bits_per_byte(scored).value)
            found.append(figure("bpb", values, part, order))
            print(
                f"part {part:4}  order {order}  {statistics.mean(values):.3f}  ({min(values):.3f} to {max(values):.3f})"
            )
    record = {
        "command": "python educational/experiments/ngram_orders.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "cpu_seconds": round(time.process_time() - began, 1),
        "figures": found,
    }
    (ROOT / "runs/book/ngram_orders.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def figure(name: str, values: list[float], part: str, order: int) -> dict[str, object]:
    """A row of the record. All of the text can be drawn in one way only: n is 1 there."""
    middle = {"value": statistics.mean(values), "low": min(values), "high": max(values), "n": len(values)}
    return {"name": name, "part": part, "order": order, **middle, "unit": "bits/byte"}


if __name__ == "__main__":
    main()
