"""Every gradient that the package writes out, against central differences, and what a wrong one looks like.

    python educational/experiments/gradcheck.py

Three seeds. RMSNorm, the chunked loss (features and head), attention, and a whole small model along some thirty
entries of each of its matrices, all in float64 with h = 1e-5; the whole model in float32 as well; then with a term of
a backward pass left out. Errors are relative to the largest entry of the gradient. Some fifteen seconds on one core;
writes runs/book/gradcheck.json.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # the book is no installed package

from educational.lesson import changed
from nanochat import gpt, loss
from nanochat.attention import attend
from nanochat.runtime import commit, detect, machine, versions

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
H = {torch.float64: 1e-5, torch.float32: 5e-3}  # near the best for each: (3 eps) ^ (1/3)


def worst(value: Callable[[], Tensor], leaves: Sequence[Tensor]) -> float:
    """The largest difference between gradient and central difference, over entries of `leaves`, relative."""
    gradients = torch.autograd.grad(value(), leaves)
    h, error, largest = H[leaves[0].dtype], 0.0, max(float(g.abs().max()) for g in gradients)
    with torch.no_grad():
        for leaf, gradient in zip(leaves, gradients, strict=True):
            flat = leaf.view(-1)
            for place in range(0, flat.numel(), stride(flat.numel())):
                old = flat[place].item()
                flat[place] = old + h
                above = value().item()
                flat[place] = old - h
                below = value().item()
                flat[place] = old
                error = max(error, abs((above - below) / (2 * h) - gradient.flatten()[place].item()))
    return error / largest


def stride(size: int) -> int:
    """Every entry of a small tensor, some thirty of a large one: a step that is odd, so that it meets all columns."""
    return size // 30 | 1 if size > 60 else 1


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers in float64 that want a gradient."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def norm(generator: torch.Generator, module: object = gpt) -> float:
    """RMSNorm of five rows of eight."""
    x, g = draw(generator, 5, 8), draw(generator, 5, 8).detach()
    # The written-out backward belongs to the class: `rms_norm` takes another way where no gradient is wanted.
    return worst(lambda: (module.RMSNorm.apply(x, 1e-6) * g).sum(), [x])  # type: ignore[attr-defined]


def chunked(generator: torch.Generator, module: object = loss) -> float:
    """The loss of twelve tokens, some ignored, along features and head; with weights of both signs."""
    head, x = gpt.Head(6, 11, 15.0).double(), draw(generator, 2, 6, 6)
    head.weight.data = 4 * draw(generator, 11, 6).detach()
    targets = torch.randint(-1, 11, (2, 6), generator=generator)
    batch = SimpleNamespace(targets=targets, weights=draw(generator, 2, 6).detach())
    # Divided as a step of training divides it: then what arrives at its backward is not 1.
    return worst(lambda: module.weighted_nll(x, head, batch) / 7, [x, head.weight])  # type: ignore[attr-defined]


def attention(generator: torch.Generator) -> float:
    """Causal attention of four query heads over two key heads, nine tokens."""
    q, k, v = (draw(generator, 1, heads, 9, 4) for heads in (4, 2, 2))
    g = draw(generator, 1, 4, 9, 4).detach()
    return worst(lambda: (attend(q, k, v) * g).sum(), [q, k, v])


def whole(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> float:
    """A model with all of its extras, along every parameter; every matrix drawn, none left at zero."""
    config = gpt.GPTConfig(13, 2, 2, 1, 8, 16, smear=True, value_embeddings=True)
    model = gpt.GPT(config, dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.4 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    ids = torch.randint(0, 13, (2, 7), generator=generator)
    batch = SimpleNamespace(targets=ids[:, 1:], weights=torch.ones(2, 6, dtype=dtype))
    weights = list(model.parameters())
    return worst(lambda: loss.weighted_nll(model.features(ids[:, :-1]), model.head, batch) / 12, weights)


def main() -> None:
    """Measure, print as it comes, write the record."""
    runtime = detect("cpu", "float64", threads=1)
    began = time.process_time()
    no_projection = changed(gpt, ".div_(-y.shape[-1])", ".mul_(0)")
    no_y = changed(loss, "p.scatter_add_(1, target[:, None], -torch.ones_like(scale))", "pass")
    no_slope = changed(loss, "p.mul_(sigmoid.addcmul_(sigmoid, sigmoid, value=-1)).mul_(4 * scale)", "p.mul_(scale)")
    cases: list[tuple[str, Callable[[torch.Generator], float]]] = [
        ("rms_norm", norm),
        ("loss", chunked),
        ("attention", attention),
        ("whole_model", whole),
        ("whole_model_float32", lambda draws: whole(draws, torch.float32)),
        ("rms_norm_without_projection", lambda draws: norm(draws, no_projection)),
        ("loss_without_y", lambda draws: chunked(draws, no_y)),
        ("loss_without_slope_of_cap", lambda draws: chunked(draws, no_slope)),
    ]
    figures = []
    for name, case in cases:
        errors = [case(torch.Generator().manual_seed(seed)) for seed in SEEDS]
        print(f"{name:28} {statistics.fmean(errors):8.1e}   {min(errors):.1e} to {max(errors):.1e}", flush=True)
        figures.append(
            {"name": name, "value": statistics.fmean(errors), "low": min(errors), "high": max(errors),
             "n": len(errors), "unit": "relative error"}
        )  # fmt: skip
    record = {
        "command": "python educational/experiments/gradcheck.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": list(SEEDS),
        "cpu_seconds": round(time.process_time() - began, 1),
        "figures": figures,
    }
    target = ROOT / "runs" / "book" / "gradcheck.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['cpu_seconds']} s of CPU time")


if __name__ == "__main__":
    main()
