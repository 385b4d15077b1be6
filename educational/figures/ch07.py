"""The figures of chapter 7."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from educational.figures.style import BLUE, FAINT, GREEN, INK, ORANGE, QUIET, RED, SKY, STYLES, new
from nanochat.checkpoint import load_model
from nanochat.loss import weighted_nll
from nanochat.optim import NEWTON_SCHULZ, POLAR_EXPRESS, AdamW, orthogonalise, trapezoid
from nanochat.runtime import Runtime
from nanochat.train import Batch

ROOT = Path(__file__).parents[2]
SENTENCE = "2 cups of flour serve 4"
MATRIX = "blocks.3.mlp.up.weight"


def record(name: str) -> Any:
    """What an experiment wrote."""
    return json.loads((ROOT / "runs" / "book" / f"{name}.json").read_text(encoding="utf-8"))


def sentence_gradient() -> torch.Tensor:
    """The gradient of one matrix for the running example."""
    model, tokenizer, _ = load_model(ROOT / "runs/reference/pretrain", Runtime(torch.device("cpu"), torch.float32))
    ids = torch.tensor([[tokenizer.special("<|bos|>"), *tokenizer.encode(SENTENCE)]])
    batch = Batch(ids[:, :-1], ids[:, 1:], torch.ones(1, ids.shape[1] - 1), {})
    (weighted_nll(model.features(batch.inputs), model.head, batch) / batch.targets.numel()).backward()
    return dict(model.named_parameters())[MATRIX].grad.double()


def three_norms() -> Figure:
    """What is a step of length one? Two balls with their steepest steps, and the stretches of three steps."""
    figure, (left, middle, right) = new(6.5, 2.6, 1, 3, gridspec_kw={"width_ratios": [1, 1, 1.45]})
    slope = np.array([2.0, 0.5])
    grid = np.linspace(-1.5, 1.5, 40)
    steps = (
        (left, slope / np.linalg.norm(slope), "Euclid: along g"),
        (middle, np.sign(slope), "largest entry: sign g"),
    )
    for axes, step, title in steps:
        axes.contour(
            grid,
            grid,
            slope[0] * grid[None, :] + slope[1] * grid[:, None],
            levels=9,
            colors=FAINT,
            linewidths=0.8,
            linestyles="-",
        )
        ball = (
            Circle((0, 0), 1, fill=False, ec=BLUE) if axes is left else Rectangle((-1, -1), 2, 2, fill=False, ec=BLUE)
        )
        axes.add_patch(ball)
        axes.annotate(
            "", step, (0, 0), arrowprops={"arrowstyle": "-|>", "color": RED, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        )
        axes.plot(*step, "o", color=RED)
        axes.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("weight 1")
    left.set_ylabel("weight 2")
    g = sentence_gradient()
    kinds = (("g (SGD)", g), ("sign g", g.sign()), ("$UV^T$ (Muon)", orthogonalise(g, dtype=torch.float64)))
    for (name, x), colour, style, mark in zip(kinds, (QUIET, ORANGE, BLUE), STYLES, "s^o", strict=False):
        values = torch.linalg.svdvals(x)[:12]
        right.plot(range(1, 13), values / values[0], style, marker=mark, color=colour, label=name)
    right.set_title("stretches of the step", fontsize=9)
    right.set(xlabel="direction", ylabel="relative to the largest", xticks=[1, 4, 7, 10], ylim=(-0.03, 1.06))
    right.text(8.1, 0.82, "$UV^T$ (Muon)", color=BLUE, fontsize=8)
    right.text(5.2, 0.4, "sign g", color=INK, fontsize=8)
    right.text(1.7, 0.06, "g (SGD)", color=QUIET, fontsize=8)
    return figure


def paths() -> Figure:
    """SGD, momentum and Adam in a valley a hundred times as steep one way as the other, along the axes and turned."""
    figure, axes = new(6.5, 3.1, 1, 2)
    for panel, turn in zip(axes, (0.0, math.pi / 4), strict=True):
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        h = rotation @ np.diag([1.0, 100.0]) @ rotation.T
        start = rotation @ np.array([1.0, 0.12])
        across, along = (
            (np.linspace(-0.35, 1.0, 121),) * 2 if turn else (np.linspace(-0.3, 1.1, 121), np.linspace(-0.4, 0.6, 121))
        )
        x, y = np.meshgrid(across, along)
        level = (h[0, 0] * x * x + 2 * h[0, 1] * x * y + h[1, 1] * y * y) / 2
        panel.contour(x, y, level, levels=[0.01, 0.05, 0.2, 0.5, 1, 2, 4], colors=FAINT, linewidths=0.8)
        for (name, walk), colour, style in zip(walks(h, start).items(), (QUIET, GREEN, RED), STYLES, strict=False):
            loss = 0.5 * walk[-1] @ h @ walk[-1]
            panel.plot(*walk.T, style, color=colour, lw=1.3, marker=".", ms=3, label=f"{name}: loss {loss:.1g}")
        panel.plot(0, 0, "+", color=INK, ms=10)
        panel.set(xlabel="weight 1", ylabel="weight 2")
        panel.legend(loc="upper left", fontsize=7)
    axes[0].set(title="valley along the axes", ylim=(-0.38, 0.6), xlim=(-0.25, 1.08))
    axes[1].set(title="the same valley, turned by 45°")
    return figure


def walks(h: np.ndarray[Any, Any], start: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Forty steps of each, all at about the best rate that they have there."""
    found = {}
    for name, rate, beta in (("SGD", 2 / 101, 0.0), ("momentum 0.8", 0.0331 / 0.2, 0.8)):
        x, m, walk = start.copy(), np.zeros(2), [start.copy()]
        for _ in range(40):
            m = beta * m + (1 - beta) * (h @ x)
            x = x - rate * m
            walk.append(x.copy())
        found[name] = np.array(walk)
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer, walk = AdamW([weight], lr=0.08, betas=(0.8, 0.95), weight_decay=0.0), [start.copy()]
    for step in range(40):
        weight.grad = torch.tensor(h) @ weight.detach()
        for group in optimizer.param_groups:
            group["lr"] = 0.08 * trapezoid(40, 0, 30)(step)
        optimizer.step()
        walk.append(weight.detach().numpy().copy())
    found["Adam"] = np.array(walk)
    return found


def polynomials() -> Figure:
    """What five steps make of a singular value, for three polynomials, on a log scale."""
    figure, (left, right) = new(6.5, 2.9, 1, 2)
    x = np.logspace(-4, 0, 1501)
    cubic = ((1.5, -0.5, 0.0),) * 5
    kinds = (("cubic", cubic, QUIET), ("quintic, Jordan", NEWTON_SCHULZ, GREEN), ("Polar Express", POLAR_EXPRESS, BLUE))
    for place, (name, coefficients, colour) in enumerate(kinds):
        y, lows, highs = x.copy(), [1e-3], [1.0]
        for a, b, c in coefficients:
            y = a * y + b * y**3 + c * y**5
            lows.append(y[x >= 1e-3].min())
            highs.append(y[x >= 1e-3].max())
        left.semilogx(x, y, STYLES[1] if place == 0 else "-", color=colour, label=name, lw=1.1)
        at = np.arange(6) + 0.22 * (place - 1)
        right.vlines(at, lows, highs, color=colour, lw=5, label=name)
    for axes in (left, right):
        axes.axhline(1, color=FAINT, lw=0.8, zorder=0)
    left.set(title="after five steps", xlabel="singular value before", ylabel="after", ylim=(0, 1.65))
    left.legend(loc="upper left")
    right.set(title="where 0.001 to 1 lie", xlabel="after so many steps", yscale="log", ylim=(7e-4, 3))
    return figure


def spectra() -> Figure:
    """Singular values of a real momentum, before and after each step of orthogonalising."""
    found = record("muon_or_adamw")["spectra"]
    figure, axes = new(6.5, 3.0)
    colours = (INK, SKY, GREEN, ORANGE, RED, BLUE)
    for count, (values, colour, style) in enumerate(
        zip(found["values"], colours, ("--", "-", "-.", ":", "-.", "-"), strict=True)
    ):
        if count == 0:
            scale = math.sqrt(sum(v * v for v in values))  # stage 0 is the matrix divided by 1.02 |G|
            values = [v / scale for v in values]
        label = "momentum, length 1" if count == 0 else f"after {count} step{'s' if count > 1 else ''}"
        axes.semilogy(
            range(1, len(values) + 1), values, style, color=colour, label=label, lw=2.2 if count == 5 else 1.4
        )
    axes.axhline(1, color=FAINT, lw=0.8, zorder=0)
    axes.set(xlabel="direction, by size", ylabel="singular value", ylim=(1e-3, 3))
    axes.legend(loc="lower left", ncol=3)
    return figure


def rates() -> Figure:
    """Held-out bits per byte by learning rate for three optimizers of the matrices; and three fresh seeds."""
    found = record("muon_or_adamw")
    figure, (left, right) = new(6.5, 3.0, 1, 2, gridspec_kw={"width_ratios": [2.2, 1]})
    first = {"muon": 0.95, "adamw": [0.9, 0.95], "momentum": 0.9}
    names = {"muon": "Muon", "adamw": "AdamW", "momentum": "momentum"}
    kinds = tuple(zip(names, (BLUE, RED, QUIET), STYLES, "os^", strict=False))
    for kind, colour, style, mark in kinds:
        runs = [r for r in found["tuning"] if r["kind"] == kind and r["tables"] == 1 and r["momentum"] == first[kind]]
        runs.sort(key=lambda run: run["rate"])
        left.semilogx(
            [r["rate"] for r in runs], [r["bpb"] for r in runs], style, color=colour, marker=mark, label=names[kind]
        )
    left.set(
        xlabel="learning rate of the matrices",
        ylabel="held-out bits per byte",
        title="one seed, everything else equal",
        ylim=(1.98, 2.26),
    )
    left.text(0.9, 2.222, "3.05 at 3", fontsize=8, color=QUIET, ha="right")
    left.legend(loc="upper center")
    for place, (kind, colour, _, mark) in enumerate(kinds[:2]):
        ends = sorted((r["seed"], r["bpb"]) for r in found["finals"] if r["kind"] == kind)
        right.plot([place] * len(ends), [bpb for _, bpb in ends], mark, color=colour)
    finals = {(r["kind"], r["seed"]): r["bpb"] for r in found["finals"]}
    for seed in {seed for _, seed in finals}:
        right.plot((0, 1), (finals["muon", seed], finals["adamw", seed]), color=FAINT, lw=0.9, zorder=0)
    right.set(xticks=[0, 1], xticklabels=["Muon", "AdamW"], xlim=(-0.5, 1.5), title="tuned, fresh seeds")
    return figure


def schedule() -> Figure:
    """The learning rate over the shipped run's pretraining, its loss, and the length of its gradient."""
    rows = [json.loads(line) for line in (ROOT / "runs/reference/metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [row for row in rows if row["stage"] == "pretrain" and "grad_norm" in row]
    held = [row for row in rows if row["stage"] == "pretrain" and "val_bpb" in row]
    figure, axes = new(6.5, 3.9, 3, 1, sharex=True, gridspec_kw={"height_ratios": [1, 1.5, 1]})
    at = [row["step"] for row in steps]
    factor = trapezoid(1000, 20, 600)
    axes[0].plot(range(1000), [factor(step) for step in range(1000)], color=BLUE)
    axes[0].set(ylabel="rate", ylim=(0, 1.1))
    axes[1].plot(at, [row["loss"] for row in steps], color=QUIET, lw=0.9, label="loss of a batch, nats a token")
    twin = axes[1].twinx()
    twin.plot(
        [row["step"] for row in held], [row["val_bpb"] for row in held], "o-", color=RED, label="held-out bits per byte"
    )
    twin.spines["right"].set_visible(True)
    twin.set_ylabel("bits per byte", color=RED)
    axes[1].set_ylabel("nats")
    lines = axes[1].get_lines() + twin.get_lines()
    axes[1].legend(lines, [line.get_label() for line in lines], loc="upper right")
    axes[2].plot(at, [row["grad_norm"] for row in steps], color=GREEN, lw=1.1)
    axes[2].set(ylabel="|gradient|", xlabel="step", ylim=(0, 1.1))
    return figure


def noise() -> Figure:
    """The gradient noise scale over a training, three seeds."""
    found = record("noise_scale")
    figure, axes = new(5.2, 2.8)
    for part, colour, style, mark in (("all", BLUE, "-", "o"), ("matrices", RED, "--", "s")):
        curves = list(found["curves"].values())
        stops = [point["steps"] for point in curves[0]]
        for place, points in enumerate(curves):
            label = {"all": "all weights", "matrices": "the matrices alone"}[part] if place == 0 else None
            axes.plot(
                range(len(stops)), [p[part] for p in points], style, marker=mark, color=colour, lw=1.1, label=label
            )
        axes.set_xticks(range(len(stops)), [str(stop) for stop in stops])
    axes.axhline(found["tokens_per_step"], color=FAINT, lw=1)
    axes.text(0, found["tokens_per_step"] * 1.1, "tokens of a step here", fontsize=8, color=QUIET)
    axes.set(yscale="log", xlabel="steps of training", ylabel="noise scale, tokens")
    axes.legend(loc="best")
    return figure


def look(folder: str, *names: str) -> None:
    """Save pictures of figures to look at."""
    from educational.figures.style import png

    for name in names:
        png(globals()[name](), f"{folder}/{name}.png")


__all__ = ["look", "noise", "paths", "polynomials", "rates", "schedule", "spectra", "three_norms"]
