"""Larger, or longer? Models of five sizes at equal compute: which is best at which budget?

    python educational/experiments/scaling.py

Two layers of width 16 to 96 learn recipes (the Cookbook is fetched by pip once, 1 MB) with so many tokens that every
run of a budget costs the same 6 N D operations; at the largest budget the smallest model is left out, which would read
the text three times. Three seeds of every run; writes runs/book/scaling.json.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from nanochat.data import TokenStore, documents, rows, split_documents
from nanochat.evaluate.bits import Held, encode_held, score_held
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import build_optimizer, trapezoid
from nanochat.plan import num_multiplied
from nanochat.runtime import Runtime, commit, detect, machine, versions
from nanochat.tokenizer import train_tokenizer
from nanochat.train import Batch, train

DOCUMENTS, HELD, VOCABULARY = 1200, 24, 512
ROWS, TOKENS = 4, 128
WIDTHS = (16, 32, 48, 64, 96)
BUDGETS = (5e9, 1.5e10, 4.5e10, 1.35e11)
SEEDS = (0, 1, 2)


class Corpus:
    """A fixed slice of the Cookbook as tokens, and held-out recipes."""

    def __init__(self) -> None:
        training, held = split_documents(documents("cookbook"))
        texts = [document.text for document in training[:DOCUMENTS]]
        self.tokenizer = train_tokenizer(texts[:300], VOCABULARY)
        ids = [self.tokenizer.encode(text) for text in texts]
        tokens = np.concatenate([np.asarray(some, dtype=np.uint16) for some in ids])
        self.store = TokenStore(tokens, np.cumsum([0, *map(len, ids)]), None)  # type: ignore[arg-type]
        self.held: Held = encode_held(self.tokenizer, [document.text for document in held], HELD)

    def batches(self, seed: int) -> Iterator[Batch]:
        """Batches of ROWS x TOKENS without end."""
        stream = rows([self.store], bos=self.tokenizer.special("<|bos|>"), context=TOKENS, seed=seed)
        while True:
            ids = torch.from_numpy(np.stack([next(stream).ids for _ in range(ROWS)]))
            yield Batch(ids[:, :-1], ids[:, 1:], torch.ones(ROWS, TOKENS), {})


def run(corpus: Corpus, runtime: Runtime, width: int, budget: float, seed: int) -> dict[str, float]:
    """One model, trained for what `budget` pays for, and its bits per byte."""
    shape = GPTConfig(VOCABULARY, 2, n_head=width // 16, n_kv_head=width // 16, n_embd=width, context=TOKENS)
    size = num_multiplied(shape)
    steps = max(2, round(budget / (6 * size * ROWS * TOKENS)))
    model = GPT(shape)
    model.init_weights(seed)
    factor = math.sqrt(256 / width) * math.sqrt(ROWS * TOKENS / 4096)  # the dial's rates, by width and batch
    optimizer = build_optimizer(
        model, matrix_lr=0.04 * math.sqrt(ROWS * TOKENS / 4096), embedding_lr=0.4 * factor, head_lr=0.01 * factor
    )
    schedule = trapezoid(steps, min(20, steps // 20), round(0.6 * steps))
    for _ in train(model, optimizer, corpus.batches(seed), schedule, steps=steps):
        pass
    value = score_held(model, corpus.held, runtime).value
    return {"budget": budget, "width": width, "parameters": size, "tokens": steps * ROWS * TOKENS, "seed": seed,
            "bpb": round(value, 5)}  # fmt: skip


def figures_of(points: list[dict[str, float]]) -> list[dict[str, float]]:
    """The mean of the seeds for each budget and width, with the lowest and the highest."""
    found = []
    for budget, width in dict.fromkeys((point["budget"], point["width"]) for point in points):
        some = [point for point in points if (point["budget"], point["width"]) == (budget, width)]
        values = [point["bpb"] for point in some]
        about = {"value": sum(values) / len(values), "low": min(values), "high": max(values), "n": len(values)}
        found.append({key: some[0][key] for key in ("budget", "width", "parameters", "tokens")} | about)
    return found


def best_of(figures: list[dict[str, float]]) -> list[dict[str, float]]:
    """For each budget the width with the fewest bits per byte, and how many tokens each of its parameters has read."""
    budgets = dict.fromkeys(figure["budget"] for figure in figures)
    winners = [min((f for f in figures if f["budget"] == budget), key=lambda f: f["value"]) for budget in budgets]
    return [w | {"tokens_per_parameter": w["tokens"] / w["parameters"]} for w in winners]


def main() -> None:
    """All runs, printed as they come, and the record."""
    runtime = detect("cpu", "float32", threads=1)
    began, corpus = time.process_time(), Corpus()
    print(f"{len(corpus.store.tokens):,} tokens", flush=True)
    points = []
    for budget in BUDGETS:
        for width in WIDTHS if budget != BUDGETS[-1] else WIDTHS[1:]:
            found = [run(corpus, runtime, width, budget, seed) for seed in SEEDS]
            points += found
            mean = sum(p["bpb"] for p in found) / len(found)
            print(f"{budget:.1e} operations, width {width:3}, {found[0]['parameters']:7,} parameters, "
                  f"{found[0]['tokens']:8,} tokens: {mean:.3f} bits per byte  "
                  f"({time.process_time() - began:.0f} s)", flush=True)  # fmt: skip
    figures = figures_of(points)
    for winner in best_of(figures):
        print(f"{winner['budget']:.1e} operations: width {winner['width']} is best, "
              f"{winner['tokens_per_parameter']:.1f} tokens a parameter")  # fmt: skip
    seconds = time.process_time() - began
    record = {
        "command": "python educational/experiments/scaling.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "seconds": round(seconds),
        "figures": figures,
        "best": best_of(figures),
        "points": points,
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "scaling.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{seconds:.0f} s of processor time")


if __name__ == "__main__":
    main()
