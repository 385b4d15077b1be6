"""How few bits can the shipped weights have? Bits per byte and sums answered, after rounding every matrix.

    python educational/experiments/quantisation.py

Each matrix is cut into groups that share a scale (the whole matrix, a row, 32 numbers of a row), and each number
rounded to one of 2^bits - 1 values. Measured: bits per byte of held-out recipes with the pretrained model, in three
samples of documents, and sums answered rightly by the final one. Needs the Cookbook (`nanochat data fetch`); writes
runs/book/quantisation.json.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nanochat.checkpoint import load_model, run_folder
from nanochat.data import documents
from nanochat.data.split import split_documents
from nanochat.engine import Engine
from nanochat.evaluate.bits import Held, document_nats, encode_held
from nanochat.evaluate.graded import GREEDY, Question, answer, first_examples
from nanochat.gpt import GPT
from nanochat.runtime import commit, detect, home, machine, versions
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tools import Calculator

BITS = (8, 6, 5, 4, 3, 2)
GROUPS = {"matrix": 0, "row": -1, "32": 32}
PARTS = {
    "embedding": ("embedding.", "values."),
    "attention": ("query.", "key.", "value.", "output."),
    "mlp": ("mlp.",),
    "head": ("head.",),
}
SEEDS, DOCUMENTS, SUMS = (0, 1, 2), 16, 100


def quantised(weight: Tensor, bits: int, group: int) -> Tensor:
    """`weight` rounded to multiples of a scale, one for each `group` numbers of a row (-1: a row, 0: all)."""
    parts = weight.reshape(-1, {0: weight.numel(), -1: weight.shape[1]}.get(group, group))
    largest = 2 ** (bits - 1) - 1  # 127 with 8 bits, 7 with 4, 1 with 2
    scale = (parts.abs().amax(dim=1, keepdim=True) / largest).clamp(min=1e-12)
    return ((parts / scale).round() * scale).view_as(weight)


@torch.no_grad()
def rounded(
    model: GPT, bits: int, group: int, is_meant: Callable[[str], bool] = lambda name: True
) -> dict[str, Tensor]:
    """Round the matrices of `model` whose names are meant; what they were before."""
    before = {name: weight.clone() for name, weight in model.named_parameters() if weight.ndim == 2 and is_meant(name)}
    for name, weight in model.named_parameters():
        if name in before:
            weight.copy_(quantised(weight, bits, group))
    return before


@torch.no_grad()
def put_back(model: GPT, before: dict[str, Tensor]) -> None:
    for name, weight in model.named_parameters():
        if name in before:
            weight.copy_(before[name])


def bits_of(model: GPT, samples: list[Held]) -> list[float]:
    """Bits per byte of each sample of documents."""
    runtime = detect("cpu", "float32", threads=1)
    return [document_nats(model, held, runtime).sum() / math.log(2) / sum(held.num_bytes) for held in samples]


def main() -> None:
    began, figures = time.process_time(), []
    runtime = detect("cpu", "float32", threads=1)
    model, tokenizer, _ = load_model(run_folder("reference") / "pretrain", runtime)
    _, held = split_documents(documents("cookbook", home()))
    samples = [encode_held(tokenizer, [d.text for d in held], DOCUMENTS, seed) for seed in SEEDS]
    plain = bits_of(model, samples)

    def record(name: str, group: str, bits: int, found: list[float]) -> None:
        worse = [b - a for a, b in zip(plain, found, strict=True)]
        print(
            f"{name:10} {group:6} {bits:2} bits: {sum(found) / 3:.4f} bits per byte, {sum(worse) / 3:+.4f}", flush=True
        )
        for what, values in (("bpb", found), ("worse", worse)):
            about = {"low": min(values), "high": max(values), "n": len(values), "unit": "bits/byte"}
            figures.append(
                {"name": what, "part": name, "group": group, "bits": bits, "value": sum(values) / 3, **about}
            )

    record("all", "none", 16, plain)
    for group, size in GROUPS.items():
        for bits in BITS:
            before = rounded(model, bits, size)
            record("all", group, bits, bits_of(model, samples))
            put_back(model, before)
    for part, endings in PARTS.items():
        before = rounded(model, 4, -1, lambda name, ends=endings: any(end in name for end in ends))
        record(part, "row", 4, bits_of(model, samples))
        put_back(model, before)

    model, tokenizer, _ = load_model(run_folder("reference") / "rl", runtime)
    engine = Engine(model, tokenizer, runtime, {"calculator": Calculator()})
    task = Arithmetic()
    questions = [Question(task, example) for example in first_examples(task, "familiar", SUMS, 0)]
    for group, bits in [("none", 16), *[(group, bits) for group in ("row", "32") for bits in BITS]]:
        before = rounded(model, bits, GROUPS[group]) if bits < 16 else {}
        right = sum(graded.grade.right for graded in answer(engine, questions, GREEDY, batch=100))
        put_back(model, before)
        print(f"sums       {group:6} {bits:2} bits: {right} of {SUMS} right", flush=True)
        figures.append({"name": "sums", "part": "all", "group": group, "bits": bits, "value": right / SUMS, "n": SUMS})
    seconds = round(time.process_time() - began)
    print(f"{seconds} s of processor time")
    about = {
        "command": "python educational/experiments/quantisation.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    about |= {
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "seconds": seconds,
        "figures": figures,
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "quantisation.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
