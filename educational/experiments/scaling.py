"""Larger, or longer? Models of several sizes at equal compute: where the best size lies, and does the law hold further?

    python educational/experiments/scaling.py

Two layers of width 16 to 96 learn recipes (the Cookbook is fetched by pip once, 1 MB) with so many tokens that every
run costs the same 6 N D operations. A parabola through bits per byte against ln N gives each budget's best size, a
line through those a forecast for three times the largest budget, which is then run. Three seeds of every run; writes
runs/book/scaling.json.
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
BUDGETS, FORECAST = (5e9, 1.5e10, 4.5e10), 1.35e11
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


def best(points: list[dict[str, float]]) -> tuple[float, float]:
    """(ln of the best size, bits per byte there): the lowest point of a parabola through the means."""
    sizes = sorted({point["parameters"] for point in points})
    means = [float(np.mean([p["bpb"] for p in points if p["parameters"] == size])) for size in sizes]
    # Five points around the lowest: further out the curve is no parabola.
    at = min(max(int(np.argmin(means)), 2), len(sizes) - 3)
    near = slice(at - 2, at + 3)
    a, b, c = np.polyfit(np.log(sizes[near]), means[near], 2)
    place = float(np.clip(-b / (2 * a), math.log(sizes[0]), math.log(sizes[-1]))) if a > 0 else math.log(sizes[at])
    return place, a * place**2 + b * place + c


def main() -> None:
    """All runs, printed as they come; the fit, the forecast, and what came of it."""
    runtime = detect("cpu", "float32", threads=1)
    began, corpus = time.process_time(), Corpus()
    print(f"{len(corpus.store.tokens):,} tokens", flush=True)
    points = []
    for budget in (*BUDGETS, FORECAST):
        for width in WIDTHS if budget != FORECAST else WIDTHS[1:]:
            found = [run(corpus, runtime, width, budget, seed) for seed in SEEDS]
            points += found
            mean = sum(p["bpb"] for p in found) / len(found)
            print(f"{budget:.1e} operations, width {width:3}, {found[0]['parameters']:7,} parameters, "
                  f"{found[0]['tokens']:8,} tokens: {mean:.3f} bits per byte  "
                  f"({time.process_time() - began:.0f} s)", flush=True)  # fmt: skip
    optima = [best([p for p in points if p["budget"] == budget]) for budget in BUDGETS]
    slope, start = np.polyfit(np.log(BUDGETS), [place for place, _ in optima], 1)
    drop, level = np.polyfit(np.log(BUDGETS), [math.log(value) for _, value in optima], 1)
    forecast = {
        "parameters": math.exp(start + slope * math.log(FORECAST)),
        "bpb": math.exp(level + drop * math.log(FORECAST)),
    }
    found = best([p for p in points if p["budget"] == FORECAST])
    measured = {"parameters": math.exp(found[0]), "bpb": float(found[1])}
    print(f"best size ~ operations^{slope:.2f}; forecast {forecast}, measured {measured}")
    seconds = time.process_time() - began
    record = {
        "command": "python educational/experiments/scaling.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "seconds": round(seconds),
        "exponent": float(slope),
        "optima": [
            {"budget": budget, "parameters": math.exp(place), "bpb": float(value),
             "tokens_per_parameter": budget / 6 / math.exp(2 * place)}
            for budget, (place, value) in zip((*BUDGETS, FORECAST), [*optima, found], strict=True)
        ],
        "forecast": forecast,
        "measured": measured,
        "points": points,
    }  # fmt: skip
    target = Path(__file__).parents[2] / "runs" / "book" / "scaling.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{seconds:.0f} s of processor time")


if __name__ == "__main__":
    main()
