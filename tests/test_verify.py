"""`nanochat verify`: a whole run passes, a damaged or a different one does not."""

import json

import pytest

from nanochat.cli import main
from nanochat.stages.ship import ship
from nanochat.stages.verify import verify
from tests import test_stages as toy

root, easy = toy.root, toy.easy  # the fixtures: a home of its own, rewards that a model of a few steps earns


def found(root):
    return {found.stage: found for found in verify(root / "home/toy")}


def test_one_step_of_every_stage_comes_out_as_recorded(root, easy, capsys):
    toy.run_up_to(root, "none")
    before = sorted(path for path in (root / "home").rglob("*"))
    assert main(["verify", "toy", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["problems"]) == (True, [])
    stages = {one["stage"]: one for one in said["stages"]}
    assert list(stages) == ["tokenizer", "pretrain", "midtrain", "sft", "rl"]
    assert {name: one["checkpoints"] for name, one in stages.items() if name != "tokenizer"} == {
        "pretrain": [4, 6], "midtrain": [4, 6], "sft": [4, 6], "rl": [3, 4],
    }  # fmt: skip
    replays = {name: one["replay"] for name, one in stages.items() if name != "tokenizer"}
    assert {name: one["step"] for name, one in replays.items()} == {"pretrain": 4, "midtrain": 4, "sft": 4, "rl": 3}
    assert all(one["exact"] and one["loss"] == one["again"] for one in replays.values())
    assert sorted(path for path in (root / "home").rglob("*")) == before, "it leaves no trace"


def test_without_a_checkpoint_on_the_way_the_first_step_is_repeated(root):
    toy.prepare(toy.tokenizer_config(root))
    toy.pretrain(toy.replace(toy.PRETRAIN, save_every=0))
    toy.finetune("midtrain", toy.replace(toy.FINETUNE, save_every=0))
    stages = found(root)
    assert stages["pretrain"].replay["step"] == stages["midtrain"].replay["step"] == 0
    assert stages["pretrain"].replay["exact"]
    assert stages["midtrain"].replay["exact"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pretrain/step_000004/optimizer.safetensors", "as it was saved; got other bytes"),
        ("pretrain/step_000006/state.json", "as it was saved; got other words"),
        ("tokens/texts.train.npy", "sha256 is not the recorded one"),
        ("tokenizer/tokenizer.json", "not the tokenizer on record"),
    ],
)
def test_a_changed_file_is_named(root, capsys, name, said):
    toy.run_up_to(root, "midtrain")
    path = root / "home/toy" / name
    data = path.read_bytes()
    if name.endswith("state.json"):
        data = data.replace(b'"epoch": 0', b'"epoch": 3')
    elif name.endswith("tokenizer.json"):
        data = data.replace(b"<|python_start|>", b"<|pxthon_start|>") if b"<|python" in data else data[:-9]
    else:
        data = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]
    path.write_bytes(data)
    capsys.readouterr()
    assert main(["verify", "toy"]) == 1
    printed = capsys.readouterr()
    assert said in printed.err or "byte-level BPE" in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert name.split("/")[0] in printed.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [row for row in rows if row["step"] != 2], "steps of pretrain are missing"),
        (lambda rows: [*rows, rows[0]], "stand there twice"),
        (lambda rows: [row | {"loss": row["loss"] + 1e-9} if "loss" in row else row for row in rows], "when repeated"),
    ],
)
def test_metrics_that_cannot_be_true_are_noticed(root, change, said):
    toy.run_up_to(root, "midtrain")
    path = root / "home/toy/metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    problems = found(root)["pretrain"].problems
    assert len(problems) == 1
    assert said in problems[0]


def test_what_cannot_be_repeated_says_why(root, easy):
    toy.run_up_to(root, "sft")
    ship(root / "home/toy", root / "home/shipped")
    stages = {found.stage: found for found in verify(root / "home/shipped")}
    assert not [problem for found in stages.values() for problem in found.problems]
    assert "optimizer's state" in stages["midtrain"].note
    started = root / "home/toy/pretrain/started.json"
    started.write_text(json.dumps(json.loads(started.read_text()) | {"fingerprint": "of other inputs"}))
    assert "has changed since" in found(root)["pretrain"].note


def test_an_absent_run_is_one_line(root, capsys):
    assert main(["verify", "absent"]) == 1
    assert "a run at" in capsys.readouterr().err
