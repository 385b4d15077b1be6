"""Where a softmax written down naively fails: the share of rows that are no distribution, by format and spread.

    python educational/experiments/softmax_overflow.py

250 rows of 4,096 normally distributed logits, three seeds. A row fails if one of its probabilities is not finite,
or if they sum to something more than 5 % away from 1. Also the smallest logit whose exponential overflows. A few
seconds on one core; writes runs/book/softmax_overflow.json.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # the book is no installed package

from nanochat.runtime import commit, detect, machine, versions

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SPREADS = (1, 3, 10, 30)


def naive(z: Tensor) -> Tensor:
    """As the formula says."""
    exponentials = z.exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def stable(z: Tensor) -> Tensor:
    """With the largest logit taken off first."""
    return naive(z - z.amax(-1, keepdim=True))


def share_failed(p: Tensor) -> float:
    """Share of rows that are no distribution."""
    sums = p.double().sum(-1)
    return float((~torch.isfinite(p).all(-1) | ((sums - 1).abs() > 0.05)).double().mean())


def first_overflow(dtype: torch.dtype) -> float:
    """The smallest logit, to a thousandth, whose exponential is infinite."""
    low, high = 0.0, 1000.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        # exp in float64, then rounded: what an exact exp in this format would give.
        finite = torch.isfinite(torch.tensor(middle, dtype=torch.float64).exp().to(dtype))
        low, high = (middle, high) if finite else (low, middle)
    return high


def main() -> None:
    """Measure, print as it comes, write the record."""
    runtime = detect("cpu", "float32", threads=1)
    began = time.process_time()
    figures = []
    for dtype in FORMATS:
        name = str(dtype).removeprefix("torch.")
        limit = first_overflow(dtype)
        print(f"{name:9} exp overflows from {limit:.2f}")
        figures.append({"name": f"overflow_{name}", "value": limit, "low": limit, "high": limit, "n": 1, "unit": ""})
        for spread in SPREADS:
            for kind, function in (("naive", naive), ("stable", stable)):
                shares = []
                for seed in SEEDS:
                    draws = torch.Generator().manual_seed(seed)
                    z = spread * torch.randn(250, 4096, generator=draws)
                    shares.append(share_failed(function(z.to(dtype))))
                figures.append(
                    {"name": f"{kind}_{name}_{spread}", "value": statistics.fmean(shares), "low": min(shares),
                     "high": max(shares), "n": len(shares), "unit": "share"}
                )  # fmt: skip
                print(f"{name:9} spread {spread:3} {kind:6} fails in {statistics.fmean(shares):7.1%} of rows")
    record = {
        "command": "python educational/experiments/softmax_overflow.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": list(SEEDS),
        "cpu_seconds": round(time.process_time() - began, 1),
        "figures": figures,
    }
    target = ROOT / "runs" / "book" / "softmax_overflow.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['cpu_seconds']} s of CPU time")


if __name__ == "__main__":
    main()
