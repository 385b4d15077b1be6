"""Both sides of chapter 8's equations, in float64."""

import math

import torch
from torch import Tensor

from nanochat.checkpoint import newest, run_folder
from nanochat.evaluate.figures import NORMAL, wilson
from nanochat.gpt import GPTConfig
from nanochat.plan import num_multiplied
from nanochat.sampling import Sampling, distribution


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def temperature_takes_a_power() -> float:
    """What `distribution` makes of logits at a temperature T, and p^(1/T) divided by its sum."""
    logits = draws(4, 50) * 3
    worst = 0.0
    for temperature in (0.3, 0.7, 1.5):
        ours = distribution(logits, Sampling(temperature=temperature)).exp()
        power = logits.softmax(-1) ** (1 / temperature)
        worst = max(worst, float((ours - power / power.sum(-1, keepdim=True)).abs().max()))
    return worst


def the_roof_turns_at_its_corner() -> float:
    """At the batch of the corner: the time to read all weights, and the time to multiply by them for every row."""
    weights = num_multiplied(GPTConfig())
    worst = 0.0
    for bytes_each, flops, bandwidth in ((4, 50e9, 10e9), (2, 989e12, 3.35e12), (0.5, 989e12, 3.35e12)):
        corner = bytes_each * flops / (2 * bandwidth)
        reading, multiplying = weights * bytes_each / bandwidth, corner * 2 * weights / flops
        worst = max(worst, abs(reading / multiplying - 1))
    return worst


def rounding_loses_a_twelfth() -> float:
    """The mean of (w - round(w))^2 over numbers spread evenly over many steps of size s, by summing; and s^2 / 12."""
    step, cells = 0.37, 20_000
    # Midpoints of equal cells within each of ten steps; their own error falls with the square of their number.
    w = (torch.arange(10 * cells, dtype=torch.float64) + 0.5) * step / cells
    found = float(((w / step).round() * step - w).square().mean())
    return abs(found / (step**2 / 12) - 1)


def a_product_is_off_by_as_much() -> float:
    """The relative error of products with the shipped matrices rounded to 6 bits a row, and what (8.4) says of it."""
    found = newest(run_folder("reference") / "pretrain")
    assert found is not None
    off, said = 0.0, 0.0
    for name, stored in found.weights().items():
        if stored.ndim != 2 or "embedding" in name or "values" in name:
            continue
        weight = stored.double()
        step = weight.abs().amax(1, keepdim=True) / (2**5 - 1)
        error = (weight / step).round() * step - weight
        x = draws(weight.shape[1], 64)
        off += float((error @ x).square().mean() / (weight @ x).square().mean())
        said += float((step**2 / 12).mean() / weight.square().mean())
    return abs(off / said - 1)


def drafts_keep_the_law() -> float:
    """The law of what speculation emits, summed over drafts and decisions, and the target's law, for random p and q."""
    worst = 0.0
    for seed in range(20):
        p, q = (3 * draws(2, 40, seed=seed)).softmax(-1)
        accepted = torch.minimum(torch.ones_like(p), p / q)
        rest = (p - q).clamp(min=0)
        emitted = q * accepted + (q * (1 - accepted)).sum() * rest / rest.sum()
        worst = max(worst, float((emitted - p).abs().max()))
    return worst


def half_the_distance_is_refused() -> float:
    """The share of drafts that is refused, and half the sum of |p - q|."""
    p, q = (3 * draws(2, 40, seed=5)).softmax(-1)
    refused = float((q * (1 - torch.minimum(torch.ones_like(p), p / q))).sum())
    return abs(refused - float((p - q).abs().sum()) / 2)


def tokens_of_a_pass() -> float:
    """(1 - a^(k + 1)) / (1 - a), and the mean number of tokens over all ways that k drafts can be accepted."""
    worst = 0.0
    for a in (0.1, 0.5, 0.9):
        for k in range(1, 9):
            mean = sum((n + 1) * a**n * (1 - a) for n in range(k)) + (k + 1) * a**k
            worst = max(worst, abs(mean - (1 - a ** (k + 1)) / (1 - a)))
    return worst


def wilsons_ends_are_roots() -> float:
    """(share - p)^2 and z^2 p (1 - p) / n at both ends of Wilson's interval."""
    worst = 0.0
    for share, n in ((0.775, 40), (0.1, 10), (0.73, 1000)):
        for p in wilson(share, n):
            worst = max(worst, abs((share - p) ** 2 - NORMAL**2 * p * (1 - p) / n))
    return worst


def a_change_needs_so_many() -> float:
    """Two standard errors of the difference of two shares near p, for the n of (8.8), and that difference."""
    p, d = 0.75, 0.04
    n = 8 * p * (1 - p) / d**2
    return abs(2 * math.sqrt(2 * p * (1 - p) / n) / d - 1)
