"""Two processes make the steps of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import json, sys
import torch
from nanochat.distributed import joined
from nanochat.runtime import detect
from nanochat.train import Batch, train
from tests.test_train import batches, parts

runtime = detect("cpu", "float64", threads=1)

def share(stream):
    for batch in stream:
        mine = slice(runtime.rank, None, runtime.world)
        # Uneven shares of targets: a mean of means would differ.
        batch.targets[0, 3:] = -1
        yield Batch(batch.inputs[mine], batch.targets[mine], batch.weights[mine], batch.cursor)

with joined(runtime) as ranks:
    model, optimizer = parts()
    losses = [s.loss for s in train(model, optimizer, share(batches()), lambda _: 1.0, steps=10, ranks=ranks)]
    if runtime.is_main:
        print(json.dumps({"losses": losses, "weights": [w.sum().item() for w in model.parameters()]}))
"""


def run(world: int) -> dict:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", WORKER]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29611",
    }
    processes = [
        subprocess.Popen(
            command, cwd=root, env={**environment, "RANK": str(rank), "WORLD_SIZE": str(world)}, stdout=subprocess.PIPE
        )
        for rank in range(world)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world
    return json.loads(outputs[0].splitlines()[-1])


@pytest.mark.slow
def test_two_processes_are_one():
    one, two = run(1), run(2)
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-9)
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-8)
