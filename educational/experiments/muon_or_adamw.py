"""Muon or AdamW for the matrices? Both tuned with the same number of runs, then compared on three fresh seeds.

    python educational/experiments/muon_or_adamw.py

Two layers x 128 learn recipes (the Cookbook is fetched by pip once, 1 MB); the embedding table and the head have the
same AdamW in every run, and only what updates the matrices of the blocks differs. Nine runs of seed 0 tune each of the
two: five rates, then at the best rate two other momenta and two other rates of the tables (and one rate more where the
best lies at an end of the five). Three rates of plain momentum stand beside them. Then seeds 1, 2 and 3, which no
choice has seen. Writes runs/book/muon_or_adamw.json.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nanochat.data import TokenStore, documents, rows, split_documents
from nanochat.evaluate.bits import Held, encode_held, score_held
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import POLAR_EXPRESS, AdamW, Muon, Together, keep_peaks, orthogonalise, trapezoid
from nanochat.runtime import Runtime, commit, detect, machine, versions
from nanochat.tokenizer import Tokenizer, train_tokenizer
from nanochat.train import Batch, train

DOCUMENTS, HELD, VOCABULARY = 600, 40, 512
ROWS, TOKENS, STEPS = 8, 128, 100
RATES = {
    "muon": (0.005, 0.01, 0.02, 0.04, 0.08),
    "adamw": (0.001, 0.002, 0.004, 0.008, 0.016),
    "momentum": (0.3, 1.0, 3.0),
}
MOMENTA: dict[str, tuple[Any, ...]] = {"muon": (0.95, 0.9, 0.85), "adamw": ((0.9, 0.95), (0.8, 0.95), (0.95, 0.99))}
TUNING, FRESH = 0, (1, 2, 3)
LOOKED_AT, LOOKED_IN = 50, "blocks.0.mlp.up.weight"  # whose momentum is taken apart, and after how many steps


class Corpus:
    """A fixed slice of the Cookbook as tokens, and held-out recipes."""

    def __init__(self) -> None:
        training, held = split_documents(documents("cookbook"))
        texts = [document.text for document in training[:DOCUMENTS]]
        self.tokenizer: Tokenizer = train_tokenizer(texts, VOCABULARY)
        ids = [self.tokenizer.encode(text) for text in texts]
        tokens = np.concatenate([np.asarray(some, dtype=np.uint16) for some in ids])
        self.store = TokenStore(tokens, np.cumsum([0, *map(len, ids)]), None)  # type: ignore[arg-type]
        self.held: Held = encode_held(self.tokenizer, [document.text for document in held], HELD)

    def batches(self, seed: int) -> Any:
        """Batches of ROWS x TOKENS without end."""
        stream = rows([self.store], bos=self.tokenizer.special("<|bos|>"), context=TOKENS, seed=seed)
        while True:
            ids = torch.from_numpy(np.stack([next(stream).ids for _ in range(ROWS)]))
            yield Batch(ids[:, :-1], ids[:, 1:], torch.ones(ROWS, TOKENS), {})


def fresh_model(seed: int, runtime: Runtime) -> GPT:
    """Two layers x 128."""
    model = GPT(GPTConfig(VOCABULARY, 2, n_head=2, n_kv_head=1, n_embd=128, context=TOKENS), runtime.dtype)
    model.init_weights(seed)
    return model


def optimizer_of(model: GPT, kind: str, rate: float, momentum: Any, tables: float) -> Together:
    """AdamW for embedding and head, `kind` for the matrices."""
    apart = [model.embedding.weight, model.head.weight]
    matrices = [weight for weight in model.parameters() if all(weight is not other for other in apart)]
    groups = [{"params": [weight], "lr": lr * tables} for weight, lr in zip(apart, (0.4, 0.01), strict=True)]
    ours: torch.optim.Optimizer
    if kind == "muon":
        ours = Muon(matrices, lr=rate, momentum=momentum)
    elif kind == "adamw":
        ours = AdamW(matrices, lr=rate, betas=momentum, eps=1e-10, weight_decay=0.0)
    else:
        ours = torch.optim.SGD(matrices, lr=rate, momentum=0.9)
        keep_peaks(ours)
    return Together(AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0), ours)


def run(corpus: Corpus, runtime: Runtime, seed: int, kind: str, rate: float, momentum: Any, tables: float) -> Any:
    """One training: bits per byte of held-out recipes, the loss on the way, seconds an optimizer step."""
    model = fresh_model(seed, runtime)
    optimizer = optimizer_of(model, kind, rate, momentum, tables)
    schedule = trapezoid(STEPS, 10, STEPS // 2)
    losses = [step.loss for step in train(model, optimizer, corpus.batches(seed), schedule, steps=STEPS)]
    found = score_held(model, corpus.held, runtime).value
    curve = [round(sum(losses[at : at + 10]) / 10, 4) for at in range(0, STEPS, 10)]
    tried = {"kind": kind, "rate": rate, "momentum": momentum, "tables": tables, "seed": seed}
    print(
        f"{kind:9} rate {rate:<7g} momentum {momentum!s:12} tables x {tables:<4g} seed {seed}: {found:.4f}", flush=True
    )
    return tried | {"bpb": found, "loss": curve}


def tune(corpus: Corpus, runtime: Runtime, kind: str) -> list[Any]:
    """Nine runs of one seed: rates, then what else there is to choose at the best of them."""
    first, rates = MOMENTA[kind][0], RATES[kind]
    found = [run(corpus, runtime, TUNING, kind, rate, first, 1.0) for rate in rates]
    best = min(found, key=lambda one: one["bpb"])["rate"]
    if best in (rates[0], rates[-1]):  # a best at the end of a grid is none
        found.append(run(corpus, runtime, TUNING, kind, 2 * best if best == rates[-1] else best / 2, first, 1.0))
        best = min(found, key=lambda one: one["bpb"])["rate"]
    found += [run(corpus, runtime, TUNING, kind, best, other, 1.0) for other in MOMENTA[kind][1:]]
    return found + [run(corpus, runtime, TUNING, kind, best, first, tables) for tables in (0.5, 2.0)]


def milliseconds(runtime: Runtime, kind: str) -> float:
    """Processor time of one optimizer step, in the middle of eleven."""
    model = fresh_model(0, runtime)
    optimizer, times = optimizer_of(model, kind, 1e-3, (MOMENTA.get(kind) or (0.9,))[0], 1.0), []
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    for _ in range(11):
        began = time.process_time()
        optimizer.step()
        times.append(time.process_time() - began)
    return sorted(times)[5] * 1000


def spectra(corpus: Corpus, runtime: Runtime, rate: float) -> Any:
    """Singular values of one matrix's momentum in the middle of a Muon run, and after each step of orthogonalising."""
    model = fresh_model(TUNING, runtime)
    optimizer = optimizer_of(model, "muon", rate, 0.95, 1.0)
    for _ in train(model, optimizer, corpus.batches(TUNING), trapezoid(STEPS, 10, STEPS // 2), steps=LOOKED_AT):
        pass
    matrix = optimizer.state_of(dict(model.named_parameters())[LOOKED_IN])["momentum"].double()
    stages = [orthogonalise(matrix, POLAR_EXPRESS[:count], torch.float64) for count in range(len(POLAR_EXPRESS) + 1)]
    return [[float(f"{value:.5g}") for value in torch.linalg.svdvals(stage).tolist()] for stage in stages]


def main() -> None:
    """Tune, compare, write the record."""
    runtime = detect("cpu", "auto")
    torch.set_num_threads(1)
    began, corpus = time.process_time(), Corpus()
    runs = {kind: tune(corpus, runtime, kind) for kind in ("muon", "adamw")}
    runs["momentum"] = [run(corpus, runtime, TUNING, "momentum", rate, 0.9, 1.0) for rate in RATES["momentum"]]
    best = {kind: min(tried, key=lambda one: one["bpb"]) for kind, tried in runs.items()}
    chosen = {kind: {key: one[key] for key in ("kind", "rate", "momentum", "tables")} for kind, one in best.items()}
    finals = [run(corpus, runtime, seed, **chosen[kind]) for seed in FRESH for kind in ("muon", "adamw")]
    figures = []
    for kind in ("muon", "adamw"):
        ends = [one["bpb"] for one in finals if one["kind"] == kind]
        figures.append(figure(f"bpb_{kind}", ends, "bits/byte"))
        figures.append(figure(f"milliseconds_{kind}", [milliseconds(runtime, kind)], "ms/optimizer step"))
    pairs = {seed: {one["kind"]: one["bpb"] for one in finals if one["seed"] == seed} for seed in FRESH}
    figures.append(figure("adamw_minus_muon", [pair["adamw"] - pair["muon"] for pair in pairs.values()], "bits/byte"))
    seconds = time.process_time() - began
    for one in figures:
        print(f"{one['name']:22} {one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f}) {one['unit']}")
    print(f"{seconds:.0f} s of processor time")
    record = {
        "command": "python educational/experiments/muon_or_adamw.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": [TUNING, *FRESH],
        "seconds": round(seconds),
        "figures": figures,
        "chosen": chosen,
        "tuning": [one for tried in runs.values() for one in tried],
        "finals": finals,
        "spectra": {
            "matrix": LOOKED_IN,
            "steps": LOOKED_AT,
            "values": spectra(corpus, runtime, chosen["muon"]["rate"]),
        },
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "muon_or_adamw.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


def figure(name: str, values: list[float], unit: str) -> dict[str, Any]:
    """A mean with the lowest and the highest of its seeds."""
    return {
        "name": name,
        "value": sum(values) / len(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
        "unit": unit,
    }


if __name__ == "__main__":
    main()
