"""Figures and their intervals: against published tables, against resampling, and by how often they cover the truth."""

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.errors import DataError, UsageError
from nanochat.evaluate.figures import Figure, load_figures, mean, proportion, ratio, save_figures, student, wilson


@pytest.mark.parametrize(
    ("freedom", "expected"),
    # Two-sided 5 % points as tables of Student's t print them.
    [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (1000, 1.962)],
)
def test_student_agrees_with_the_tables(freedom: int, expected: float) -> None:
    assert student(freedom) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_published_examples(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes / n, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_a_proportion_lies_within_its_interval_and_that_within_0_and_1(n: int, share: float) -> None:
    figure = proportion("sft", "accuracy", round(share * n), n)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.has_interval


def test_nothing_to_evaluate_is_a_users_mistake() -> None:
    with pytest.raises(UsageError, match="at least one example"):
        proportion("sft", "accuracy", 0, 0)
    with pytest.raises(DataError, match="hold text"):
        ratio("pretrain", "bpb", [0.0, 0.0], [0, 0], "bits/byte")


def test_mean_of_five_by_hand() -> None:
    # 1 2 3 4 5: mean 3, standard deviation sqrt(2.5), t(4) = 2.776.
    figure = mean("sft", "length", [1, 2, 3, 4, 5], "tokens")
    assert figure.value == 3
    assert figure.high - 3 == pytest.approx(2.7764 * math.sqrt(2.5 / 5), abs=1e-3)
    assert figure.n == 5


def test_equal_scores_do_not_pretend_to_be_certain() -> None:
    perfect = mean("sft", "f1", [1.0] * 10, "share", bounds=(0, 1))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(wilson(1.0, 10)[0])
    assert mean("sft", "f1", [0.5, 1.0, 1.0], "share", bounds=(0, 1)).high == 1.0
    assert not mean("sft", "length", [7.0] * 3, "tokens").has_interval


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    draws = random.Random(0)
    rounds, hits = 1000, {"proportion": 0, "mean": 0, "ratio": 0}
    for _ in range(rounds):
        share = proportion("", "", sum(draws.random() < 0.8 for _ in range(40)), 40)
        hits["proportion"] += share.low <= 0.8 <= share.high
        centre = mean("", "", [draws.gauss(2, 3) for _ in range(8)], "")
        hits["mean"] += centre.low <= 2 <= centre.high
        # Documents of 100 to 1,000 bytes, each with a rate of its own around 1.5 bits.
        sizes = [draws.randint(100, 1000) for _ in range(60)]
        rate = ratio("", "", [size * draws.gauss(1.5, 0.3) for size in sizes], sizes, "")
        hits["ratio"] += rate.low <= 1.5 <= rate.high
    assert all(0.93 <= count / rounds <= 0.97 for count in hits.values()), hits


def test_ratio_agrees_with_resampling_documents() -> None:
    draws = random.Random(1)
    sizes = [draws.randint(50, 3000) for _ in range(200)]
    bits = [size * draws.gauss(1.5, 0.2) + 200 for size in sizes]
    figure = ratio("pretrain", "bpb", bits, sizes, "bits/byte")
    assert figure.value == pytest.approx(sum(bits) / sum(sizes))
    resampled = []
    for _ in range(2000):
        chosen = draws.choices(range(200), k=200)
        resampled.append(sum(bits[i] for i in chosen) / sum(sizes[i] for i in chosen))
    resampled.sort()
    width = resampled[1950] - resampled[50]
    assert figure.high - figure.low == pytest.approx(width, rel=0.12)
    assert figure.low == pytest.approx(resampled[50], abs=0.15 * width)


def test_figures_survive_the_way_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sft" / "figures.json"
    first = [proportion("sft", "accuracy", 3, 4), Figure("sft", "bpb", math.nan, math.nan, math.inf, 2, "bits/byte")]
    save_figures(path, first)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    loaded = load_figures(path)
    assert loaded[0] == first[0]
    assert math.isnan(loaded[1].value)
    assert not loaded[1].has_interval


def test_a_figure_measured_again_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    save_figures(path, [proportion("sft", "accuracy", 3, 4), proportion("sft", "stop_rate", 4, 4)])
    save_figures(path, [proportion("sft", "accuracy", 1, 4), proportion("rl", "accuracy", 2, 4)])
    assert {(f.stage, f.name): f.value for f in load_figures(path)} == {
        ("sft", "accuracy"): 0.25, ("sft", "stop_rate"): 1.0, ("rl", "accuracy"): 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "[{", '{"a": 1}', "[1]", '[{"stage": "sft"}]', '[{"unknown": 1}]'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "figures.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"figures\.json"):
        load_figures(path)
