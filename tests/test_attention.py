"""The attention seam against attention written out, gradients included."""

import pytest
import torch

from nanochat.attention import BLOCK, KVCache, attend, attend_plainly, rotary_angles, rotate


def heads(count: int, seed: int, dtype: torch.dtype = torch.float64, tokens: int = 23) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, tokens, 8, generator=draws, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_the_seam_is_plain_attention(kv_heads, dtype, tolerance):
    q, k, v = heads(6, 0), heads(kv_heads, 1), heads(kv_heads, 2)
    fast = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    wanted, got = attend_plainly(q, k, v), attend(*fast)
    assert (wanted - got).abs().max() < tolerance
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted.backward(pull)
    got.backward(pull.to(dtype))
    for exact, rough in zip((q, k, v), fast, strict=True):
        assert (exact.grad - rough.grad).abs().max() < tolerance


@pytest.mark.parametrize("tokens", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 45])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_blocks_meet_without_a_seam(tokens, kv_heads):
    q, k, v = heads(3, 0, tokens=tokens), heads(kv_heads, 1, tokens=tokens), heads(kv_heads, 2, tokens=tokens)
    fast = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    wanted, got = attend_plainly(q, k, v), attend(*fast)
    assert (wanted - got).abs().max() < 1e-10
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted.backward(pull)
    got.backward(pull)
    for exact, other in zip((q, k, v), fast, strict=True):
        assert (exact.grad - other.grad).abs().max() < 1e-10


def test_no_gradient_comes_from_the_past_to_the_future():
    q, k, v = (heads(2, seed, tokens=2 * BLOCK) for seed in range(3))
    attend(q, k, v)[:, :, : BLOCK + 7].sum().backward()
    for x in (q, k, v):
        assert not x.grad[:, :, BLOCK + 7 :].any()
        assert x.grad[:, :, : BLOCK + 7].any()


def test_a_cache_knows_the_token_before_each():
    """Rows of different lengths, read in pieces; and what padding left behind is written over."""
    cache = KVCache(1, 2, 1, 8, 2, torch.device("cpu"), torch.float32)
    rows = torch.tensor([[11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 25, 26]])
    assert cache.previous(torch.tensor([[11, 12, 0], [21, 0, 0]]), cache.positions(3))[:, 1:].tolist() == [
        [11, 12],
        [21, 0],
    ]
    cache.lengths = torch.tensor([2, 1])
    assert cache.previous(torch.tensor([[13], [22]]), cache.positions(1)).tolist() == [[12], [21]]
    cache.lengths = cache.lengths + 1
    cache = cache.select(torch.tensor([1, 0, 1]))
    following = torch.stack([rows[1, 2:5], rows[0, 3:6], rows[1, 2:5]])
    assert cache.previous(following, cache.positions(3)).tolist() == [[22, 23, 24], [13, 14, 15], [22, 23, 24]]


def test_a_window_is_the_mask_that_it_says():
    q, k, v = heads(2, 0), heads(2, 1), heads(2, 2)
    scores = (q @ k.mT / 8**0.5).detach()
    back = torch.arange(23)[:, None] - torch.arange(23)
    wanted = scores.masked_fill((back < 0) | (back >= 5), -torch.inf).softmax(-1) @ v
    assert (attend(q, k, v, window=5) - wanted).abs().max() < 1e-10
    assert torch.equal(attend(q, k, v, window=1), v) or (attend(q, k, v, window=1) - v).abs().max() < 1e-12


def test_scores_depend_on_distance_alone():
    q, k = heads(1, 0, tokens=1).detach(), heads(1, 1, tokens=1).detach()

    def score(at: int, other: int) -> float:
        turned = []
        for x, position in ((q, at), (k, other)):
            angles = rotary_angles(torch.tensor([[position]]), 8, 10_000.0)[:, None].double()
            turned.append(rotate(x, angles.cos(), angles.sin()))
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(5, 0), rel=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), rel=1e-3)


def test_the_turn_is_by_minus_the_angle():
    """One pair at position 1 with angle 1: (1, 0) goes to (cos 1, -sin 1)."""
    x = torch.tensor([[[[1.0, 0.0]]]])
    angles = rotary_angles(torch.tensor([[1]]), 2, 10_000.0)[:, None]
    turned = rotate(x, angles.cos(), angles.sin()).flatten()
    assert torch.allclose(turned, torch.tensor([torch.tensor(1.0).cos(), -torch.tensor(1.0).sin()]))
