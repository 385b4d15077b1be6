"""Command lines from dataclasses, and JSON in and out."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from nanochat.config import dumps, from_json, parse, to_json
from nanochat.errors import UsageError
from nanochat.gpt import GPTConfig


@dataclass(frozen=True)
class Toy:
    """A toy."""

    preset: str = "small"
    steps: int = 10
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    model: GPTConfig | None = None


PRESETS = {"small": {}, "large": {"steps": 100, "rate": 0.1}}


def test_a_preset_fills_the_fields_and_a_flag_beside_it_wins():
    assert parse(Toy, [], prog="toy", presets=PRESETS) == Toy()
    assert parse(Toy, ["--preset", "large"], prog="toy", presets=PRESETS) == Toy("large", 100, 0.1)
    assert parse(Toy, ["--steps", "7", "--preset=large"], prog="toy", presets=PRESETS) == Toy("large", 7, 0.1)


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match="small, large"):
        parse(Toy, ["--preset", "huge"], prog="toy", presets=PRESETS)


@pytest.mark.parametrize("argv", [["--stepz", "3"], ["--steps", "three"], ["stray"]])
def test_a_wrong_flag_leaves_with_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as left:
        parse(Toy, argv, prog="toy", presets=PRESETS)
    assert left.value.code == 2
    assert "toy" in capsys.readouterr().err


def test_help_shows_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        parse(Toy, ["--help"], prog="toy", presets=PRESETS)
    printed = capsys.readouterr().out
    assert left.value.code == 0
    assert "--steps" in printed
    assert "10" in printed


def test_json_gives_back_what_it_got():
    toy = Toy("large", 3, 1e-9, ("x", "y"), GPTConfig(n_embd=128, n_head=2, n_kv_head=1))
    assert from_json(Toy, json.loads(dumps(toy))) == toy
    assert to_json({"path": Path("a") / "b"}) == {"path": "a/b"}


def test_unknown_keys_are_named():
    with pytest.raises(UsageError, match="speed, width"):
        from_json(Toy, {"steps": 1, "width": 2, "speed": 3})
