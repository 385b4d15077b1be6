"""The command line as a user meets it: exit codes, one-line errors, and a whole run of the tiny preset."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanochat.checkpoint import newest
from nanochat.cli import main
from nanochat.data.sources import COOKBOOK
from tests.oracles.wheels import wheel

ROOT = Path(__file__).parent.parent


def nanochat(*words: str, home: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NANOCHAT_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    command = [sys.executable, "-m", "nanochat", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )


def test_without_words_it_lists_its_verbs(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in ("run", "tokenizer", "pretrain", "midtrain", "sft", "rl", "chat", "plan"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["dance"], 2, "expected a verb; got 'dance'"),
        (["plan", "--preset", "huge"], 2, "tiny, laptop"),
        (["plan", "--depth", "0"], 2, "at least 1"),
        (["pretrain", "--run", "none"], 1, "python -m nanochat tokenizer"),
        (["plan", "--device", "tpu"], 1, "cpu"),
        (["plan", "--dtype", "float16"], 2, "bfloat16"),
        (["pretrain", "--steps", "-3"], 2, "0 or more for --steps"),
        (["midtrain", "--rows", "0"], 2, "1 or more for --rows"),
        (["sft", "--base", "sft"], 2, "--base before sft"),
        (["chat", "--run", "none"], 1, "make one: python -m nanochat run"),
        (["chat", "--run", "../etc"], 2, "letters, digits"),
        (["eval", "--run", "none"], 1, "make one"),
        (["tokenizer", "--run", "x", "--sources", "no/such/folder"], 1, "no/such/folder"),
        (["report", "--run", "none"], 1, "none"),
    ],
)
def test_bad_input_is_one_line(words, code, said, capsys):
    assert main(words) == code
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert said in err[0]
    assert "Traceback" not in err[0]


def test_an_unknown_flag_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as left:
        main(["pretrain", "--stepz", "3"])
    assert left.value.code == 2
    assert "--steps" in capsys.readouterr().err


def test_debug_shows_where_an_error_comes_from(capsys):
    assert main(["chat", "--run", "none", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_ends_a_stage_with_130_also_before_it_listens(capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("nanochat.cli.entry", lambda verb: lambda words: signal.raise_signal(signal.SIGTERM))
    assert main(["pretrain"]) == 130
    assert capsys.readouterr().err.strip() == "nanochat pretrain: interrupted"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_plan_as_json_is_one_object_and_nothing_else(capsys):
    assert main(["plan", "--depth", "2", "--machine", "h100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters_total"] == sum(found["parameters"].values())
    assert found["seconds"] > 0


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, capsys, monkeypatch):
    """A folder that cannot be written to stands for a full disk: both come as OSError."""
    from nanochat.stages import tokenizer

    def full(*more: object, **others: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "open_stage", full)
    text = tmp_path / "text.txt"
    text.write_text("Some text to read. " * 50)
    assert main(["tokenizer", "--run", "full", "--sources", str(text)]) == 1
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    assert "No space left" in err
    assert "free some space" in err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A home with a finished run of the tiny preset, interrupted on the way."""
    home = tmp_path_factory.mktemp("tiny_home")
    (home / "sources").mkdir()
    shutil.copy(wheel(COOKBOOK.location, COOKBOOK.revision, COOKBOOK.sha256), home / "sources" / COOKBOOK.file)
    environment = {**os.environ, "NANOCHAT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nanochat", "run", "--preset", "tiny"]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    metrics = home / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") > 20):
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert "the same command goes on from there" in err
    second = nanochat("run", "--preset", "tiny", home=home)
    assert second.returncode == 0, second.stderr
    assert "resuming pretrain" in second.stderr
    return home


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTiny:
    def test_every_stage_is_finished_and_learned(self, tiny):
        rows = [json.loads(line) for line in (tiny / "tiny/metrics.jsonl").read_text().splitlines()]
        for stage in ("pretrain", "midtrain", "sft"):
            losses = [row["loss"] for row in rows if row["stage"] == stage and "loss" in row]
            steps = [row["step"] for row in rows if row["stage"] == stage and "loss" in row]
            assert steps == list(range(len(steps))), "no gaps, no repeats"
            assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
        assert any("reward" in row for row in rows if row["stage"] == "rl")

    def test_the_base_beats_what_knows_nothing_of_language(self, tiny):
        figures = {f["name"]: f["value"] for f in json.loads((tiny / "tiny/pretrain/figures.json").read_text())}
        assert figures["bpb_recipes"] < figures["bpb_recipes_xz"] < 8

    def test_it_answers_differently_and_stops(self, tiny):
        """Straight from the weights: two questions, two answers, each ended by the model itself."""
        answers = []
        for question in ("Hello!", "What is 12 plus 30?"):
            done = nanochat("chat", "--run", "tiny", "-p", question, "--json", "--temperature", "0", home=tiny)
            assert done.returncode == 0, done.stderr
            answers.append(json.loads(done.stdout))
        assert all(answer["finish"] == "stop" and answer["reply"].strip() for answer in answers)
        assert answers[0]["reply"] != answers[1]["reply"]
        assert any(call["tool"] == "calculator" for call in answers[1]["tool_calls"])

    def test_without_a_terminal_the_chat_answers_three_questions(self, tiny):
        done = nanochat("chat", "--preset", "tiny", "--seed", "1", home=tiny)
        assert done.returncode == 0, done.stderr
        answers = [answer.partition("\n")[2].strip() for answer in done.stdout.split("› ")[1:]]
        assert len(answers) == 3
        assert all(answers)
        # Drawn at a temperature, from weights that differ in their last bits between processors: one may ramble.
        ended = [answer for answer in answers if not re.search(r"\((?:cut|ended|an empty)", answer)]
        assert len(set(ended)) >= 2, done.stdout

    def test_a_second_run_does_no_work(self, tiny):
        before = newest(tiny / "tiny/rl").state
        done = nanochat("run", "--preset", "tiny", home=tiny)
        assert done.returncode == 0
        assert done.stderr.count("nothing has changed") == 5
        assert newest(tiny / "tiny/rl").state == before

    def test_the_report_card_is_whole(self, tiny):
        card = json.loads((tiny / "tiny/report.json").read_text())
        stages = {figure["stage"] for figure in card["figures"]}
        assert stages == {"pretrain", "midtrain", "sft", "rl"}
        assert {
            "minutes",
            "reference_minutes",
            "peak_memory_gb",
            "commit",
            "versions",
            "machine",
            "seed",
        } <= card.keys()
        page = (tiny / "tiny/report.html").read_text()
        assert "CC BY-SA" in page
        assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css|png)', page)
        assert "CC BY-SA" in (tiny / "tiny/report.md").read_text()
