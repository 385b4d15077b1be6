"""Where the norm stands, and how the writing matrices begin: four models of eight layers, over three seeds.

    python educational/experiments/norm_places.py

`before` is nanochat's block, x + f(norm(x)); `after` is the first transformer's, norm(x + f(x)). `zero` starts the
matrices that write to the stream at nothing, `drawn` draws them like all others. The text is the Cookbook's, as bytes.
Writes runs/book/norm_places.json.
"""

import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.data.sources import documents
from nanochat.data.split import split_documents
from nanochat.gpt import GPT, GPTConfig, rms_norm
from nanochat.loss import weighted_nll
from nanochat.optim import build_optimizer, trapezoid
from nanochat.runtime import Runtime, commit, detect, machine, versions
from nanochat.train import Batch, train

KINDS = (("before", "zero"), ("after", "zero"), ("before", "drawn"), ("after", "drawn"))
SEEDS, STEPS, ROWS, CONTEXT = (0, 1, 2), 100, 4, 64
SHAPE = GPTConfig(vocab_size=256, n_layer=8, n_head=2, n_kv_head=2, n_embd=64, context=CONTEXT)
RECORD = Path(__file__).parents[2] / "runs/book/norm_places.json"


def block_after(self, x: Tensor, ids: Tensor, cosine: Tensor, sine: Tensor, cache: None = None) -> Tensor:
    """A block whose norms stand in the stream itself."""
    x = rms_norm(x + self.attention(x, ids, cosine, sine, cache), self.eps)
    return rms_norm(x + self.mlp(x), self.eps)


def build(place: str, start: str, seed: int) -> GPT:
    """A fresh model of one of the four kinds."""
    model = GPT(SHAPE)
    model.init_weights(seed)
    draws = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if start == "drawn" and name.endswith(("output.weight", "down.weight")):
            spread = (3 / weight.shape[1]) ** 0.5
            weight.data = (torch.rand(weight.shape, generator=draws) * 2 - 1) * spread
    for block in model.blocks if place == "after" else ():
        block.forward = block_after.__get__(block)
    return model


def batches(text: Tensor, seed: int, rows: int = ROWS) -> Iterator[Batch]:
    """Rows cut at random places."""
    draws = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(0, len(text) - CONTEXT, (rows, 1), generator=draws)
        windows = text[starts + torch.arange(CONTEXT + 1)]
        yield Batch(windows[:, :-1], windows[:, 1:], torch.ones(rows, CONTEXT), {})


def share_left(model: GPT, batch: Batch) -> float:
    """Mean cosine between what enters the first block and what leaves the last."""
    ends: list[Tensor] = []
    hooks = [model.blocks[0].register_forward_pre_hook(lambda block, given: ends.append(given[0]))]
    hooks += [model.blocks[-1].register_forward_hook(lambda block, given, result: ends.append(result))]
    with torch.no_grad():
        model.features(batch.inputs)
    for hook in hooks:
        hook.remove()
    return float(torch.cosine_similarity(ends[0], ends[1], dim=-1).mean())


def run_one(place: str, start: str, seed: int, training: Tensor, fixed: Batch) -> dict[str, float]:
    """One training: its first loss in nats, how much of the input was left before it, its last bits per byte."""
    model = build(place, start, seed)
    left = share_left(model, fixed)
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.005)
    losses = [step.loss for step in train(
        model, optimizer, batches(training, seed), trapezoid(STEPS, 5, 60), steps=STEPS)]  # fmt: skip
    with torch.no_grad():
        nats = float(weighted_nll(model.features(fixed.inputs), model.head, fixed)) / fixed.targets.numel()
    found = {"first": losses[0], "left": left, "bits": nats / math.log(2)}
    print(f"norm {place:6} {start:5} seed {seed}: starts at {losses[0]:.3f} nats, {left:.3f} of the input is left, "
          f"ends at {found['bits']:.3f} bits per byte", flush=True)  # fmt: skip
    return found


def read() -> tuple[Tensor, Batch]:
    """Training text as bytes, and held-out rows."""
    sides = split_documents(documents("cookbook"))
    texts = ("\n\n".join(document.text for document in side) for side in sides)
    training, held = (torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() for text in texts)
    return training, next(batches(held, 0, 32))


def record_of(results: dict[tuple[str, str, int], dict[str, float]], runtime: Runtime) -> dict[str, Any]:
    """What is written: mean, lowest and highest over the seeds."""
    figures = []
    units = {"bits": "bits/byte", "left": "cosine", "first": "nats"}
    for place, start in KINDS:
        for name, unit in units.items():
            values = [results[place, start, seed][name] for seed in SEEDS]
            about = {"low": min(values), "high": max(values), "n": len(SEEDS), "unit": unit}
            figures.append({"norm": place, "start": start, "name": name, "value": statistics.mean(values), **about})
    return {
        "command": "python educational/experiments/norm_places.py", "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "machine": machine(runtime), "versions": versions(),
        "seeds": list(SEEDS), "steps": STEPS, "figures": figures,
    }  # fmt: skip


def main() -> None:
    """Train, print, write the record."""
    runtime = detect("cpu", "float32", threads=torch.get_num_threads())
    text = read()
    results = {(place, start, seed): run_one(place, start, seed, *text) for place, start in KINDS for seed in SEEDS}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record_of(results, runtime), indent=1) + "\n")


if __name__ == "__main__":
    main()
