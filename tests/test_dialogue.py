"""Conversations with a model, turn by turn, from a file of what a person says."""

import json

import pytest

from nanochat.engine import Engine
from nanochat.errors import DataError
from nanochat.evaluate.dialogue import Script, as_samples, converse, read_scripts
from tests.scripted import END, TOKENIZER, answering
from tests.test_engine import runtime


def script_of(text: str) -> list[int]:
    return [*TOKENIZER.encode(text), END]


ENGINE = Engine(answering({"Hi": script_of("Hello!"), "Bye": script_of("See you.")}, 120), TOKENIZER, runtime())


def test_each_turn_is_answered() -> None:
    said = converse(ENGINE, Script("a", ("Hi", "Bye")))
    assert [(turn.role, turn.text) for turn in said] == [
        ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye"), ("assistant", "See you."),
    ]  # fmt: skip


def test_what_is_oldest_is_left_out_where_the_context_is_full() -> None:
    said = converse(ENGINE, Script("a", ("Hi", "Bye") * 6))
    assert [turn.text for turn in said[1::2]] == ["Hello!", "See you."] * 6


def test_one_turn_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="turns that fit"):
        converse(ENGINE, Script("a", ("Hi" * 100,)))


def test_scripts_come_from_lines_of_json(tmp_path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text('{"id": "00", "turns": ["Hi"]}\n\n{"id": 7, "turns": ["Hi", "Bye"]}\n')
    scripts = read_scripts(path)
    assert scripts == [Script("00", ("Hi",)), Script("7", ("Hi", "Bye"))]
    samples = as_samples(scripts, [converse(ENGINE, script) for script in scripts])
    assert [sample["name"] for sample in samples] == ["00", "7"]
    assert json.loads(json.dumps(samples))[1]["messages"][3] == {"role": "assistant", "content": "See you."}


@pytest.mark.parametrize("text", ["{", '{"id": 1}', "[1]", '{"turns": ["x"]}'])
def test_other_files_are_refused_in_one_line(tmp_path, text) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="write one JSON object a line"):
        read_scripts(path)
