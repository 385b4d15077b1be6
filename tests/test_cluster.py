"""Plans of machines that are not at hand, by hand; and the launch files, dry."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.cli import main
from nanochat.cluster import GPUS, MFU, estimate, process_bytes, sent_bytes
from nanochat.config import parse
from nanochat.plan import plan
from nanochat.stages.evaluate import EvaluateConfig
from nanochat.stages.finetune import FinetuneConfig
from nanochat.stages.pretrain import PretrainConfig
from nanochat.stages.reinforce import ReinforceConfig
from nanochat.stages.tokenizer import TokenizerConfig

ROOT = Path(__file__).parent.parent
LARGE = {"vocab_size": 65_536, "context": 2048, "kv_heads": 0}
CONFIGS = {
    "tokenizer": TokenizerConfig, "pretrain": PretrainConfig, "midtrain": FinetuneConfig, "sft": FinetuneConfig,
    "rl": ReinforceConfig, "eval": EvaluateConfig,
}  # fmt: skip


def test_what_is_sent_is_counted_by_hand():
    """Depth 20: 393,216,000 numbers in matrices, 167,772,160 in tables; on four processes."""
    model = plan(20, **LARGE).model
    matrices, tables = 393_216_000, 167_772_160
    assert sent_bytes(model, 4, "ddp") == 2 * 3 / 4 * 4 * (matrices + tables)
    exchange = 2 * 3 / 4 * 4 * matrices / 4
    gathered, scattered = 2 * matrices + 4 * tables, 4 * (matrices + tables)
    assert sent_bytes(model, 4, "zero", accumulate=8) == 3 / 4 * (gathered + scattered) + exchange
    twice = 2 * 2 * matrices + 4 * tables
    assert sent_bytes(model, 4, "fsdp", accumulate=8) == 8 * 3 / 4 * (twice + scattered) + exchange
    # The default sends less than plain data parallel: matrices travel in the format that they multiply in.
    assert sent_bytes(model, 64, "zero") < sent_bytes(model, 64, "ddp") < sent_bytes(model, 64, "fsdp")


def test_what_is_shared_out_needs_less_memory():
    for world in (8, 64):
        chosen = plan(32, **LARGE, world=world)
        held = [process_bytes(chosen, world, parallel) for parallel in ("ddp", "zero", "fsdp")]
        assert held == sorted(held, reverse=True)
        assert held[2] < 0.6 * held[0]
    assert process_bytes(plan(20, **LARGE), 1, "zero") == 1e9 * plan(20, **LARGE).memory_gb


def test_time_and_money_are_what_was_stated():
    chosen = plan(20, **LARGE, world=8)
    found = estimate(chosen, GPUS["h100"], 8, "zero", price=2.0)
    computing = chosen.flops / (MFU * 989e12 * 8)
    sending = chosen.steps * sent_bytes(chosen.model, 8, "zero") / 450e9
    assert found.seconds == pytest.approx(computing + sending)
    assert found.dollars == pytest.approx(2.0 * 8 * found.seconds / 3600)
    # Beyond one machine, the slower link.
    more = estimate(plan(20, **LARGE, world=16), GPUS["h100"], 16, "zero")
    assert more.sending_seconds > 8 * found.sending_seconds


@pytest.mark.parametrize("flags", [["--device", "h100"], ["--device=h100"], ["--machine", "h100"]])
def test_the_plan_of_a_cluster_is_printed(flags, capsys):
    assert main(["plan", "--world", "64", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["world"] == 64
    assert found["dollars"] > 0
    assert found["sent_gb_per_step"] > 0
    assert "not run" in found["speed_source"]
    assert main(["plan", "--world", "64", *flags]) == 0
    told = capsys.readouterr().out
    assert all(row in told for row in ("memory", "messages", "time", "cost", "not run"))


def test_a_model_that_does_not_fit_is_told(capsys):
    assert main(["plan", "--world", "8", "--device", "a100", "--depth", "80", "--parallel", "ddp"]) == 0
    assert "--parallel fsdp" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["eight_gpus", "slurm"])
def test_a_launch_file_says_what_it_would_run_and_every_flag_of_it_is_known(name, tmp_path):
    """Without Slurm, without torchrun: nothing is started, and the plan comes first."""
    environment = {**os.environ, "PYTHON": sys.executable, "NANOCHAT_HOME": str(tmp_path), "DEPTH": "4"}
    done = subprocess.run(
        ["bash", f"runs/cluster/{name}.sh", "--dry-run"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cost" in done.stdout
    commands = [shlex.split(line.removeprefix("+ ")) for line in done.stderr.splitlines() if line.startswith("+ ")]
    verbs = []
    for command in commands:
        verb, *flags = command[command.index("nanochat") + 1 :]
        verbs.append(verb)
        if verb in CONFIGS:
            parse(CONFIGS[verb], flags, prog=verb)
    assert verbs == ["tokenizer", "pretrain", "eval", "midtrain", "sft", "rl", "eval", "report"]
    assert list(tmp_path.iterdir()) == []
    assert "NOT RUN ON GPUs BY US" in (ROOT / f"runs/cluster/{name}.sh").read_text()
