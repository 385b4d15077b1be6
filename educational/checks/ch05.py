"""Derivations of chapter 05 against code, in float64. Each function computes both sides and returns the error."""

import itertools
import math
from collections.abc import Iterable
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nanochat import gpt
from nanochat.attention import BLOCK, KVCache, attend, attend_in_blocks, attend_plainly, rotary_angles, rotate
from nanochat.gpt import GPT, GPTConfig, rms_norm


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """`x` (T, D) rotated as `rotate` does at these positions, with angles in float64."""
    powers = torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1]
    angles = (positions[:, None].double() / base**powers)[None, None]
    return rotate(x[None, None], angles.cos(), angles.sin())[0, 0]


def attention_by_loops() -> float:
    """(5.1): `attend_plainly` against sums and exponentials written with Python loops, three heads on one key head."""
    q, k, v = drawn(1, 3, 6, 4), drawn(1, 1, 6, 4, seed=1), drawn(1, 1, 6, 4, seed=2)
    got, worst = attend_plainly(q, k, v), 0.0
    for head, token in itertools.product(range(3), range(6)):
        doubled = [math.exp(float(q[0, head, token] @ k[0, 0, j]) / math.sqrt(4)) for j in range(token + 1)]
        wanted = sum(one * v[0, 0, j] for j, one in enumerate(doubled)) / sum(doubled)
        worst = max(worst, float((got[0, head, token] - wanted).abs().max()))
    return worst


def score_variance() -> float:
    """(5.2): the variance of q . k over all pairs of vectors of signs in 5 dimensions, against 5."""
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5)), dtype=torch.float64)
    products = (signs @ signs.T).flatten()
    return abs(float(products.var(correction=0)) - 5)


def rope_is_relative() -> float:
    """(5.4): scores of rotated queries and keys against scores with both moved on by 1,000 tokens."""
    q, k, places = drawn(9, 16), drawn(9, 16, seed=1), torch.arange(9)
    here = turned(q, places) @ turned(k, places).T
    there = turned(q, places + 1000) @ turned(k, places + 1000).T
    return float((here - there).abs().max())


def rope_by_complex_numbers() -> float:
    """(5.3): `rotate` against multiplication of a + bi by e^(-i angle), with the package's own angles."""
    x, positions = drawn(1, 2, 7, 8), torch.arange(7)[None]
    angles = rotary_angles(positions, 8, 10_000.0)[:, None].double()
    first, second = x.chunk(2, dim=-1)
    wanted = torch.complex(first, second) * torch.polar(torch.ones_like(angles), -angles)
    return float((rotate(x, angles.cos(), angles.sin()) - torch.cat((wanted.real, wanted.imag), -1)).abs().max())


def either_sign() -> float:
    """Scores of queries and keys turned by minus the angle, against by plus, for mirrored pairs: the second half of
    all features negated. What one sign can express the other can."""
    q, k, places = drawn(9, 16), drawn(9, 16, seed=1), torch.arange(9)
    mirror = torch.cat((torch.ones(8), -torch.ones(8))).double()
    minus = turned(q, places) @ turned(k, places).T
    plus = turned(q * mirror, -places) @ turned(k * mirror, -places).T
    return float((minus - plus).abs().max())


def qk_norm_bounds_the_score() -> float:
    """(5.5): how far a score of normed vectors exceeds sqrt(D), and how far it falls short where both are aligned."""
    size = 64
    q, k = rms_norm(1000 * drawn(500, size), 0.0), rms_norm(drawn(500, size, seed=1), 0.0)
    over = float(((q @ k.T).abs() / math.sqrt(size)).max()) - math.sqrt(size)
    aligned = (q * q).sum(-1) / math.sqrt(size) - math.sqrt(size)
    return max(over, float(aligned.abs().max()))


def sharpness_moves_the_bound() -> float:
    """First-layer scores with `sharpness` 1.5 against 1.5 times those without; how far any exceeds 1.5 sqrt(D)."""
    found: list[Tensor] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, cache: None = None) -> Tensor:
        found.append(q @ k.mT / math.sqrt(q.shape[-1]))
        return v

    for sharpness in (1.0, 1.5):
        model = GPT(GPTConfig(vocab_size=50, n_layer=1, n_head=2, n_kv_head=2, sharpness=sharpness), torch.float64)
        with torch.no_grad(), patch.object(gpt, "attend", spy):
            for seed, weight in enumerate(model.parameters()):
                weight.copy_(1000 * drawn(*weight.shape, seed=seed))
            model(torch.arange(50)[None])
    plain, sharp = found
    over = float(sharp.abs().max()) - 1.5 * math.sqrt(model.config.head_size)
    return max(over, float((sharp - 1.5 * plain).abs().max()))


def by_hand(q: Tensor, k: Tensor, v: Tensor, pull: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v by equations (5.6) to (5.8), one head."""
    size = q.shape[-1]
    future = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    p = (q @ k.T / math.sqrt(size)).masked_fill(future, -math.inf).softmax(-1)
    out = p @ v
    dp = pull @ v.T
    ds = p * (dp - (pull * out).sum(-1, keepdim=True))
    return ds @ k / math.sqrt(size), ds.T @ q / math.sqrt(size), p.T @ pull


def backward() -> float:
    """(5.6) to (5.8): the gradients derived by hand against autograd through `attend_plainly`."""
    q, k, v, pull = (drawn(11, 8, seed=seed) for seed in range(4))
    leaves = [x[None, None].clone().requires_grad_() for x in (q, k, v)]
    attend_plainly(*leaves).backward(pull[None, None])
    return max(float((x.grad[0, 0] - y).abs().max()) for x, y in zip(leaves, by_hand(q, k, v, pull), strict=True))


def backward_of_a_group() -> float:
    """Key and value gradients of a shared head against the sum of those of its query heads."""
    q, pull = drawn(1, 3, 7, 4), drawn(1, 3, 7, 4, seed=3)
    k, v = (drawn(1, 1, 7, 4, seed=seed).requires_grad_() for seed in (1, 2))
    attend_in_blocks(q, k, v).backward(pull)
    apart = [by_hand(q[0, head], k[0, 0].detach(), v[0, 0].detach(), pull[0, head]) for head in range(3)]
    dk, dv = sum(one[1] for one in apart), sum(one[2] for one in apart)
    return float(max((k.grad[0, 0] - dk).abs().max(), (v.grad[0, 0] - dv).abs().max()))


def cache_bytes() -> float:
    """(5.9): 2 L K D S times the bytes of a number, against the tensors of a real cache."""
    cache = KVCache(4, 1, 1, 512, 64, torch.device("cpu"), torch.bfloat16)
    return abs(cache.keys.nbytes + cache.values.nbytes - 2 * 4 * 1 * 64 * 512 * 2)


def within_window(window: int) -> object:
    """`attend` with a window, to stand in for the one in gpt.py."""
    return lambda q, k, v, cache=None: attend(q, k, v, window=window, cache=cache)


def reach_of_windows() -> float:
    """(5.11): 1 + L (W - 1) tokens, against how many have a gradient in a model of 3 layers with windows of 4."""
    model = GPT(GPTConfig(vocab_size=32, n_layer=3, n_head=2, n_kv_head=1, n_embd=16), torch.float64)
    with torch.no_grad():
        for seed, weight in enumerate(model.parameters()):
            weight.copy_(drawn(*weight.shape, seed=seed) * 0.3)
    x = model.embed(torch.arange(24)[None]).detach().requires_grad_()
    angles = rotary_angles(torch.arange(24)[None], 8, 1e4)[:, None].double()
    y, usual = x, gpt.attend
    try:
        gpt.attend = within_window(4)  # type: ignore[assignment]
        for block in model.blocks:
            y = block(y, torch.arange(24)[None], angles.cos(), angles.sin())
    finally:
        gpt.attend = usual
    y[0, -1].sum().backward()
    assert x.grad is not None
    seen = int((x.grad[0].abs().sum(-1) > 0).sum())
    return abs(seen - (1 + 3 * (4 - 1)))


def latent_scores() -> float:
    """(5.10): q . (U c) with keys made from latents, against (U^T q) . c, where they never are."""
    up, latents, queries = drawn(16, 4), drawn(10, 4, seed=1), drawn(3, 16, seed=2)
    return float((queries @ (latents @ up.T).T - (queries @ up) @ latents.T).abs().max())


def online(blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The softmax mean of values by (5.12), from (scores, values) that come in blocks."""
    most, total, mixed = -math.inf, 0.0, torch.zeros(())
    for scores, values in blocks:
        new = max(most, float(scores.max()))
        shrink, weights = math.exp(most - new), (scores - new).exp()
        total, mixed, most = shrink * total + float(weights.sum()), shrink * mixed + weights @ values, new
    return mixed / total


def online_softmax() -> float:
    """(5.12): a softmax mean from blocks in any order against one from all scores, scores of about 700."""
    scores, values = 700 + 3 * drawn(40), drawn(40, 3, seed=1)
    wanted = scores.softmax(0) @ values
    cuts = list(zip(scores.split(7), values.split(7), strict=True))
    return max(float((online(order) - wanted).abs().max()) for order in (cuts, cuts[::-1]))


def computed_share() -> float:
    """(5.13): (1 + 1/n) / 2 of all scores: operations counted in `attend_in_blocks`, n = 4, and in `attend_plainly`."""
    q, k, v = (drawn(1, 2, 4 * BLOCK, 8, seed=seed) for seed in range(3))
    counted = []
    for way in (attend_in_blocks, attend_plainly):
        with FlopCounterMode(display=False) as counter:
            way(q, k, v)
        counted.append(counter.get_total_flops())
    return abs(counted[0] / counted[1] - (1 + 1 / 4) / 2)


def work_of_an_answer() -> float:
    """(5.14): the closed forms for n tokens with and without a cache, against sums token by token; relative."""
    n, matrices, layers, width = 300, 3_768_320, 4, 256

    def one(tokens: int, keys: float) -> float:
        return 2 * matrices * tokens + 4 * layers * width * keys

    cached = sum(one(1, t) for t in range(1, n + 1))
    uncached = sum(one(t, t * (t + 1) / 2) for t in range(1, n + 1))
    closed = 2 * matrices * n + 2 * layers * width * n * (n + 1)
    all_again = matrices * n * (n + 1) + 2 / 3 * layers * width * n * (n + 1) * (n + 2)
    return max(abs(cached / closed - 1), abs(uncached / all_again - 1))


def cached_is_uncached() -> float:
    """Logits of a sequence read in pieces through a cache against all at once, with both extras, in float64."""
    config = GPTConfig(vocab_size=50, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, smear=True, value_embeddings=True)
    model, ids = GPT(config, torch.float64), torch.arange(40)[None] % 50
    with torch.no_grad():
        for seed, weight in enumerate(model.parameters()):
            weight.copy_(drawn(*weight.shape, seed=seed) * 0.2)
        wanted, cache, got = model(ids), model.empty_cache(1, 40), []
        for piece in ids.split([7, 1, 1, 20, 11], dim=1):
            got.append(model.logits(model.features(piece, cache)))
    return float((torch.cat(got, 1) - wanted).abs().max())


def one_layer_sees_pairs() -> float:
    """(5.15): the score between two tokens of the first layer, before and after all the tokens between are changed."""
    config = GPTConfig(vocab_size=50, n_layer=1, n_head=2, n_kv_head=2, n_embd=32)
    model, found, usual = GPT(config, torch.float64), [], gpt.attend

    def spy(q: Tensor, k: Tensor, v: Tensor, cache: None = None) -> Tensor:
        found.append((q @ k.mT)[0, :, 9, 3])
        return usual(q, k, v)

    with torch.no_grad():
        for seed, weight in enumerate(model.parameters()):
            weight.copy_(drawn(*weight.shape, seed=seed) * 0.2)
        try:
            gpt.attend = spy  # type: ignore[assignment]
            model(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]))
            model(torch.tensor([[11, 12, 13, 4, 15, 16, 17, 18, 19, 10]]))
        finally:
            gpt.attend = usual
    return float((found[0] - found[1]).abs().max())
