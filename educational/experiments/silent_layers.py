"""What each part of the shipped model is worth: its loss on held-out documents with that part silenced.

    python educational/experiments/silent_layers.py

A part is silenced by setting the matrix with which it writes to the stream to zero. Beside it, how many of the MLP's
units are positive. One model; bands are two standard errors over documents. Writes runs/book/silent_layers.json.
"""

import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.checkpoint import find_run, load_model
from nanochat.data.sources import documents
from nanochat.data.split import split_documents
from nanochat.gpt import GPT
from nanochat.runtime import commit, detect, machine, versions

DOCUMENTS, TOKENS = 40, 256
RECORD = Path(__file__).parents[2] / "runs/book/silent_layers.json"
PARTS = {"attention": "attention.output", "mlp": "mlp.down"}


def losses(model: GPT, rows: list[Tensor]) -> list[float]:
    """Nats a token, of each document."""
    with torch.inference_mode():
        return [F.cross_entropy(model(row[:, :-1])[0], row[0, 1:]).item() for row in rows]


def active(model: GPT, rows: list[Tensor]) -> list[float]:
    """Share of the units of each layer's MLP that are positive."""
    shares: list[list[float]] = [[] for _ in model.blocks]
    hooks = [
        block.mlp.up.register_forward_hook(
            lambda part, given, z, layer=layer: shares[layer].append((z > 0).float().mean().item())
        )
        for layer, block in enumerate(model.blocks)
    ]
    losses(model, rows)
    for hook in hooks:
        hook.remove()
    return [statistics.mean(one) for one in shares]


def band(values: list[float]) -> dict[str, float]:
    """Mean, and two standard errors to either side."""
    mean, error = statistics.mean(values), 2 * statistics.stdev(values) / len(values) ** 0.5
    return {"value": mean, "low": mean - error, "high": mean + error, "n": len(values)}


def main() -> None:
    """Measure, print, write the record."""
    runtime = detect("cpu", "float32", threads=1)
    model, tokenizer, _ = load_model(find_run("reference:pretrain"), runtime)
    figures: list[dict[str, Any]] = []
    for source in ("cookbook", "wikipedia"):
        held = split_documents(documents(source))[1][:DOCUMENTS]
        rows = [torch.tensor([tokenizer.encode(document.text)[:TOKENS]]) for document in held]
        whole = losses(model, rows)
        figures.append({"source": source, "part": "none", "layer": -1, "unit": "nats/token", **band(whole)})
        for layer, share in enumerate(active(model, rows)):
            figures.append({"source": source, "part": "active", "layer": layer, "unit": "share", "value": share})
        groups = [(name, (layer,)) for name in PARTS for layer in range(len(model.blocks))] + [("mlp", (1, 2))]
        for name, layers in groups:
            quiet = copy.deepcopy(model)
            for layer in layers:
                quiet.get_submodule(f"blocks.{layer}.{PARTS[name]}").weight.data.zero_()
            worse = [a - b for a, b in zip(losses(quiet, rows), whole, strict=True)]
            label = layers[0] if len(layers) == 1 else "1+2"
            figures.append({"source": source, "part": name, "layer": label, "unit": "nats/token", **band(worse)})
            print(f"{source:9} {name:9} of layer {label} silenced: {figures[-1]['value']:+.3f} nats a token")
    record = {
        "command": "python educational/experiments/silent_layers.py", "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "machine": machine(runtime), "versions": versions(), "figures": figures,
    }  # fmt: skip
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
