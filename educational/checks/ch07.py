"""Both sides of chapter 7's equations, in float64."""

import itertools
import math

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nanochat.optim import NEWTON_SCHULZ, POLAR_EXPRESS, AdamW, Muon, orthogonalise, trapezoid


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def polar(matrix: Tensor) -> Tensor:
    """U V^T by a singular value decomposition."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


def steepest_steps() -> float:
    """<G, X> of the three best steps against the three dual norms; and that no other step of length one gains more."""
    worst, by_hand = 0.0, torch.tensor([[4.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    for g, known in ((by_hand, (math.sqrt(50), 12.0, math.sqrt(40) + math.sqrt(10))), (draws(5, 3), None)):
        lengths = (torch.linalg.norm, lambda x: x.abs().max(), lambda x: torch.linalg.matrix_norm(x, ord=2))
        best = (g / g.norm(), g.sign(), polar(g))
        gains = (g.norm(), g.abs().sum(), torch.linalg.svdvals(g).sum())
        for place, (length, step, gain) in enumerate(zip(lengths, best, gains, strict=True)):
            worst = max(worst, abs(float((g * step).sum() - gain)), abs(float(length(step)) - 1))
            worst = max(worst, abs(float(gain) - known[place]) if known else 0.0)
            for seed in range(200):
                other = draws(*g.shape, seed=seed)
                worst = max(worst, float((g * other).sum() / length(other) - gain))
    return worst


def momentum_averages() -> float:
    """The variance of a running mean of independent numbers, summed term by term, against (1 - b) / (1 + b)."""
    errors = []
    for beta in (0.5, 0.8, 0.9, 0.95):
        weights = (1 - beta) * beta ** torch.arange(4000, dtype=torch.float64)
        errors += [abs(float(weights.square().sum()) - (1 - beta) / (1 + beta)), abs(float(weights.sum()) - 1)]
    return max(errors)


def momentum_on_a_valley() -> float:
    """Spectral radius of momentum's step at the best rate and beta, on curvatures 1 and 100, against the formula."""
    low, high = 1.0, 100.0
    root = math.sqrt(high / low)
    beta = ((root - 1) / (root + 1)) ** 2
    rate = (2 / (math.sqrt(low) + math.sqrt(high))) ** 2 / (1 - beta)
    radii = []
    for curvature in (low, 3.0, 30.0, high):
        # (x, m) -> m' = beta m + (1 - beta) curvature x, x' = x - rate m'
        gain = (1 - beta) * curvature
        step = torch.tensor([[1 - rate * gain, -rate * beta], [gain, beta]], dtype=torch.float64)
        radii.append(float(torch.linalg.eigvals(step).abs().max()))
    # At both ends the two eigenvalues meet, and a double root is found to half the digits only.
    return max(abs(radius - (root - 1) / (root + 1)) for radius in radii)


def bias_correction() -> float:
    """A running mean that starts at zero, of a constant, against (1 - beta^t) times it."""
    worst = 0.0
    for beta in (0.8, 0.9, 0.95, 0.999):
        mean = 0.0
        for t in range(1, 60):
            mean = beta * mean + (1 - beta) * 3.0
            worst = max(worst, abs(mean - 3.0 * (1 - beta**t)))
    return worst


def adams_first_step() -> float:
    """AdamW's first step with eps 0 against -lr sign(g), for gradients from 1e-6 to 1e6."""
    weight = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))
    weight.grad = draws(40).sign() * 10 ** torch.linspace(-6, 6, 40, dtype=torch.float64)
    AdamW([weight], lr=0.1, eps=0.0, weight_decay=0.0).step()
    return float((weight.detach() + 0.1 * weight.grad.sign()).abs().max())


def signal_and_noise() -> float:
    """mean(g) / sqrt(mean(g^2)) of gradients s +- sigma, each as often, against s / sqrt(s^2 + sigma^2)."""
    errors = []
    for s, sigma in ((1.0, 0.0), (1.0, 1.0), (0.3, 2.0), (-0.1, 1.0)):
        g = torch.tensor([s + sigma, s - sigma], dtype=torch.float64)
        errors.append(abs(float(g.mean() / g.square().mean().sqrt()) - s / math.hypot(s, sigma)))
    return max(errors)


def decay_has_a_resting_place() -> float:
    """AdamW under a gradient that never changes: the distance to -sign(g) / decay, step by step and at the end."""
    rate, decay = 0.1, 0.5
    weight = torch.nn.Parameter(torch.tensor([2.0, -7.0], dtype=torch.float64))
    start, target = weight.detach().clone(), torch.tensor([-1 / decay, 1 / decay], dtype=torch.float64)
    optimizer, worst = AdamW([weight], lr=rate, eps=0.0, weight_decay=decay), 0.0
    for t in range(1, 301):
        weight.grad = torch.tensor([3.0, -0.01], dtype=torch.float64)
        optimizer.step()
        wanted = target + (1 - rate * decay) ** t * (start - target)
        worst = max(worst, float((weight.detach() - wanted).abs().max()))
    return worst


def shampoo_without_averages() -> float:
    """(G G^T)^(-1/4) G (G^T G)^(-1/4), by eigenvalues of the two products, against U V^T by an SVD."""

    def inverse_fourth_root(product: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(product)
        return (vectors * values**-0.25) @ vectors.T

    g = draws(6, 6)
    return float((inverse_fourth_root(g @ g.T) @ g @ inverse_fourth_root(g.T @ g) - polar(g)).abs().max())


def newton_by_hand() -> float:
    """1.5 x - 0.5 x^3 at x = 1 - e, against 1 - 1.5 e^2 + 0.5 e^3."""
    e = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    x = 1 - e
    return float((1.5 * x - 0.5 * x**3 - (1 - 1.5 * e**2 + 0.5 * e**3)).abs().max())


def products_act_on_singular_values() -> float:
    """`orthogonalise` in float64 against the polynomials applied to the singular values of an SVD."""
    worst = 0.0
    for shape in ((6, 4), (4, 6), (5, 5)):
        g = draws(*shape)
        for coefficients in (POLAR_EXPRESS, NEWTON_SCHULZ):
            u, s, v = torch.linalg.svd(g, full_matrices=False)
            s = s / (g.norm() * 1.02 + 1e-7)
            for a, b, c in coefficients:
                s = a * s + b * s**3 + c * s**5
            worst = max(worst, float((orthogonalise(g, coefficients, torch.float64) - (u * s) @ v).abs().max()))
    return worst


def growth_of_small_values() -> float:
    """What becomes of a singular value of 1e-9, relative to the product of the first coefficients."""
    worst = 0.0
    for coefficients in (POLAR_EXPRESS, NEWTON_SCHULZ):
        x = y = 1e-9
        for a, b, c in coefficients:
            y = a * y + b * y**3 + c * y**5
        worst = max(worst, abs(y / x / math.prod(a for a, _, _ in coefficients) - 1))
    return worst


def nesterov_weights() -> float:
    """How much each past gradient weighs in `Muon.average`, fed one at a time, against the formula; their sum is 1."""
    mu, steps, worst = 0.95, 30, 0.0
    got = []
    for place in range(steps):
        weight = torch.nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
        muon = Muon([weight], momentum=mu)
        for step in range(steps):
            weight.grad = torch.full((1, 1), float(step == place), dtype=torch.float64)
            ahead = muon.average(weight, mu)
        got.append(float(ahead))
    for ago, value in enumerate(reversed(got)):
        wanted = (1 - mu) * (1 + mu) if ago == 0 else (1 - mu) * mu ** (ago + 1)
        worst = max(worst, abs(value - wanted))
    everything = (1 - mu) * (1 + mu) + (1 - mu) * mu**2 / (1 - mu)
    return max(worst, abs(everything - 1))


def size_of_an_update() -> float:
    """Root mean square of scale x U V^T, and of what it makes of every direction of input, for four shapes."""
    worst = 0.0
    for rows, columns in ((6, 6), (12, 4), (4, 12), (20, 5)):
        step = math.sqrt(max(1.0, rows / columns)) * polar(draws(rows, columns))
        worst = max(worst, abs(float(step.square().mean().sqrt()) - 1 / math.sqrt(columns)))
        # Inputs with independent entries of variance 1: the mean over them of |W x|^2 is |W|^2.
        inputs = torch.eye(columns, dtype=torch.float64) * math.sqrt(columns)
        worst = max(worst, abs(float((inputs @ step.T).square().mean().sqrt()) - 1))
    return worst


def cost_of_a_step() -> float:
    """FLOPs that torch counts in `orthogonalise`, against 5 (4 n^2 m + 2 n^3), and its like for wide ones."""
    worst = 0.0
    for rows, columns in ((256, 256), (1024, 256), (64, 256)):
        with FlopCounterMode(display=False) as counter:
            orthogonalise(torch.ones(rows, columns))
        n, m = min(rows, columns), max(rows, columns)
        step, pair = 4 * n * n * m + 2 * n**3, 4 * n * n * m + 10 * n**3
        worst = max(worst, abs(counter.get_total_flops() - (2 * pair + step if m > 2 * n else 5 * step)))
    return worst


def share_of_the_peak() -> float:
    """The mean factor of `trapezoid` against 1 - (warmup - 1 + warmdown) / (2 steps)."""
    worst = 0.0
    for steps, warmup, warmdown in ((6, 2, 2), (1000, 20, 600), (100, 5, 50)):
        factor = trapezoid(steps, warmup, warmdown)
        mean = sum(factor(step) for step in range(steps)) / steps
        worst = max(worst, abs(mean - (1 - (warmup - 1 + warmdown) / (2 * steps))))
    return worst


def noisy_descent() -> float:
    """The mean loss after a noisy step, over every sign of the noise, against (7.15); best rate and gain."""
    h = draws(3, 3)
    h = h @ h.T + torch.eye(3, dtype=torch.float64)
    x, spread, batch = draws(3, seed=1), draws(3, 3, seed=2), 4.0
    g = h @ x
    # Noise: a sum of three fixed vectors with random signs; its covariance is spread spread^T / batch.
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    noise = signs @ spread.T / math.sqrt(batch)

    def mean_loss(rate: float) -> float:
        after = x - rate * (g + noise)
        return float(((after @ h) * after).sum(-1).mean() / 2)

    sharpness, cost = float(g @ h @ g), float(torch.trace(h @ spread @ spread.T))
    first, slope = float(x @ h @ x / 2), float(g @ g)
    noise_scale = cost / sharpness
    best = slope / sharpness / (1 + noise_scale / batch)
    errors = [mean_loss(r) - (first - r * slope + r * r / 2 * (sharpness + cost / batch)) for r in (0.01, 0.1, best)]
    gain = slope**2 / sharpness / 2 / (1 + noise_scale / batch)
    errors.append(first - mean_loss(best) - gain)
    errors.append(
        min(0.0, mean_loss(best * 1.01) - mean_loss(best)) + min(0.0, mean_loss(best * 0.99) - mean_loss(best))
    )
    return max(abs(error) for error in errors)


def noise_estimate() -> float:
    """Signal and noise from single gradients and their mean, averaged over all draws of 3 from 4, against the truth."""
    population = draws(4, 5)
    signal = population.mean(0)
    noise = (population - signal).square().sum(-1).mean()
    found = []
    for chosen in itertools.product(range(4), repeat=3):
        g = population[list(chosen)]
        n, single, whole = len(g), g.square().sum(-1).mean(), g.mean(0).square().sum()
        spread = (single - whole) * n / (n - 1)
        found.append(torch.stack((spread, whole - spread / n)))
    mean = torch.stack(found).mean(0)
    return float((mean - torch.stack((noise, signal.square().sum()))).abs().max())


def clipping_does_not_reach_adam() -> float:
    """Ten steps of AdamW and Muon with every gradient a hundredth of its size, against ten as they were."""
    worst = 0.0
    for make in (
        lambda w: AdamW([w], lr=0.1, eps=0.0, weight_decay=0.0),
        lambda w: Muon([w], lr=0.1, dtype=torch.float64),
    ):
        ends = []
        for scale in (1.0, 0.01):
            weight = torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
            optimizer = make(weight)
            for step in range(10):
                weight.grad = scale * draws(8, 8, seed=step)
                optimizer.step()
            ends.append(weight.detach())
        worst = max(worst, float((ends[0] - ends[1]).norm() / ends[0].norm()))
    return worst
