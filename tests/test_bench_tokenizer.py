"""The tokenizer's benchmark: that it measures what it says. How fast anything is, no test asks."""

import json
from pathlib import Path

import pytest

from nanochat.bench import main
from nanochat.bench.corpus import bench_texts, strings, without_repeats
from nanochat.bench.measure import in_turn, ratios, table
from nanochat.errors import DataError, UsageError
from tests.oracles import texts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A little over a megabyte of text."""
    corpus = [text.replace("\n\n", f"\n\n{number} ") for number in range(2) for text in texts.english()]
    rows = [json.dumps({"text": text}) for text in [*corpus, "\n".join(texts.mixed(2000))]]
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.mark.slow
def test_both_sides_are_measured_and_agree(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("rustbpe", "tiktoken", "fastokens"):
        pytest.importorskip(name)
    save = tmp_path / "record.json"
    size = ["--megabytes", "1", "--vocab-size", "600", "--rounds", "2", "--plain"]
    assert main(["tokenizer", "--sources", str(source), *size, "--save", str(save), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads(save.read_text())
    assert record["checks"] == {
        "same_merges_as_rustbpe": True,
        "same_merges_as_plain": True,
        "same_ids_as_tiktoken": True,
        "same_ids_as_plain": True,
    }
    assert record["text"]["bytes"] >= 1e6
    sides = [row["side"] for row in record["measurements"]]
    encoders = ["tiktoken", "tiktoken, lists", "nanochat (fastokens)", "tiktoken", "nanochat (fastokens)"]
    assert sides == ["rustbpe", "nanochat", *encoders]
    assert all(len(row["seconds"]) == 2 for row in record["measurements"])
    for name in ("ratio_vs_rustbpe", "ratio_vs_tiktoken", "megabytes_per_second", "peak_memory_gb"):
        assert record[name] > 0
    learn, encode = record["measurements"][:2], record["measurements"][2:5]
    ratio = ratios(learn[1]["seconds"], learn[0]["seconds"])["median"]
    assert record["ratio_vs_rustbpe"] == pytest.approx(ratio, rel=1e-3)
    assert encode[0]["task"] == encode[2]["task"]
    assert len(table(record).splitlines()) == 2 + len(sides)


def test_what_cannot_be_measured_is_said_in_one_line(source: Path) -> None:
    with pytest.raises(UsageError, match="expected a benchmark; got 'nothing'"):
        main(["nothing"])
    with pytest.raises(UsageError, match="tasks out of learn, encode; got sing"):
        main(["tokenizer", "--tasks", "sing", "--sources", str(source)])
    with pytest.raises(DataError, match=r"expected 100 MB of text; got \d\.\d MB"):
        main(["tokenizer", "--sources", str(source)])


def test_sides_take_turns_and_the_yardstick_stands_between() -> None:
    calls: list[str] = []

    def side(name: str, seconds: float | None) -> float | None:
        calls.append(name)
        return seconds

    found = in_turn({"a": lambda: side("a", 2.0), "b": lambda: side("b", None)}, 3, beside=lambda: side("|", 1.0))
    assert "".join(calls) == "|a|b|b|a|a|b|"
    assert found["a"] == [2.0] * 3
    assert all(0 <= seconds < 1 for seconds in found["b"])
    assert len(found["beside"]) == 7


def test_no_paragraph_comes_twice(tmp_path: Path) -> None:
    one, two, three = ("x" * 300 + name for name in "abc")
    assert list(without_repeats([f"{one}\n\n{two}", f"{two}\n\n{three}\n\n{one}", one, "short"])) == [
        f"{one}\n\n{two}",
        three,
    ]
    assert list(strings({"a": ["no", one], "b": {"c": two, "d": 5}})) == [one, two]


def test_the_standard_text_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.bench.corpus.standard_texts", lambda: iter(["a" * 500_000, "b" * 600_000]))
    first = bench_texts(1)
    monkeypatch.setattr("nanochat.bench.corpus.standard_texts", lambda: iter([]))
    assert bench_texts(1) == first
