"""The five steps of the staircase, over three seeds: how each learns, on the same text and the same batches.

    python educational/experiments/staircase.py

Beside them step 3 with one line changed: attention's answer is added to what it read, and does not replace it.
Writes runs/book/staircase.json.
"""

import functools
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nanochat.runtime import Runtime, commit, detect, machine, versions

SEEDS = (0, 1, 2)
FOLDER = Path(__file__).parent.parent / "staircase"
ADDED = "03_added"
STEPS = ("01_bigram", "02_mlp", "03_attention", "04_block", "05_gpt")
RECORD = Path(__file__).parent.parent.parent / "runs/book/staircase.json"


def load(name: str) -> ModuleType:
    """A step as a module: its file's name begins with a digit, so `import` cannot say it."""
    spec = importlib.util.spec_from_file_location(f"step_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def added(module: ModuleType) -> ModuleType:
    """Step 3, where what attention finds is added to what it read."""
    plain = module.Attention.forward
    module.Attention.forward = lambda self, x: x + plain(self, x)
    return module


def run_one(name: str, seed: int, text: Callable[[], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """One training: its curve, the seconds of CPU time that it took, and the size of the model."""
    module = added(load("03_attention")) if name == ADDED else load(name)
    module.read = text
    began = time.process_time()
    model, curve = module.train(seed)
    numbers = sum(weight.numel() for weight in model.parameters())
    seconds = time.process_time() - began
    print(f"seed {seed}  {name:13s} {curve[-1][1]:.3f} bits per byte  {seconds:.0f} s", flush=True)
    return {"name": name, "seed": seed, "curve": curve, "seconds": seconds, "parameters": numbers}


def tables(training: Tensor, held: Tensor) -> list[dict[str, Any]]:
    """Bits per held-out byte of two tables of counts: of bytes, and of pairs of bytes; 0.01 added to each count."""
    pairs = torch.bincount(training[:-1] * 256 + training[1:], minlength=256**2).view(256, 256).double() + 0.01
    singles = torch.bincount(training, minlength=256).double() + 0.01
    chances = {"counts_single": (singles / singles.sum())[held[1:]]}
    chances["counts_pairs"] = (pairs / pairs.sum(1, keepdim=True))[held[:-1], held[1:]]
    return [{"name": n, "value": -c.log2().mean().item(), "unit": "bits/byte"} for n, c in chances.items()]


def record_of(results: list[dict[str, Any]], text: tuple[Tensor, Tensor], runtime: Runtime) -> dict[str, Any]:
    """What is written: for each step the last bits per byte, lowest and highest of the seeds, and the curves."""
    figures = tables(*text)
    for name in (*STEPS, ADDED):
        runs = [one for one in results if one["name"] == name]
        ends = [one["curve"][-1][1] for one in runs]
        about = {"low": min(ends), "high": max(ends), "n": len(ends), "unit": "bits/byte"}
        about |= {"parameters": runs[0]["parameters"], "seconds": statistics.median(one["seconds"] for one in runs)}
        if name in STEPS:
            about["lines"] = len((FOLDER / f"{name}.py").read_text().splitlines())
        figures.append(
            {"name": name, "value": statistics.mean(ends), **about, "curves": [one["curve"] for one in runs]}
        )
    return {
        "command": "python educational/experiments/staircase.py", "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "machine": machine(runtime), "versions": versions(),
        "seeds": list(SEEDS), "seconds": sum(one["seconds"] for one in results), "figures": figures,
    }  # fmt: skip


def main() -> None:
    """Train, print, write the record."""
    runtime = detect("cpu", "float32", threads=torch.get_num_threads())
    text = functools.cache(load("01_bigram").read)
    results = [run_one(name, seed, text) for seed in SEEDS for name in (*STEPS, ADDED)]
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record_of(results, text(), runtime), indent=1) + "\n")


if __name__ == "__main__":
    main()
