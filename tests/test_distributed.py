"""Two processes make the steps of one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.data.sources import COOKBOOK
from tests.oracles.wheels import wheel

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


CHAIN = [
    ["tokenizer", "--sources", "TEXTS", "--vocab-size", "300"],
    ["pretrain", "--depth", "1", "--context", "192", "--tokens-per-step", "768", "--steps", "4", "--eval-every", "2"],
    ["midtrain", "--steps", "3", "--rows", "4", "--mixture", "tiny"],
    ["sft", "--steps", "3", "--rows", "4", "--mixture", "tiny"],
    ["rl", "--steps", "2", "--prompts", "4", "--samples", "2", "--rows", "4", "--max-tokens", "6", "--mixture", "tiny"],
]


def stages(home: Path, world: int) -> dict[str, list[float]]:
    """Losses by stage of a run of five stages in `world` processes, in float64."""
    root = Path(__file__).parent.parent
    home.mkdir()
    (home / "sources").mkdir()
    shutil.copy(wheel(COOKBOOK.location, COOKBOOK.revision, COOKBOOK.sha256), home / "sources" / COOKBOOK.file)
    texts = home / "dishes.txt"
    texts.mkdir()
    for number in range(30):
        (texts / f"dish {number}.txt").write_text(f"Dish {number}: take {number} eggs and bake them with flour. " * 8)
    environment = {**os.environ, "PYTHONPATH": str(root), "NANOCHAT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    # torchrun reads words that start like an option of its own (--run-path) as that option, unless `--` stands before.
    launch = [sys.executable, "-m"]
    if world > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={world}", "-m", "--"]
    for words in CHAIN:
        words = [str(texts) if word == "TEXTS" else word for word in words]
        command = [*launch, "nanochat", *words, "--run", "toy", "--dtype", "float64"]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (home / "toy" / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, list[float]] = {}
    for row in rows:
        if "loss" in row:
            found.setdefault(row["stage"], []).append(row["loss"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_stage_under_torchrun_is_the_stage_of_one_process(tmp_path):
    one, two = stages(tmp_path / "one", 1), stages(tmp_path / "two", 2)
    assert one.keys() == two.keys() == {"pretrain", "midtrain", "sft", "rl"}
    for stage in one:
        assert two[stage] == pytest.approx(one[stage], abs=1e-9), stage


RUN = """
import sys
from nanochat.distributed import joined
from nanochat.runtime import detect
runtime = detect("cpu", "float32", threads=1)
with joined(runtime) as outer:
    for _ in range(3):
        with joined(runtime) as ranks:
            assert ranks.total([1.0]) == [2.0]
"""


@pytest.mark.slow
def test_stages_of_one_run_share_a_connection(tmp_path):
    """Under torchrun a second connection would find the first one's addresses, and fail."""
    script = tmp_path / "joins.py"
    script.write_text(RUN)
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
