"""What the original guide's chapter 05 gets wrong, and the right values."""

import math

import pytest
import torch

from nanochat.attention import attend, attend_plainly
from nanochat.gpt import GPT, GPTConfig

TWO = math.sqrt(4) * math.log(2)  # one more in a product doubles the weight, in a head of four features


def weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """What `attend_plainly` weighs the values with: values that say which token they are of. As many tokens as D."""
    return attend_plainly(q, k, torch.eye(q.shape[2], dtype=q.dtype).expand(*k.shape[:2], -1, -1))


def small(kv_heads: int = 4, softcap: float = 15.0) -> GPT:
    config = GPTConfig(vocab_size=32, n_layer=2, n_head=4, n_kv_head=kv_heads, n_embd=32, softcap=softcap)
    model = GPT(config, torch.float64)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws, dtype=torch.float64) * 0.3)
    return model


def test_rows_of_weights_sum_to_one_and_leave_the_future_alone() -> None:
    """The original's example has rows that sum to 0.2, and weights on later tokens."""
    q = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.float64)[None, None] * TWO
    k = torch.tensor([[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]], dtype=torch.float64)[None, None]
    found = weights(q, k)[0, 0]
    wanted = torch.tensor([[1, 0, 0, 0], [2 / 3, 1 / 3, 0, 0], [1 / 4, 1 / 2, 1 / 4, 0], [1 / 2, 1 / 4, 1 / 8, 1 / 8]])
    assert torch.allclose(found, wanted.double())
    assert torch.allclose(found.sum(-1), torch.ones(4).double())
    assert not found.triu(diagonal=1).any()


@pytest.mark.parametrize("way", [attend, attend_plainly])
def test_a_later_token_moves_no_earlier_one(way) -> None:
    draws = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 4, generator=draws, dtype=torch.float64) for _ in range(3))
    before = way(q, k, v)
    for x in (q, k, v):
        x[:, :, 5] += 1
    moved = (way(q, k, v) - before).abs().amax((0, 1, 3))
    assert moved[:5].max() == 0
    assert moved[5:].min() > 1e-3


def test_as_many_key_heads_as_query_heads_is_not_multi_query() -> None:
    """The original calls one key head for each query head "1:1 MQA". MQA has one in all, and a quarter of the cache."""
    sizes = {}
    for kv_heads in (4, 1):
        model = small(kv_heads)
        assert model.blocks[0].attention.key.weight.shape == (8 * kv_heads, 32)
        cache = model.empty_cache(batch=1, capacity=64)
        sizes[kv_heads] = cache.keys.nbytes + cache.values.nbytes
        assert sizes[kv_heads] == 2 * 2 * kv_heads * 8 * 64 * 8
    assert sizes[4] == 4 * sizes[1]


def test_the_same_key_head_for_all_is_multi_query() -> None:
    draws = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 6, 4, generator=draws, dtype=torch.float64) for heads in (4, 1, 1))
    wanted = attend_plainly(q, k.expand(-1, 4, -1, -1), v.expand(-1, 4, -1, -1))
    assert (attend_plainly(q, k, v) - wanted).abs().max() < 1e-12


def test_a_cache_saves_between_a_half_and_a_third_of_n() -> None:
    """The original counts n times less work. Attention over the cache remains, and the ratio is n/2 to n/3."""
    n = 512

    def ratio(matrices: float, attention: float) -> float:
        """Operations for n tokens: all anew for each, over one row for each."""
        anew = sum(2 * matrices * t + 4 * attention * t * (t + 1) / 2 for t in range(1, n + 1))
        cached = sum(2 * matrices + 4 * attention * t for t in range(1, n + 1))
        return anew / cached

    assert ratio(matrices=1, attention=0) == pytest.approx((n + 1) / 2)
    assert ratio(matrices=0, attention=1) == pytest.approx((n + 2) / 3)
    # The reference model: 3.77 million parameters in matrices, 4 layers x 256.
    assert n / 3 < ratio(matrices=3_768_320, attention=4 * 256) < n / 2


def test_attention_over_a_cache_still_reads_every_slot() -> None:
    """Zero out one old slot: the newest token's result changes. So a step costs in proportion to what is held."""
    model, ids = small(), torch.arange(20)[None]
    with torch.no_grad():
        cache = model.empty_cache(batch=1, capacity=32)
        model.features(ids, cache)
        other = cache.select(torch.tensor([0]))
        other.keys[:, :, :, 3] = 0
        moved = model.features(ids[:, :1], other) - model.features(ids[:, :1], cache)
    assert moved.abs().max() > 1e-6


def test_the_soft_cap_does_nothing_to_attention(monkeypatch) -> None:
    """The original offers it as a cure for attention sinks. It acts on logits of words, behind the last layer."""
    found: dict[float, list[torch.Tensor]] = {15.0: [], 1e9: []}
    for softcap, maps in found.items():

        def spy(q, k, v, cache=None, maps=maps):
            maps.append(weights(q, k))
            return attend_plainly(q, k, v)

        monkeypatch.setattr("nanochat.gpt.attend", spy)
        with torch.no_grad():
            small(softcap=softcap)(torch.arange(8)[None])
    assert len(found[15.0]) == 2
    assert all(torch.equal(capped, free) for capped, free in zip(found[15.0], found[1e9], strict=True))


def test_a_slot_for_nothing_lets_a_head_say_no() -> None:
    """Eight scores of -3: a softmax still hands out all of its weight, with a slot of score and value 0 about 0.28."""
    scores = torch.full((8,), -3.0, dtype=torch.float64)
    assert scores.softmax(0).sum() == pytest.approx(1)
    with_slot = torch.cat((scores, torch.zeros(1, dtype=torch.float64))).softmax(0)[:-1].sum()
    assert with_slot == pytest.approx(8 * math.exp(-3) / (1 + 8 * math.exp(-3)))
    assert with_slot == pytest.approx(0.285, abs=1e-3)
