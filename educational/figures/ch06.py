"""The figures of chapter 6."""

import json
import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from educational.figures.style import AMOUNT, BLUE, COLOURS, FAINT, GREEN, INK, QUIET, RED, STYLES, bare, new
from nanochat.data import packing
from nanochat.data.shards import Record, TokenStore
from nanochat.evaluate.figures import wilson

ROOT = Path(__file__).parents[2]


def metrics(stage: str, *names: str) -> list[tuple[float, ...]]:
    """(step, each of `names`) of every line of the shipped run that has them."""
    lines = [json.loads(line) for line in (ROOT / "runs/reference/metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if line["stage"] == stage and all(name in line for name in names)]
    return [(line["step"], *(line[name] for name in names)) for line in rows]


def figures_of(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(stage, name) -> figure of a record."""
    record = json.loads((ROOT / path).read_text())
    return {(figure["stage"], figure["name"]): figure for figure in record["figures"]}


def all_stages() -> Figure:
    """Loss and learning rate of three stages, side by side."""
    figure, axes = new(6.5, 3.6, rows=2, columns=3, sharex="col", gridspec_kw={"height_ratios": [3, 1]})
    stages = (("pretrain", "pretraining: text"), ("midtrain", "midtraining: skills"), ("sft", "fine-tuning: answers"))
    for number, ((stage, title), colour) in enumerate(zip(stages, COLOURS, strict=False)):
        top, bottom = axes[0, number], axes[1, number]
        rate = json.loads((ROOT / f"runs/reference/{stage}/stage.json").read_text())["config"]["rate"]
        base = json.loads((ROOT / "runs/reference/pretrain/stage.json").read_text())["config"]["rate"]
        steps, loss, factor = zip(*metrics(stage, "loss", "lr"), strict=True)
        top.plot(steps, loss, color=colour)
        top.set(title=title, yscale="log", ylim=(0.03, 12), yticks=[0.1, 0.3, 1, 3, 10])
        top.set_yticklabels(["0.1", "0.3", "1", "3", "10"] if number == 0 else [])
        top.minorticks_off()
        top.grid(axis="y")
        top.annotate(
            f"{loss[0]:.2f}", (steps[0], loss[0]), (8, 6), textcoords="offset points", fontsize=8, color=colour
        )
        last = sum(loss[-10:]) / 10
        top.text(
            0.98, 0.03, f"last ten points: {last:.2f}", transform=top.transAxes, ha="right", fontsize=8, color=colour
        )
        bottom.fill_between(steps, [f * rate / base for f in factor], color=colour, alpha=0.25, linewidth=0)
        bottom.plot(steps, [f * rate / base for f in factor], color=colour, linewidth=1.2)
        bottom.set(ylim=(0, 1.1), xlabel="step", yticks=[0, 0.5, 1])
        bottom.set_yticklabels(["0", "½", "1"] if number == 0 else [])
    axes[0, 0].set_ylabel("loss, nats a target")
    axes[1, 0].set_ylabel("rate")
    return figure


def rows() -> Figure:
    """Eight rows of 64 tokens as the packer fills them."""
    draws = np.random.default_rng(4)
    lengths = np.concatenate([draws.integers(5, 30, 40), draws.integers(75, 110, 10)])
    draws.shuffle(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # Every token is a number of its own: document x 1000 + place.
    tokens = np.concatenate([1000 * d + np.arange(n) for d, n in enumerate(lengths, 1)]).astype(np.uint32)
    store = TokenStore(tokens, offsets, Record("", "", 0, 0, 0, "uint32", "", ""))
    figure, axes = new(6.5, 2.9)
    bare(axes).set(xlim=(-3, 64.5), ylim=(8.2, -0.9))
    for number, row in enumerate(islice(packing.rows([store], bos=0, context=63, seed=18), 8)):
        axes.text(-1, number + 0.4, str(number), ha="right", va="center", fontsize=8, color=QUIET)
        starts = [*np.flatnonzero(row.ids == 0).tolist(), 64]
        for first, last in pairwise(starts):
            document, place = divmod(int(row.ids[first + 1]), 1000) if last > first + 1 else (0, 0)
            colour = COLOURS[document % len(COLOURS)]
            axes.barh(number + 0.4, last - first, left=first, height=0.8, color=f"{colour}55", edgecolor="white",
                      hatch="////" if place else None, linewidth=0.5)  # fmt: skip
            axes.barh(number + 0.4, 1, left=first, height=0.8, color=INK)
            if last - first > 5:
                label = f"{document}" if not place else f"{document}, from {place}"
                axes.text((first + 1 + last) / 2, number + 0.4, label, ha="center", va="center", fontsize=7)
    axes.text(0, -0.35, "64 tokens a row; the number of each document; black: BOS", fontsize=8, color=QUIET)
    return figure


def bits_per_byte() -> Figure:
    """Held-out bits per byte over pretraining, with the baselines."""
    found = figures_of("runs/laptop.json")
    figure, axes = new(6.5, 3.1)
    steps, values = zip(*metrics("pretrain", "val_bpb"), strict=True)
    axes.plot([s + 1 for s in steps], values, "o-", color=BLUE, label="model (100 documents)")
    end = found["pretrain", "bpb"]
    axes.errorbar([steps[-1] + 1], [end["value"]], [[end["value"] - end["low"]], [end["high"] - end["value"]]],
                  fmt="s", color=BLUE, capsize=3, markersize=5, label=f"model, all {end['n']} documents")  # fmt: skip
    for (name, label), style, colour in zip(
        (("bpb_xz", "xz"), ("bpb_trigram", "trigram"), ("bpb_5gram", "5-gram")),
        STYLES[1:],
        (QUIET, RED, GREEN),
        strict=False,
    ):
        value = found["pretrain", name]["value"]
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.2)
        axes.text(0, value + 0.008, f"{label} {value:.3f}", color=colour, fontsize=8, va="bottom")
    axes.set(xlabel="step", ylabel="bits per byte, held out", xlim=(-20, (steps[-1] + 1) * 1.03))
    axes.set_ylim(min(values[-1], end["low"]) - 0.05, max(values[0], found["pretrain", "bpb_xz"]["value"]) + 0.08)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.86))
    return figure


def skills() -> Figure:
    """The turn of copying in midtraining; reward and stops in reinforcement."""
    figure, axes = new(6.5, 2.9, columns=2)
    left, right = axes
    steps, loss = zip(*metrics("midtrain", "loss"), strict=True)
    left.plot(steps, loss, color=BLUE)
    left.set(title="midtraining", xlabel="step", ylim=(0, None))
    left.set_ylabel("loss, nats a target", color=BLUE)
    other = left.twinx()
    steps, share = zip(*metrics("midtrain", "copied"), strict=True)
    other.plot(steps, [100 * s for s in share], "s--", color=RED)
    other.set(ylim=(0, 100))
    other.set_ylabel("strings copied exactly, %", color=RED)
    other.spines["right"].set_visible(True)
    steps, reward, stopped = zip(*metrics("rl", "reward", "stopped"), strict=True)
    right.plot(steps, [100 * s for s in stopped], "--", color=RED, label="answers that stop")
    right.plot(steps, [100 * r for r in reward], color=BLUE, label="mean reward")
    slope, start = np.polyfit(steps, reward, 1)
    right.plot([steps[0], steps[-1]], [100 * (start + slope * s) for s in (steps[0], steps[-1])], ":", color=BLUE)
    right.set(title="reinforcement", xlabel="step", ylabel="%", ylim=(0, 105))
    right.legend(loc="lower right")
    return figure


def policy_gradient() -> Figure:
    """Reward and stop rate of the toy policy, four ways, three seeds."""
    record = json.loads((ROOT / "runs/book/policy_gradient.json").read_text())
    figure, axes = new(6.5, 3.1, columns=2, sharex=True)
    names = list(dict.fromkeys(curve["name"] for curve in record["curves"]))
    for panel, what, title in zip(axes, ("reward", "stopped"), ("mean reward", "answers that stop"), strict=True):
        for name, colour, style in zip(names, COLOURS, STYLES, strict=False):
            for number, curve in enumerate(c for c in record["curves"] if c["name"] == name):
                panel.plot(curve[what], color=colour, linestyle=style, linewidth=1.2, alpha=0.9,
                           label=None if number else name)  # fmt: skip
        panel.set(title=title, xlabel="step", ylim=(0, 1.03))
        panel.grid(axis="y")
    axes[1].legend(loc="lower right")
    return figure


SHOWN = {
    "calculator_accuracy": "sums, new numbers",
    "calculator_accuracy_new_wording": "... in new words",
    "unknown_accuracy": "says it has no such dish",
    "notes_accuracy": "finds the right note",
    "talk_accuracy": "talk and limits",
    "find_accuracy": "looks up the right dish",
    "recipe_accuracy": "whole recipe right",
    "follow_up_accuracy": "follow-up questions",
    "choice_accuracy": "multiple choice",
}


def intervals() -> Figure:
    """Figures after fine-tuning and after reinforcement, with intervals at their n and at 50."""
    found = figures_of("runs/laptop.json")
    figure, axes = new(6.5, 3.6)
    for place, name in enumerate(SHOWN):
        for shift, stage, colour, marker in ((-0.17, "sft", RED, "o"), (0.17, "rl", BLUE, "s")):
            got, y = found[stage, name], place + shift
            axes.plot([100 * x for x in wilson(got["value"], 50)], [y, y], color=FAINT, linewidth=5, zorder=1,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot([100 * got["low"], 100 * got["high"]], [y, y], color=colour, linewidth=1.8, zorder=2)
            label = {"sft": "after fine-tuning", "rl": "after reinforcement"}[stage] if not place else None
            axes.plot(100 * got["value"], y, marker, color=colour, label=label, zorder=3)
    axes.axvline(25, color=QUIET, linewidth=0.8, linestyle=":", ymax=0.1)
    axes.text(24.5, len(SHOWN) - 0.45, "guessing", fontsize=7, color=QUIET, ha="right")
    axes.set(xlim=(0, 100), ylim=(len(SHOWN) - 0.3, -0.6), yticks=range(len(SHOWN)), xlabel="% right")
    axes.set_yticklabels(SHOWN.values())
    axes.legend(loc="lower right")
    return figure


def ring() -> Figure:
    """A ring all-reduce of four processes: of how many processes each chunk holds the sum, round by round."""
    n = 4
    figure, axes = new(6.5, 1.35, columns=2 * n - 1)
    held = [[1] * n for _ in range(n)]
    states, titles = [[row[:] for row in held]], ["start"]
    moved: list[set[tuple[int, int]]] = [set()]
    for step in range(n - 1):
        moving = [(r, (r - step) % n, held[r][(r - step) % n]) for r in range(n)]
        for r, chunk, amount in moving:
            held[(r + 1) % n][chunk] += amount
        states, titles = [*states, [row[:] for row in held]], [*titles, f"add {step + 1}"]
        moved.append({((r + 1) % n, chunk) for r, chunk, _ in moving})
    for step in range(n - 1):
        moving = [(r, (r + 1 - step) % n, held[r][(r + 1 - step) % n]) for r in range(n)]
        for r, chunk, amount in moving:
            held[(r + 1) % n][chunk] = amount
        states, titles = [*states, [row[:] for row in held]], [*titles, f"pass {step + 1}"]
        moved.append({((r + 1) % n, chunk) for r, chunk, _ in moving})
    for panel, state, title, news in zip(axes, states, titles, moved, strict=True):
        draw_state(panel, state, news)
        panel.set_title(title, fontsize=8.5, loc="center")
    for process in range(n):
        axes[0].text(-0.75, process, f"process {process}", ha="right", va="center", fontsize=7.5)
    return figure


def draw_state(axes: Axes, state: list[list[int]], news: set[tuple[int, int]]) -> None:
    """One panel of `ring`; what has just arrived has a border."""
    n = len(state)
    axes.imshow(state, cmap=AMOUNT, vmin=0, vmax=2 * n)
    bare(axes)
    for row in range(n):
        for column in range(n):
            weight = "bold" if (row, column) in news else "normal"
            axes.text(column, row, str(state[row][column]), ha="center", va="center", fontsize=8, fontweight=weight)
            if (row, column) in news:
                corner = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=RED, linewidth=1.1))


# E, A, B, alpha and beta of L = E + A / N^alpha + B / D^beta: Besiroglu et al. (2024), arXiv:2404.10102.
REFITTED = (1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def isoflop() -> Figure:
    """The refitted law at four budgets with the best size of each; beside it what we measured on recipes."""
    figure, (left, right) = new(6.5, 3.5, columns=2)
    floor, a, b, alpha, beta = REFITTED
    sizes = np.geomspace(2e7, 2e10, 300)
    for budget, colour, style in zip((1e18, 1e19, 1e20, 1e21), COLOURS, STYLES, strict=False):
        loss = floor + a / sizes**alpha + b / (budget / 6 / sizes) ** beta
        best = (alpha * a / (beta * b) * (budget / 6) ** beta) ** (1 / (alpha + beta))
        low = floor + a / best**alpha + b / (budget / 6 / best) ** beta
        shown = loss < 1.3 * low
        label = f"$10^{{{round(math.log10(budget))}}}$: {best / 1e6:,.0f} M, {budget / 6 / best**2:.0f} tokens each"
        left.plot(sizes[shown], loss[shown], color=colour, linestyle=style, linewidth=1.6, label=label)
        left.plot(best, low, "*", color=colour, markersize=11, markeredgecolor="white")
    ruled = np.sqrt(np.geomspace(6e17, 2e21, 50) / 120)  # 6 N (20 N)
    law = floor + a / ruled**alpha + b / (20 * ruled) ** beta
    left.plot(ruled, law, ":", color=QUIET, linewidth=1, label="20 tokens a parameter")
    left.set(title="the law, large models", xscale="log", xlabel="parameters", ylabel="loss, nats a token")
    left.set_ylim(2.1, 5.7)
    left.legend(loc="upper left", fontsize=7.5)
    measured(right)
    return figure


def measured(axes: Axes) -> None:
    """The right panel of `isoflop`: bits per byte of the experiment's runs."""
    record = json.loads((ROOT / "runs/book/scaling.json").read_text())
    for best, colour, style in zip(record["best"], COLOURS, STYLES, strict=False):
        runs = [f for f in record["figures"] if f["budget"] == best["budget"]]
        values = [f["value"] for f in runs]
        spread = [[f["value"] - f["low"] for f in runs], [f["high"] - f["value"] for f in runs]]
        label = f"{best['budget'] / 1e9:g} × $10^9$: {best['tokens_per_parameter']:.0f} tokens each"
        axes.errorbar([f["parameters"] for f in runs], values, spread, color=colour, linestyle=style, marker="o",
                      markersize=3, capsize=2, linewidth=1.4, label=label)  # fmt: skip
        axes.plot(best["parameters"], best["value"], "*", color=colour, markersize=11, markeredgecolor="white")
    axes.set(title="our runs on recipes", xscale="log", xlabel="parameters", ylabel="bits per byte, held out")
    axes.set_xticks(places := [15_000, 40_000, 100_000, 270_000])
    axes.set_xticklabels([f"{place // 1000}k" for place in places])
    axes.minorticks_off()
    axes.set_ylim(1.7, 5.1)
    axes.legend(loc="upper left", fontsize=7.5)
