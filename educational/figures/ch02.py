"""The figures of chapter 2."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from educational.figures.style import BLUE, COLOURS, FAINT, GREEN, INK, QUIET, RED, STYLES, arrow, bare, new
from nanochat.checkpoint import load_model
from nanochat.runtime import Runtime

ROOT = Path(__file__).parents[2]
SENTENCE = "2 cups of flour serve 4"


def sentence() -> tuple[list[str], Tensor, Tensor]:
    """The running example's tokens, their ids, and the logits that the pretrained model had before each."""
    model, tokenizer, _ = load_model(ROOT / "runs/reference/pretrain", Runtime(torch.device("cpu"), torch.float32))
    ids = torch.tensor([[tokenizer.special("<|bos|>"), *tokenizer.encode(SENTENCE)]])
    with torch.no_grad():
        logits = model(ids[:, :-1])[0]
    words = [tokenizer.decode([token]).replace(" ", "␣") for token in range(model.config.vocab_size)]
    return words, ids[0, 1:], logits


def graph_with_gradients() -> Figure:
    """The graph of a loss over two tokens, with every value and every gradient."""
    h, wa, wb = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (2.0, 0.5, 1.0))
    za, zb = wa * h, wb * h
    lse = torch.logsumexp(torch.stack((za, zb)), 0)
    loss = lse - za
    for node in (za, zb, lse):
        node.retain_grad()
    loss.backward()
    figure, axes = new(6.5, 3.3)
    bare(axes).set(xlim=(-0.1, 10.4), ylim=(-0.35, 4.35))
    places = {
        "$w_a$": (0.6, 3.6, wa), "$h$": (0.6, 2.0, h), "$w_b$": (0.6, 0.4, wb),
        "$z_a = w_a h$": (3.6, 3.1, za), "$z_b = w_b h$": (3.6, 0.9, zb),
        "$\\ln(e^{z_a} + e^{z_b})$": (6.6, 0.9, lse), "$L$": (9.5, 2.0, loss),
    }  # fmt: skip
    edges = [(0, 3), (1, 3), (1, 4), (2, 4), (3, 5), (4, 5), (5, 6), (3, 6)]
    spots = list(places.values())
    for start, end in edges:
        (x0, y0, _), (x1, y1, _) = spots[start], spots[end]
        half0, half1 = (0.55 if x < 1 else 1.0 if x < 9 else 0.62 for x in (x0, x1))
        if start == 3 and end == 5:
            arrow(axes, (x0 + half0, y0 - 0.3), (x1 - half1, y1 + 0.35))
        else:
            arrow(axes, (x0 + half0, y0), (x1 - half1, y1))
    for name, (x, y, node) in places.items():
        half = 0.55 if x < 1 else 1.0 if x < 9 else 0.62
        grad = 1.0 if node is loss else float(node.grad)
        axes.add_patch(
            FancyBboxPatch(
                (x - half, y - 0.5), 2 * half, 1.0, boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="white", edgecolor=QUIET, linewidth=1.0,
            )
        )  # fmt: skip
        axes.text(x, y + 0.27, name, ha="center", va="center", fontsize=9)
        axes.text(x, y - 0.03, f"{node.item():.3g}", ha="center", va="center", color=BLUE, fontsize=9)
        axes.text(x, y - 0.32, f"{grad:+.3f}", ha="center", va="center", color=RED, fontsize=9, weight="bold")
    for (x, y), way in zip([(2.0, 2.72), (2.0, 1.28)], [za.grad * wa, zb.grad * wb], strict=True):
        axes.text(x, y, f"{way.item():+.3f}", ha="center", color=RED, fontsize=8, backgroundcolor="white")
    axes.text(0.0, -0.3, "value, computed to the right", color=BLUE, fontsize=8)
    axes.text(3.3, -0.3, "gradient of L, computed to the left (on an arrow: one path's share)", color=RED, fontsize=8)
    return figure


def surprise_per_token() -> Figure:
    """Bits that each token of the running example costs the pretrained model."""
    words, ids, logits = sentence()
    bits = -logits.log_softmax(-1).gather(1, ids[:, None])[:, 0] / math.log(2)
    figure, axes = new(6.5, 2.6)
    axes.bar(range(len(ids)), bits.numpy(), color=[RED if b == bits.max() else BLUE for b in bits], width=0.65)
    uniform = math.log2(logits.shape[-1])
    axes.axhline(uniform, color=QUIET, linestyle="--", linewidth=1)
    label = f"any of {logits.shape[-1]:,} tokens, equally likely: {uniform:.2f}"
    axes.text(-0.45, uniform + 0.4, label, color=QUIET, fontsize=8)
    for place, value in enumerate(bits.tolist()):
        axes.text(place, value + 0.3, f"{value:.1f}", ha="center", fontsize=8)
    axes.set_xticks(range(len(ids)), [words[i] for i in ids.tolist()], fontsize=10)
    axes.set(ylabel="bits", ylim=(0, 21), xlim=(-0.5, 6.5))
    return figure


def p_minus_y() -> Figure:
    """What the pretrained model believes after the running example's last space, and the gradient of its logits."""
    words, ids, logits = sentence()
    p = logits[-1].softmax(-1)
    top, target = p.topk(8).indices.tolist(), int(ids[-1])
    slope = p.clone()
    slope[target] -= 1
    figure, (above, below) = new(6.5, 3.2, rows=2, sharex=True, gridspec_kw={"height_ratios": [1, 1.5]})
    for axes, values, sign in ((above, p, ""), (below, slope, "+")):
        bars = [float(values[token]) for token in top]
        axes.bar(range(8), bars, color=[RED if token == target else BLUE for token in top], width=0.6)
        for place, value in enumerate(bars):
            axes.text(place, max(value, 0) + 0.04, f"{value:{sign}.3f}", ha="center", fontsize=8)
        axes.axhline(0, color=QUIET, linewidth=0.8)
    above.set(ylabel="$p$", ylim=(0, 0.85))
    below.set(ylabel="$p - y$", ylim=(-1.1, 0.95))
    below.set_xticks(range(8), [words[token] for token in top], fontsize=10)
    below.set_xlabel("the token after “2 cups of flour serve ”, the eight likeliest; the one that came is red")
    return figure


def difference_error() -> Figure:
    """Relative error of the central difference of exp at 1 by step, in float64 and float32."""
    figure, axes = new(6.5, 3.0)
    for dtype, colour, style in ((np.float64, BLUE, "-"), (np.float32, RED, "--")):
        steps = 10.0 ** np.arange(0, -15.01, -0.05)
        x, h = dtype(1), steps.astype(dtype)
        h = h[(x + h != x) & (x - h != x)]
        slopes = (np.exp(x + h) - np.exp(x - h)) / (dtype(2) * h)
        error = np.abs(slopes.astype(np.float64) / math.e - 1)
        axes.loglog(h, np.maximum(error, 1e-17), color=colour, linestyle=style, linewidth=1.1, label=dtype.__name__)
    h = np.array([1e-15, 1.0])
    axes.loglog(h, h**2 / 6, color=QUIET, linewidth=1, linestyle=":")
    axes.loglog(h, 1.1e-16 / h, color=QUIET, linewidth=1, linestyle=":")
    axes.text(6e-3, 1.2e-7, "$h^2 / 6$", color=QUIET, ha="left", fontsize=9)
    axes.text(3e-12, 2e-4, "$\\epsilon / h$", color=QUIET, ha="left", fontsize=9)
    best = (3 * 1.1e-16) ** (1 / 3)
    axes.axvline(best, color=FAINT, linewidth=1)
    axes.text(best * 1.3, 3e-1, f"$(3\\epsilon)^{{1/3}}$ = {best:.0e}", fontsize=8, color=QUIET)
    axes.set(xlabel="step $h$", ylabel="relative error of the slope", xlim=(1e-15, 1), ylim=(1e-13, 3))
    axes.legend(loc="lower right")
    return figure


def formats() -> Figure:
    """The largest relative rounding error near each magnitude, for five formats."""
    figure, axes = new(6.5, 3.1)
    edges = np.arange(-31, 31)
    for place, name in enumerate(("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")):
        dtype, x, y = getattr(torch, name), [], []
        for exponent in edges:
            grid = torch.linspace(1, 2, 10_007, dtype=torch.float64)[1:-1] * 2.0**exponent
            rounded = grid.float().to(dtype).double()
            off = (rounded - grid).abs() / grid
            if float(grid.max()) <= torch.finfo(dtype).max and float(off.max()) <= 0.5:
                x.append(2.0 ** (exponent + 0.5))
                y.append(float(off.max()))
        label = name.replace("float8_", "fp8 ").replace("e4m3fn", "e4m3")
        axes.loglog(x, y, color=COLOURS[place], linestyle=STYLES[place], label=label)
        axes.plot([x[-1]], [y[-1]], "o" if x[-1] < 1e8 else "", color=COLOURS[place])
    axes.set(xlabel="magnitude", ylabel="largest relative rounding error", xlim=(1e-9, 1e9), ylim=(1e-8, 1))
    axes.axvline(1, color=FAINT, linewidth=1, zorder=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def sums() -> Figure:
    """A running sum of n hundredths over the true one, by format of the sum."""
    counts = np.unique(np.round(10 ** np.linspace(0, 5, 120)).astype(int))
    figure, axes = new(6.5, 2.8)
    cases = (
        ("bfloat16 sum", torch.bfloat16, torch.bfloat16),
        ("float16 sum", torch.float16, torch.float16),
        ("bfloat16 terms, float32 sum", torch.bfloat16, torch.float32),
        ("float32 sum", torch.float32, torch.float32),
    )
    for place, (label, of_terms, of_sum) in enumerate(cases):
        term = torch.tensor(0.01).to(of_terms).to(of_sum)
        if of_sum == torch.float32:  # numpy adds a running sum in order, and in the format that it is told
            running = np.cumsum(np.full(counts[-1], term.item(), np.float32), dtype=np.float32)
        else:
            found = [term]
            while (after := found[-1] + term) != found[-1]:
                found.append(after)
            running = np.array([value.item() for value in found])
        shown = running[np.minimum(counts, len(running)) - 1] / (0.01 * counts)
        axes.semilogx(counts, shown, color=COLOURS[place], linestyle=STYLES[place], label=label)
    axes.set(xlabel="terms of 0.01 added up one by one", ylabel="sum / true sum", ylim=(0, 1.3))
    axes.legend(loc="lower left")
    return figure


def ellipse() -> Figure:
    """The unit circle, its image under a matrix, and under the orthogonal part of it."""
    a = np.array([[4.0, 0.0], [3.0, 5.0]])
    u, s, vh = np.linalg.svd(a)
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack((np.cos(turn), np.sin(turn)))
    figure, places = new(6.5, 2.5, columns=3)
    for axes, matrix, title, reach in zip(
        places, (np.eye(2), a, u @ vh), ("$x$", "$A x$", "$U V^T x$"), (1.6, 7.2, 1.6), strict=True
    ):
        axes.plot(*(matrix @ circle), color=QUIET, linewidth=1.2)
        for i, (colour, name) in enumerate(((BLUE, "1"), (RED, "2"))):
            sign = 1 if vh[i, 0] > 0 else -1
            end = matrix @ vh[i] * sign
            arrow(axes, (0, 0), tuple(end), colour)
            text, place = f"${'v' if title == '$x$' else 'u'}_{name}$", end * 1.28
            if matrix is a:  # beside the ellipse, not on it
                text, place = f"{s[i]:.2f} {text}", end * (1 + 0.95 / s[i]) + ((1.7, -0.2) if i else (-1.1, 0))
            axes.text(*place, text, color=colour, ha="center", va="center")
        axes.axhline(0, color=FAINT, linewidth=0.7, zorder=0)
        axes.axvline(0, color=FAINT, linewidth=0.7, zorder=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
        axes.set_xticks([-6, 0, 6] if reach > 2 else [-1, 0, 1])
        axes.set_yticks([-6, 0, 6] if reach > 2 else [-1, 0, 1])
    return figure


def descent() -> Figure:
    """Gradient descent in a valley of curvatures 1 and 10: paths, and the loss by step, for three rates."""
    curvature = np.array([1.0, 10.0])
    figure, (left, right) = new(6.5, 2.9, columns=2)
    x, y = np.meshgrid(np.linspace(-1.15, 1.15, 100), np.linspace(-1.5, 1.5, 100))
    left.contour(x, y, (x**2 + 10 * y**2) / 2, levels=[0.05, 0.3, 1, 2.5, 5, 9], colors=FAINT, linewidths=0.8)
    for rate, colour, style in ((0.05, GREEN, "-."), (2 / 11, BLUE, "-"), (0.205, RED, "--")):
        path = (1 - rate * curvature) ** np.arange(31)[:, None]
        left.plot(path[:9, 0], path[:9, 1], color=colour, linestyle=style, marker="o", linewidth=1.1, markersize=2.5)
        right.semilogy((curvature * path**2).sum(1) / 2, color=colour, linestyle=style, label=f"rate {rate:.3g}")
    left.plot([0], [0], "+", color=INK, markersize=9)
    left.set(xlabel="$x_1$, curvature 1", ylabel="$x_2$, curvature 10", title="eight steps")
    right.set(xlabel="step", ylabel="loss", title="thirty steps")
    right.legend(loc="lower left")
    return figure
