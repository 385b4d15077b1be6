"""Both sides of chapter 2's equations, in float64."""

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.attention import attend_plainly, rotary_angles, rotate
from nanochat.gpt import Head, rms_norm
from nanochat.loss import weighted_nll
from nanochat.optim import NEWTON_SCHULZ, orthogonalise

CHAPTER = Path(__file__).parents[1] / "02_mathematical_foundations.md"


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def worst(ours: Tensor | tuple[Tensor, ...], theirs: Tensor | tuple[Tensor, ...]) -> float:
    """The largest difference between two tensors, or two lists of them, relative to the largest entry."""
    pairs = zip(*((x,) if isinstance(x, Tensor) else x for x in (ours, theirs)), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in pairs)


def variance_of_a_dot_product() -> float:
    """The mean of (q k)^2 over every pair of vectors of d signs, against d, for d = 1 to 6."""
    errors = []
    for d in range(1, 7):
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d)), dtype=torch.float64)
        errors.append(abs(float((signs @ signs.T).square().mean()) - d))
    return max(errors)


def rotation_as_a_matrix() -> float:
    """The matrix [[cos, sin], [-sin, cos]] times a pair of features, against `nanochat.attention.rotate`."""
    x, angle = draws(1, 1, 5, 2), rotary_angles(torch.arange(5)[None], 2, 100.0)[:, None].double()
    turned = rotate(x, angle.cos(), angle.sin())
    cosine, sine = angle.cos()[..., 0], angle.sin()[..., 0]
    matrix = torch.stack((torch.stack((cosine, sine), -1), torch.stack((-sine, cosine), -1)), -2)
    return worst((matrix @ x[..., None])[..., 0], turned)


def blocks_of(section: str) -> list[str]:
    """The Python blocks of one section of the chapter, as a reader would paste them."""
    text = CHAPTER.read_text(encoding="utf-8").split(f"\n## {section} ")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


OPERATIONS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: (a + a * b).log(),
    lambda a, b: (a * b).log().exp(),
)


def small_autograd() -> float:
    """The autograd that section 2.4 builds, pasted from the chapter, against torch on 200 random expressions."""
    ours: dict[str, Any] = {"math": math, "torch": torch}
    for block in blocks_of("2.4"):
        if any(text in block for text in ("class Value", "Value.log", "def backward")):
            exec(block, ours)
    value, backward = ours["Value"], ours["backward"]
    error = 0.0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        numbers = (torch.rand(4, generator=generator, dtype=torch.float64) + 0.5).tolist()
        leaves = [value(number) for number in numbers]
        twins = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers]
        mine, theirs = list(leaves), list(twins)
        for _ in range(8):
            kind, i, j = (int(torch.randint(size, (), generator=generator)) for size in (4, len(mine), len(mine)))
            for nodes in (mine, theirs):
                a, b = nodes[i], nodes[j]
                nodes.append(OPERATIONS[kind](a, b))
            # Positive and bounded, so that neither logarithm nor exp leaves its range.
            if not 0.05 < theirs[-1].item() < 50:
                mine.pop(), theirs.pop()
        for nodes in (mine, theirs):
            total = nodes[0]
            for node in nodes[1:]:
                total = total + node
            nodes.append(total)
        backward(mine[-1])
        theirs[-1].backward()
        for a, b in zip(leaves, twins, strict=True):
            error = max(error, abs(a.grad - float(b.grad)) / max(1.0, abs(float(b.grad))))
    return error


def cross_entropy_is_entropy_plus_divergence() -> float:
    """-sum p ln q against -sum p ln p + sum p ln(p / q), for random laws p and q."""
    p, q = (draws(100, 7, seed=seed).softmax(-1) for seed in (0, 1))
    entropy, divergence = -(p * p.log()).sum(-1), (p * (p / q).log()).sum(-1)
    return worst(-(p * q.log()).sum(-1), entropy + divergence)


def bits_per_byte_of_a_law_over_bytes() -> float:
    """Nats of a text under a law over single bytes over (ln 2 x bytes), against the mean of -log2 p, byte by byte."""
    text = b"2 cups of flour serve 4"
    law = draws(256).softmax(0)
    nats = float(-sum(law[byte].log() for byte in text))
    return abs(nats / (math.log(2) * len(text)) - sum(-math.log2(float(law[byte])) for byte in text) / len(text))


def perplexity_in_either_unit() -> float:
    """exp(nats a token) against 2^(bits a token); with the units mixed the two are far apart."""
    p = draws(50).softmax(0)
    nats, bits = float(-p.log().mean()), float(-p.log2().mean())
    return abs(math.exp(nats) / 2**bits - 1)


def logsumexp_shifts() -> float:
    """ln sum exp z against m + ln sum exp(z - m), and softmax against itself of z - m."""
    z = draws(100, 9) * 5
    m = z.amax(-1, keepdim=True)
    naive = z.exp() / z.exp().sum(-1, keepdim=True)
    return worst(
        (m[:, 0] + (z - m).exp().sum(-1).log(), (z - m).exp() / (z - m).exp().sum(-1, keepdim=True)),
        (z.exp().sum(-1).log(), naive),
    )


def softmax_jacobian() -> float:
    """diag(p) - p p^T against the Jacobian that torch finds."""
    z = draws(9)
    p = z.softmax(0)
    return worst(p.diag() - torch.outer(p, p), torch.autograd.functional.jacobian(lambda z: z.softmax(0), z))


def p_minus_y() -> float:
    """softmax(z) - one_hot(target) against torch's gradient of the cross-entropy."""
    z, target = draws(20, 9).requires_grad_(), torch.arange(20) % 9
    loss = torch.nn.functional.cross_entropy(z, target, reduction="sum")
    (wanted,) = torch.autograd.grad(loss, z)
    return worst(z.detach().softmax(-1) - torch.nn.functional.one_hot(target, 9), wanted)


def head_and_features() -> float:
    """(p - y)^T X and (p - y) W, as gradients of head and features, against torch."""
    x, w, target = draws(6, 4).requires_grad_(), draws(9, 4, seed=1).requires_grad_(), torch.arange(6)
    wanted = torch.autograd.grad(torch.nn.functional.cross_entropy(x @ w.T, target, reduction="sum"), (x, w))
    g = (x @ w.T).detach().softmax(-1) - torch.nn.functional.one_hot(target, 9)
    return worst((g @ w.detach(), g.T @ x.detach()), wanted)


def matmul_gradient() -> float:
    """G B^T and A^T G against torch's gradients of sum(G * (A B)), for many shapes."""
    errors = []
    for seed, (n, m, k) in enumerate([(1, 1, 1), (2, 3, 4), (7, 1, 5), (1, 6, 1)]):
        a, b, g = draws(n, m, seed=seed).requires_grad_(), draws(m, k, seed=9).requires_grad_(), draws(n, k, seed=8)
        wanted = torch.autograd.grad(((a @ b) * g).sum(), (a, b))
        errors.append(worst((g @ b.detach().T, a.detach().T @ g), wanted))
    return max(errors)


def rms_norm_gradient() -> float:
    """r (g - y mean(g y)) against torch's own RMSNorm, eps included; and that the package's is the same."""
    eps, x, g = 1e-6, draws(5, 8).requires_grad_(), draws(5, 8, seed=1)
    (wanted,) = torch.autograd.grad((torch.nn.functional.rms_norm(x, (8,), eps=eps) * g).sum(), x)
    (package,) = torch.autograd.grad((rms_norm(x, eps) * g).sum(), x)
    r = (x.detach().square().mean(-1, keepdim=True) + eps).rsqrt()
    y = r * x.detach()
    return max(worst(r * (g - y * (g * y).mean(-1, keepdim=True)), wanted), worst(package, wanted))


def attention_gradient() -> float:
    """The five lines of the backward pass of causal attention against torch."""
    q, k, v, g = (draws(1, 1, 6, 4, seed=seed) for seed in range(4))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wanted = torch.autograd.grad((attend_plainly(*leaves) * g).sum(), leaves)
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    p = (q @ k.mT / 2).masked_fill(future, -math.inf).softmax(-1)
    dv, dp = p.mT @ g, g @ v.mT
    ds = p * (dp - (dp * p).sum(-1, keepdim=True))
    return worst((ds @ k / 2, ds.mT @ q / 2, dv), wanted)


def softcap_gradient() -> float:
    """(p - y)(1 - tanh^2(z / c)), and the same with 4 s (1 - s), against the gradient that the package forms."""
    head, x, target = Head(4, 9, 15.0).double(), draws(1, 6, 4).requires_grad_(), torch.arange(6)[None]
    with torch.no_grad():
        head.weight.copy_(10 * draws(9, 4, seed=1))
    batch = type("Batch", (), {"targets": target, "weights": torch.ones(1, 6, dtype=torch.float64)})
    (got,) = torch.autograd.grad(weighted_nll(x, head, batch), x)
    z = x.detach()[0] @ head.weight.detach().T
    tanh, s = (z / 15).tanh(), (2 * z / 15).sigmoid()
    g = (15 * tanh).softmax(-1) - torch.nn.functional.one_hot(target[0], 9)
    formed = [(g * slope) @ head.weight.detach() for slope in (1 - tanh**2, 4 * s * (1 - s))]
    return max(worst(one[None], got) for one in formed)


def central_difference() -> float:
    """The error of a central difference of exp at 0, against h^2 / 6, as h shrinks: relative to that term."""
    return max(abs(((math.exp(h) - math.exp(-h)) / (2 * h) - 1) / (h * h / 6) - 1) for h in (0.02, 0.01, 0.005))


def bf16_rounds_to_eight_bits() -> float:
    """How far the largest relative rounding error of bf16 lies above 2^-8 / (1 + 2^-8), over a fine grid; 0 or less."""
    x = torch.linspace(1, 2, 1_000_001, dtype=torch.float64)
    largest = float(((x.bfloat16().double() - x).abs() / x).max())
    return max(0.0, largest - 2**-8 / (1 + 2**-8))


def bound_of_a_sum() -> float:
    """How far the error of a running bf16 sum lies above n u sum |x|, over 50 sums; 0 where the bound holds."""
    over = 0.0
    for seed in range(50):
        x = draws(200, seed=seed).bfloat16()
        total = torch.zeros((), dtype=torch.bfloat16)
        for term in x:
            total = total + term
        exact, u = x.double().sum(), 2**-8
        bound = 199 * u / (1 - 199 * u) * x.double().abs().sum()
        over = max(over, float((total.double() - exact).abs() - bound))
    return max(0.0, over)


def svd_by_hand() -> float:
    """The singular values and U V^T of [[4, 0], [3, 5]] as worked out in the text, against torch."""
    u, s, vh = torch.linalg.svd(torch.tensor([[4.0, 0.0], [3.0, 5.0]], dtype=torch.float64))
    by_hand = torch.tensor([[3.0, -1.0], [1.0, 3.0]], dtype=torch.float64) / math.sqrt(10)
    values = torch.tensor([2.0, 1.0], dtype=torch.float64) * math.sqrt(10)
    return worst((s, u @ vh), (values, by_hand))


def nearest_orthogonal() -> float:
    """<A, U V^T> against the sum of singular values; inf if one of 2,000 other matrices of norm 1 does better."""
    a = draws(4, 3)
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    others = draws(2000, 4, 3, seed=1)
    others = others / torch.linalg.matrix_norm(others, ord=2)[:, None, None]
    if float((others * a).sum((1, 2)).max()) > float(s.sum()):
        return math.inf
    return abs(float((a * (u @ vh)).sum() - s.sum()))


def polynomial_of_a_matrix() -> float:
    """a X + b X X^T X + c (X X^T)^2 X by products, as `orthogonalise` does, against the same on singular values."""
    x = draws(5, 8)
    x = x / (x.norm() * 1.02 + 1e-7)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    for a, b, c in NEWTON_SCHULZ:
        s = a * s + b * s**3 + c * s**5
    return worst(orthogonalise(draws(5, 8), NEWTON_SCHULZ, torch.float64), u @ s.diag() @ vh)


def descent_on_a_quadratic() -> float:
    """(1 - lr x lambda)^t x_0 along each axis against t steps of gradient descent that torch differentiates."""
    curvature, start, rate, steps = draws(4).exp(), draws(4, seed=1), 0.2, 30
    x = start.clone().requires_grad_()
    for _ in range(steps):
        (grad,) = torch.autograd.grad((curvature * x * x).sum() / 2, x)
        x = (x - rate * grad).detach().requires_grad_()
    return float((x.detach() - (1 - rate * curvature) ** steps * start).abs().max() / start.abs().max())


def best_rate() -> float:
    """The slowest axis at lr = 2 / (least + largest) against (kappa - 1) / (kappa + 1); inf if another rate wins."""
    least, largest = 0.7, 9.0

    def slowest(rate: float) -> float:
        return max(abs(1 - rate * least), abs(1 - rate * largest))

    best, kappa = 2 / (least + largest), largest / least
    if min(slowest(best * (1 + off / 100)) for off in range(-50, 51) if off) <= slowest(best):
        return math.inf
    return abs(slowest(best) - (kappa - 1) / (kappa + 1))


def floor_of_noise() -> float:
    """lr s^2 / (lambda (2 - lr lambda)) against the variance that x <- (1 - lr lambda) x - lr noise settles at."""
    rate, curvature, spread, variance = 0.1, 3.0, 0.5, 7.0
    for _ in range(500):
        variance = (1 - rate * curvature) ** 2 * variance + rate**2 * spread**2
    return abs(variance - rate * spread**2 / (curvature * (2 - rate * curvature)))


def decay_is_a_step() -> float:
    """w (1 - lr x decay) against a step of gradient descent on decay / 2 |w|^2."""
    w, rate, decay = draws(5).requires_grad_(), 0.3, 0.1
    (grad,) = torch.autograd.grad(decay / 2 * w.square().sum(), w)
    return worst(w.detach() * (1 - rate * decay), w.detach() - rate * grad)


def puzzles() -> float:
    """The answers to the puzzles of section 2.14 against torch, on random shapes."""
    return max(puzzles_of(seed) for seed in range(5))


def puzzles_of(seed: int) -> float:
    """The largest error of all puzzles on one pair of sizes."""
    one_hot, errors = torch.nn.functional.one_hot, []
    n, c = (int(size) for size in torch.randint(2, 7, (2,), generator=torch.Generator().manual_seed(seed)))
    x, w, g = draws(n, c, seed=seed), draws(c, seed=seed + 100), draws(n, c, seed=seed + 200)
    ids = torch.arange(n) % 3
    z, square = x.exp(), draws(n, n, seed=seed + 300)
    cases = [
        (lambda b: (x + b) * g, w, g.sum(0)),
        (lambda x: x.mean(-1) * g[:, 0], x, g[:, :1].expand(n, c) / c),
        (lambda x: x.relu().square() * g, x, 2 * x.relu() * g),
        (lambda t: t[ids] * g, draws(3, c, seed=7), one_hot(ids, 3).double().T @ g),
        (lambda x: x.log_softmax(-1) * g, x, g - x.softmax(-1) * g.sum(-1, keepdim=True)),
        (lambda x: x.logsumexp(-1) * g[:, 0], x, z / z.sum(-1, keepdim=True) * g[:, :1]),
        (lambda x: x.sigmoid() * g, x, x.sigmoid() * (1 - x.sigmoid()) * g),
        (lambda x: (x @ x.T) * square, x, (square + square.T) @ x),
    ]
    for function, where, answer in cases:
        leaf = where.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(function(leaf).sum(), leaf)
        errors.append(worst(answer, wanted))
    return max(errors)
