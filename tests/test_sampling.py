"""Temperature and filters against their definitions and against transformers; draws against the probabilities."""

import dataclasses
import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat import keyed
from nanochat.errors import UsageError
from nanochat.sampling import (
    Sampling,
    distribution,
    draw,
    entropy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
)

numbers = st.lists(st.integers(-400, 400), min_size=1, max_size=12, unique=True).map(lambda row: [x / 40 for x in row])


def probabilities(logits: Sequence[float]) -> list[float]:
    """The softmax as one writes it down."""
    terms = [math.exp(x - max(logits)) for x in logits]
    return [term / sum(terms) for term in terms]


def plainly(logits: list[float], sampling: Sampling) -> list[float]:
    """The definition of `distribution`, token by token, on a row without ties."""
    if sampling.temperature == 0:
        return [float(x == max(logits)) for x in logits]
    kept = {number: x / sampling.temperature for number, x in enumerate(logits)}
    if sampling.top_k:
        kept = dict(sorted(kept.items(), key=lambda item: -item[1])[: sampling.top_k])
    if sampling.top_p < 1:
        ordered, reached, nucleus = sorted(kept.items(), key=lambda item: -item[1]), 0.0, {}
        for (number, x), p in zip(ordered, probabilities([x for _, x in ordered]), strict=True):
            if reached < sampling.top_p:
                nucleus[number] = x
            reached += p
        kept = nucleus
    if sampling.min_p:
        kept = {number: x for number, x in kept.items() if math.exp(x - max(kept.values())) >= sampling.min_p}
    shares = dict(zip(kept, probabilities(list(kept.values())), strict=True))
    return [shares.get(number, 0.0) for number in range(len(logits))]


@given(
    numbers,
    st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    st.sampled_from([0, 1, 2, 5, 100]),
    st.sampled_from([0.013, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.107, 0.77]),
)
def test_distribution_is_its_definition(logits: list[float], temperature: float, k: int, p: float, m: float) -> None:
    sampling = Sampling(temperature=temperature, top_k=k, top_p=p, min_p=m)
    found = distribution(torch.tensor([logits], dtype=torch.float64), sampling).exp()[0]
    torch.testing.assert_close(found, torch.tensor(plainly(logits, sampling), dtype=torch.float64))


def test_filters_are_those_of_transformers() -> None:
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    ids = torch.zeros(200, 1, dtype=torch.long)
    for filtered, processor in [
        (keep_top_k(logits, 7), processors.TopKLogitsWarper(7)),
        (keep_top_k(logits, 99), processors.TopKLogitsWarper(99)),
        (keep_top_p(logits, 0.83), processors.TopPLogitsWarper(0.83)),
        (keep_min_p(logits, 0.07), processors.MinPLogitsWarper(0.07)),
    ]:
        assert torch.equal(filtered, processor(ids, logits))


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-45, 1e-31, 1e-30, 1e-20])
def test_the_smallest_temperatures_take_the_likeliest_token(temperature: float) -> None:
    """Scores over such a number are infinite, or it is 0 in float32: nothing but NaN would be left."""
    logits = torch.tensor([[1.0, 14.9, -15.0, 14.0], [-3.0, 0.0, 0.0, -1.0]])
    for sampling in (Sampling(temperature), Sampling(temperature, top_k=3, top_p=0.5, min_p=0.1)):
        log_p = distribution(logits, sampling)
        assert not log_p.isnan().any()
        assert draw(log_p, torch.tensor([0.999999, 0.0])).tolist() == [1, 1]


def test_equal_scores_stay_together() -> None:
    """So a filter depends on the scores alone, and not on where in the vocabulary a token stands."""
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    for filtered in (keep_top_k(logits, 2), keep_top_p(logits, 0.6), keep_min_p(logits, 0.3)):
        assert filtered.isfinite().tolist() == [[True, True, True, False]]
    assert distribution(torch.tensor([[0.0, 1.0, 1.0]]), Sampling(temperature=0)).exp().tolist() == [[0, 1, 0]]


def test_something_is_always_left() -> None:
    logits = torch.tensor([[0.0] * 5, [9.0, 0.0, 0.0, 0.0, 0.0]])
    strictest = Sampling(temperature=1e-3, top_k=1, top_p=1e-9, min_p=1.0)
    assert distribution(logits, strictest).exp().sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.7, top_k=9, top_p=0.95, min_p=0.02)])
def test_draws_come_as_often_as_they_should(sampling: Sampling) -> None:
    """Pearson's chi-square over 40,000 draws, each from a stream of its own as the engine has it."""
    logits = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.5
    log_p = distribution(logits[None], sampling)
    count = 40_000
    uniforms = torch.tensor([keyed.rng(5, "sample", row).random() for row in range(count)], dtype=torch.float64)
    seen = draw(log_p.expand(count, -1), uniforms).bincount(minlength=12)
    expected = log_p[0].exp() * count
    possible = expected > 0
    assert seen[~possible].sum() == 0
    statistic = ((seen - expected)[possible] ** 2 / expected[possible]).sum().item()
    assert statistic < chi_square_quantile(int(possible.sum()) - 1)


def chi_square_quantile(freedom: int) -> float:
    """The value that chance exceeds once in a thousand (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1 - 2**-53]), st.sampled_from(["32", "64"]))
def test_impossible_tokens_are_never_drawn(seed: int, uniform: float, bits: str) -> None:
    """Not even where the number falls on a border or rounds up to the total."""
    rng = random.Random(seed)
    logits = torch.tensor([rng.gauss(0, 5) if rng.random() < 0.5 else -math.inf for _ in range(40)] + [0.0, -math.inf])
    log_p = logits.to(getattr(torch, f"float{bits}")).log_softmax(dim=-1)[None]
    (token,) = draw(log_p, torch.tensor([uniform], dtype=torch.float64)).tolist()
    assert log_p[0, token].isfinite()


def test_a_number_that_rounds_to_the_total_draws_the_last_possible_token() -> None:
    log_p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    assert draw(log_p, torch.ones(1, dtype=torch.float64)).tolist() == [1]


def test_draw_takes_the_token_whose_share_holds_the_number() -> None:
    log_p = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64).log().expand(6, -1)
    uniforms = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 0.999], dtype=torch.float64)
    assert draw(log_p, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


def test_entropy_of_certainty_and_of_ignorance() -> None:
    rows = torch.stack((torch.zeros(8), torch.tensor([0.0] + [-math.inf] * 7))).log_softmax(dim=-1)
    assert entropy(rows).tolist() == pytest.approx([math.log(8), 0.0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("max_tokens", 0),
        ("stop", ("end", "")),
        ("stop", "end"),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        dataclasses.replace(Sampling(), **{field: value})
