"""Does copying need two layers? Three tiny models learn to say random strings again; which of them can.

    python educational/experiments/induction.py

A row is a random string of random length, over and over. From its second round on every token can be known, but only
by looking back to where the last token stood before. One layer of attention cannot; two can; nor does one, once each
token is given a share of the one before it (`smear`). Three seeds each; writes runs/book/induction.json.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import IGNORE
from nanochat.optim import build_optimizer, trapezoid
from nanochat.runtime import commit, detect, machine, versions
from nanochat.train import Batch, train

WORDS, TOKENS, ROWS, STEPS, EVERY = 64, 64, 64, 300, 10
SHORTEST, LONGEST = 10, 24  # tokens until a string begins again
KINDS = {"one layer": (1, False), "one layer and smear": (1, True), "two layers": (2, False)}
SEEDS = (0, 1, 2)


def rows(seed: int) -> Iterator[Batch]:
    """Repeated strings without end; only what can be known is learned: the second round and all after it."""
    draws = torch.Generator().manual_seed(seed)
    while True:
        strings = torch.randint(WORDS, (ROWS, LONGEST), generator=draws)
        period = torch.randint(SHORTEST, LONGEST + 1, (ROWS, 1), generator=draws)
        place = torch.arange(TOKENS + 1)[None].expand(ROWS, -1)
        ids = strings.gather(1, place % period)
        # The first token of the second round cannot be known either: nothing says that the string has ended.
        targets = torch.where(place > period, ids, IGNORE)[:, 1:]
        yield Batch(ids[:, :-1], targets, (targets != IGNORE).float(), {})


def curve(layers: int, smear: bool, seed: int) -> list[float]:
    """The loss, nats a token, mean over each `EVERY` steps."""
    model = GPT(GPTConfig(WORDS, layers, n_head=2, n_kv_head=2, n_embd=64, context=TOKENS, smear=smear))
    model.init_weights(seed)
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.01)
    steps = train(model, optimizer, rows(seed), trapezoid(STEPS, 20, STEPS // 4), steps=STEPS)
    losses = [step.loss for step in steps]
    return [sum(losses[at : at + EVERY]) / EVERY for at in range(0, STEPS, EVERY)]


def main() -> None:
    """Train nine models, print as they come, write the record."""
    runtime = detect("cpu", "float32", threads=1)
    began, figures, curves = time.process_time(), [], []
    for name, (layers, smear) in KINDS.items():
        ends = []
        for seed in SEEDS:
            losses = curve(layers, smear, seed)
            turn = next((EVERY * at for at, loss in enumerate(losses) if loss < 1), None)
            print(f"{name:20} seed {seed}: ends at {losses[-1]:.3f} nats; below 1 nat from step {turn}", flush=True)
            ends.append(losses[-1])
            rounded = [round(loss, 4) for loss in losses]
            curves.append({"name": name, "seed": seed, "every": EVERY, "turn": turn, "loss": rounded})
        about = {"low": min(ends), "high": max(ends), "n": len(ends), "unit": "nats/token"}
        figures.append({"name": name, "value": sum(ends) / len(ends), **about})
    seconds = time.process_time() - began
    print(f"ln {WORDS} = {math.log(WORDS):.3f} nats; {seconds:.0f} s of processor time")
    record = {
        "command": "python educational/experiments/induction.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "seconds": round(seconds),
        "figures": figures,
        "curves": curves,
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "induction.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
