"""Two processes make the steps of one; and two ways in which they would not.

    python educational/experiments/two_processes.py

Starts itself once more as two connected processes. Each reads every second row of the same toy data, in which rows
differ in how many targets they have, and trains in float64. Printed is the largest difference between the losses of two
processes and of one over ten steps: in each way of sharing the work, and with something changed. Some ten seconds.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from nanochat import distributed
from nanochat import train as loop
from nanochat.gpt import GPT, GPTConfig
from nanochat.keyed import key
from nanochat.loss import IGNORE
from nanochat.optim import build_optimizer
from nanochat.runtime import Runtime, detect

STEPS, ROWS, TOKENS = 10, 4, 16


def stream(runtime: Runtime) -> Iterator[loop.Batch]:
    """This process's rows of the toy data; only the first row has all its targets, and step 4 only those of one row."""
    for step in range(STEPS):
        draws = torch.Generator().manual_seed(key("toy", step))
        ids = (torch.randint(31, (ROWS, 1), generator=draws) + torch.arange(TOKENS + 1)) % 31
        targets = ids[:, 1:].clone()
        targets[1:, 5:] = IGNORE
        if step == 4:
            targets[1::2] = IGNORE  # the second process has nothing to learn
        mine = slice(runtime.rank, None, runtime.world)
        yield loop.Batch(ids[mine, :-1], targets[mine], torch.ones(ROWS, TOKENS)[mine], {})


def losses(runtime: Runtime, ranks: loop.Ranks) -> list[float]:
    """What each step reports."""
    model = GPT(GPTConfig(31, 1, 2, 1, 16, TOKENS), torch.float64).double()
    model.init_weights(0)
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.01, dtype=torch.float64)
    optimizer = ranks.wrap(model, optimizer, runtime.device)
    return [s.loss for s in loop.train(model, optimizer, stream(runtime), lambda _: 1.0, steps=STEPS, ranks=ranks)]


class OwnGradients(distributed.Replicated):
    """Sums counts and losses, and forgets the gradients."""

    def nll(self, model: GPT, batch: loop.Batch, last: bool) -> torch.Tensor:
        return super().nll(model, batch, last=False)


class OwnTargets(distributed.Replicated):
    """Divides by the targets of this process, and takes the mean of the means."""

    def total(self, values: list[float]) -> list[float]:
        if len(values) != 3:
            return super().total(values)
        learned, weight, tokens = values
        return [2 * learned, *super().total([weight, tokens])]


def in_two() -> dict[str, list[float]]:
    """Losses of the two processes by kind, as the first of them sees them."""
    runtime = detect("cpu", "float64", threads=1)
    with distributed.joined(runtime):
        return {
            "ddp": losses(runtime, distributed.Replicated(runtime)),
            "zero": losses(runtime, distributed.Cut(runtime, frees=False)),
            "fsdp": losses(runtime, distributed.Cut(runtime, frees=True)),
            "gradients not summed": losses(runtime, OwnGradients(runtime)),
            "a mean of means": losses(runtime, OwnTargets(runtime)),
        }


def main() -> None:
    """Run alone, then start two of ourselves, and compare."""
    if "RANK" in os.environ:
        found = in_two()
        if os.environ["RANK"] == "0":
            print(json.dumps(found))
        return
    one = losses(Runtime(torch.device("cpu"), torch.float64), loop.Alone())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ours = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    both = [
        subprocess.Popen(command, env={**os.environ, **ours, "RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    output, _ = (process.communicate(timeout=120)[0] for process in both)
    for name, two in json.loads(output.splitlines()[-1]).items():
        apart = max(abs(a - b) for a, b in zip(one, two, strict=True))
        print(f"{name:22} {'the same to 1e-9' if apart < 1e-9 else f'apart by {apart:.2f} nats'}")


if __name__ == "__main__":
    main()
