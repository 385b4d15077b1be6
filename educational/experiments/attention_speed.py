"""How long attention takes here: plainly, by torch's kernel, in blocks; and an answer with and without a cache.

    python educational/experiments/attention_speed.py

The shapes are those of the laptop preset: rows of 512 tokens, four query heads on one key head of 64 features. What is
measured is processor time on one thread, which other programs disturb least; every way in turn, round after round, and
a figure is the median of a ratio within a round. Writes runs/book/attention_speed.json.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat import attention
from nanochat.checkpoint import find_run, load_model
from nanochat.gpt import GPT
from nanochat.runtime import commit, detect, machine, versions

ROUNDS, LENGTHS = 5, (64, 192)
SHAPE = {"rows": 4, "query heads": 4, "key heads": 1, "tokens": 512, "head size": 64}


def seconds(work: Callable[[], object]) -> float:
    """Of processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def there_and_back(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, pull: Tensor) -> None:
    """Forward and backward, as training needs it."""
    attend(q, k, v).backward(pull)
    q.grad = k.grad = v.grad = None


def by_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def in_blocks_of(size: int) -> Callable[..., Tensor]:
    """Ours, with another number of queries at once."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attention.BLOCK = size
        return attention.attend_in_blocks(q, k, v)

    return attend


def ways_of_training(dtype: torch.dtype) -> dict[str, Callable[[], None]]:
    """What to time, by name."""
    b, h, kv, t, d = SHAPE.values()
    draws = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(b, n, t, d, generator=draws).to(dtype).requires_grad_() for n in (h, kv, kv))
    pull = torch.randn(b, h, t, d, generator=draws).to(dtype)
    ways = {"plainly": attention.attend_plainly, "kernel": by_kernel}
    ways |= {f"blocks_{size}": in_blocks_of(size) for size in (128, 32, 64, 256, 512)}
    return {name: lambda way=way: there_and_back(way, q, k, v, pull) for name, way in ways.items()}


@torch.inference_mode()
def write_with_cache(model: GPT, tokens: int) -> None:
    """So many greedy tokens, each read once."""
    cache, ids = model.empty_cache(1, tokens), torch.zeros(1, 1, dtype=torch.long)
    for _ in range(tokens):
        ids = model.logits(model.features(ids, cache)[:, -1:]).argmax(-1)


@torch.inference_mode()
def write_without(model: GPT, tokens: int) -> None:
    """The same tokens, with all that was written read again for each."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(tokens):
        following = model.logits(model.features(ids)[:, -1:]).argmax(-1)
        ids = torch.cat((ids, following), dim=1)


def compared(ways: dict[str, Callable[[], None]], base: str) -> list[dict[str, object]]:
    """Each way's time over the base's: median, lowest and highest of the rounds."""
    for work in ways.values():
        work()
    rounds = [{name: seconds(work) for name, work in ways.items()} for _ in range(ROUNDS)]
    found = []
    for name in ways:
        ratios = [one[name] / one[base] for one in rounds]
        median = statistics.median(one[name] for one in rounds)
        about = {"low": min(ratios), "high": max(ratios), "n": ROUNDS, "unit": f"times {base}", "ms": median * 1e3}
        found.append({"name": name, "value": statistics.median(ratios), **about})
    return found


def main() -> None:
    """Time, print, write the record."""
    runtime = detect("cpu", threads=1)
    figures: list[dict[str, object]] = []
    for dtype in (torch.bfloat16, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        figures += [{"dtype": kind, **one} for one in compared(ways_of_training(dtype), "kernel")]
    attention.BLOCK = 128
    model = load_model(find_run("reference"), runtime)[0]
    for tokens in LENGTHS:
        ways = {
            "with_cache": lambda n=tokens: write_with_cache(model, n),
            "without_cache": lambda n=tokens: write_without(model, n),
        }
        kind = str(runtime.dtype).removeprefix("torch.")
        figures += [{"dtype": kind, "tokens": tokens, **one} for one in compared(ways, "with_cache")]
    for one in figures:
        length = f" {one['tokens']} tokens" if "tokens" in one else ""
        band = f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        print(f"{one['dtype']:9}{length} {one['name']:14} {one['ms']:8.2f} ms  {band} {one['unit']}")
    record = {
        "command": "python educational/experiments/attention_speed.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "shape": SHAPE,
        "figures": figures,
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "attention_speed.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
