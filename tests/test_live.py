"""A run as the page shows it: whole, half written, and begun anew."""

import json
from pathlib import Path

import pytest

from nanochat.checkpoint import run_folder
from nanochat.serve import live
from tests.fake_run import NASTY, fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "fake")


def test_stages_tell_how_far_they_are_and_what_they_said(run: Path) -> None:
    found = live.stages(run)
    assert [stage["name"] for stage in found] == ["pretrain", "midtrain", "sft", "rl"]
    assert [stage["steps"] for stage in found] == [700, 500, 400, 60]
    assert all(stage["finished"] and not stage["speaks"] and stage["checkpoint"] is None for stage in found)
    assert len(found[0]["lapse"]) == 14
    questions = [one["question"] for one in found[1]["recorded"]]
    assert questions[0] == "2 cups of flour serve 4. How much for 10 people?"
    assert found[1]["recorded"][0]["answer"] == [
        {"type": "call", "text": "calculator 2/4*10"},
        {"type": "output", "text": "5"},
        {"type": "text", "text": "You need 5 cups of flour."},
    ]
    assert questions[2] == NASTY
    json.dumps(found)


def test_the_shipped_run_speaks_at_its_first_and_last_stage() -> None:
    found = {stage["name"]: stage for stage in live.stages(run_folder("reference"))}
    assert [name for name, stage in found.items() if stage["speaks"]] == ["pretrain", "rl"]
    assert found["rl"]["checkpoint"] == 25


def test_a_stage_that_has_only_begun_is_shown(tmp_path: Path) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "started.json").write_text('{"config": {"steps": 9}}')
    assert [(s["name"], s["finished"], s["steps"]) for s in live.stages(tmp_path)] == [("pretrain", False, 9)]


def test_curves_come_whole_and_then_what_is_new(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert live.training(tmp_path) == {"anew": True, "next": 0, "rows": {}}
    line = '{"stage": "sft", "step": %d, "loss": 1.5, "secret": 1}\n'
    metrics.write_text(line % 0 + line % 1 + line[:20])
    first = live.training(tmp_path)
    assert first["rows"] == {"sft": [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 1.5}]}
    with metrics.open("a") as file:
        file.write((line % 2)[20:] + "no json\n" + '{"stage": 3}\n')
    second = live.training(tmp_path, first["next"])
    assert (second["anew"], second["rows"]) == (False, {"sft": [{"step": 2, "loss": 1.5}]})
    assert live.training(tmp_path, second["next"]) == {"anew": False, "next": metrics.stat().st_size, "rows": {}}


def test_a_stage_that_is_run_again_takes_its_lines_back(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"stage": "sft", "step": 1, "loss": 2}\n' * 3)
    before = live.training(tmp_path)["next"]
    metrics.write_text('{"stage": "sft", "step": 0, "loss": 3}\n')
    again = live.training(tmp_path, before)
    assert again["anew"]
    assert again["rows"] == {"sft": [{"step": 0, "loss": 3}]}


def test_a_long_run_is_thinned_but_for_what_was_measured() -> None:
    rows = [{"step": step, "loss": 1.0} for step in range(5000)]
    rows.insert(2001, {"step": 2000, "val_bpb": 1.2})
    kept = live.thinned(rows)
    assert len(kept) <= live.MOST_POINTS + 2
    assert rows[2001] in kept
    assert kept[0] == rows[0]
    assert kept[-1] == rows[-1]


def test_of_a_huge_file_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_BYTES", 100)
    lines = [f'{{"stage": "rl", "step": {step}, "loss": 1}}\n' for step in range(50)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    found = live.training(tmp_path)
    assert [row["step"] for row in found["rows"]["rl"]] == [48, 49]
    assert found["next"] == sum(map(len, lines))
