"""How noisy is a gradient, and how does that change while a model learns? The gradient noise scale, in tokens.

    python educational/experiments/noise_scale.py

The model and the text of muon_or_adamw.py. Before the first step and after 5, 15, 40 and 100 of them the gradients of
192 rows of 128 tokens are taken one by one. What they have in common is the signal, by what they differ the noise; the
noise scale is the number of tokens at which the two are equally long. Three seeds; writes runs/book/noise_scale.json.
"""

import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from muon_or_adamw import ROWS, STEPS, TOKENS, Corpus, fresh_model, optimizer_of

from nanochat.gpt import GPT
from nanochat.loss import weighted_nll
from nanochat.optim import trapezoid
from nanochat.runtime import commit, detect, machine, versions
from nanochat.train import Batch, train

SEEDS = (0, 1, 2)
STOPS = (0, 5, 15, 40, 100)
SAMPLE = 24  # batches of ROWS rows
TABLES = ("embedding.weight", "head.weight")


def noise_scale(model: GPT, batches: Any) -> dict[str, float]:
    """Tokens at which the noise of a gradient is as long as the gradient: of all weights, and of the matrices alone.

    With n rows of gradient g_i, mean |g_i|^2 is |G|^2 + S and |mean g_i|^2 is |G|^2 + S / n, on average.
    """
    single, total, n = {"all": 0.0, "matrices": 0.0}, {}, 0
    for batch in islice(batches, SAMPLE):
        for row in range(ROWS):
            model.zero_grad()
            one = Batch(batch.inputs[row : row + 1], batch.targets[row : row + 1], torch.ones(1, TOKENS), {})
            (weighted_nll(model.features(one.inputs), model.head, one) / TOKENS).backward()
            n += 1
            for name, weight in model.named_parameters():
                square = float(weight.grad.square().sum())
                single["all"] += square
                single["matrices"] += square * (name not in TABLES)
                total[name] = total.get(name, 0) + weight.grad.double()
    model.zero_grad()
    means = {name: float((grad / n).square().sum()) for name, grad in total.items()}
    whole = {"all": sum(means.values()), "matrices": sum(m for name, m in means.items() if name not in TABLES)}
    found = {}
    for part in single:
        noise = (single[part] / n - whole[part]) * n / (n - 1)
        found[part] = TOKENS * noise / max(whole[part] - noise / n, 1e-30)
    return found


def curve(corpus: Corpus, runtime: Any, seed: int) -> list[dict[str, float]]:
    """The noise scale at each stop of a training with Muon."""
    model = fresh_model(seed, runtime)
    optimizer, found, done = optimizer_of(model, "muon", 0.02, 0.95, 1.0), [], 0
    batches, others = corpus.batches(seed), corpus.batches(seed + 1000)
    for stop in STOPS:
        loss = [
            step.loss
            for step in train(model, optimizer, batches, trapezoid(STEPS, 10, STEPS // 2), steps=stop, start=done)
        ]
        done = stop
        scales = noise_scale(model, others)
        found.append({"steps": stop, "loss": loss[-1] if loss else None} | scales)
        print(
            f"seed {seed}, {stop:3} steps: {scales['all']:8.0f} tokens; matrices {scales['matrices']:8.0f}", flush=True
        )
    return found


def main() -> None:
    """Three trainings, five looks at each."""
    runtime = detect("cpu", "auto")
    torch.set_num_threads(1)
    began, corpus = time.process_time(), Corpus()
    curves = {seed: curve(corpus, runtime, seed) for seed in SEEDS}
    seconds = time.process_time() - began
    figures = []
    for place, stop in enumerate(STOPS):
        for part in ("all", "matrices"):
            values = [points[place][part] for points in curves.values()]
            name, mean = f"tokens_{part}_{stop}", sum(values) / len(values)
            figures.append(
                {
                    "name": name,
                    "value": mean,
                    "low": min(values),
                    "high": max(values),
                    "n": len(values),
                    "unit": "tokens",
                }
            )
    print(f"{seconds:.0f} s of processor time")
    record = {
        "command": "python educational/experiments/noise_scale.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "seconds": round(seconds),
        "tokens_per_step": ROWS * TOKENS,
        "figures": figures,
        "curves": curves,
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "noise_scale.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
