"""Figures of chapter 05."""

import functools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from educational.figures.style import (
    AMOUNT,
    BLUE,
    FAINT,
    GREEN,
    HEIGHT,
    INK,
    ORANGE,
    QUIET,
    RED,
    STYLES,
    WASH,
    WIDE,
    new,
)
from nanochat.attention import BLOCK, attend, attend_plainly, rotary_angles
from nanochat.checkpoint import find_run, load_model
from nanochat.evaluate.figures import wilson
from nanochat.gpt import GPT
from nanochat.runtime import detect
from nanochat.tokenizer import Call, Output, Text, Tokenizer, message, render

RUNS = Path(__file__).parents[2] / "runs"
RECIPE = "- 2 cups of flour\n- 1 cup of water\n- 1 teaspoon of salt"
COPIED = 20  # tokens of the recipe, and how far back the answer's copy of it lies


@functools.cache
def shipped(stage: str) -> tuple[GPT, Tokenizer]:
    """The reference model after a stage, in float32."""
    model, tokenizer, _ = load_model(find_run(f"reference:{stage}"), detect("cpu", "float32", threads=1))
    return model, tokenizer


def maps(model: GPT, ids: Tensor) -> Tensor:
    """(L, B, H, T, T): the weights of every head."""
    found = []

    def spy(q: Tensor, k: Tensor, v: Tensor, cache: None = None) -> Tensor:
        found.append(attend_plainly(q, k, torch.eye(q.shape[2]).expand(*k.shape[:2], -1, -1)))
        return attend(q, k, v)

    with torch.no_grad(), patch("nanochat.gpt.attend", spy):
        model(ids)
    return torch.stack(found)


def mask() -> Figure:
    """The weights of the worked example without a mask, with it, and with it inverted."""
    names = ["2", "cups", "of", "flour"]
    products = torch.tensor([[0, 0, 0, 0], [2, 1, 0, 0], [0, 1, 0, 2], [2, 1, 0, 0]]).double()
    past = torch.ones(4, 4).tril().bool()
    kinds = {"no mask": torch.ones(4, 4).bool(), "causal": past, "inverted": past.T}
    figure, axes = new(WIDE, 2.5, columns=3)
    for one, (title, allowed) in zip(axes, kinds.items(), strict=True):
        weights = (2**products * allowed) / (2**products * allowed).sum(-1, keepdim=True)
        one.imshow(weights, cmap=AMOUNT, vmin=0, vmax=1.2)
        for row in range(4):
            for column in range(4):
                value = float(weights[row, column])
                if allowed[row, column]:
                    colour = "white" if value > 0.6 else INK
                    written = str(Fraction(value).limit_denominator(9))
                    one.text(column, row, written, ha="center", va="center", color=colour)
                else:
                    one.add_patch(
                        Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=WASH, hatch="///", edgecolor=FAINT)
                    )
        one.set(title=title, xticks=range(4), yticks=range(4), xticklabels=names, yticklabels=names)
        one.tick_params(length=0)
        one.set_xlabel("is looked at")
    axes[0].set_ylabel("looks")
    return figure


def rotation() -> Figure:
    """A fast and a slow pair at twelve positions; and the score of agreeing query and key against distance."""
    angles = rotary_angles(torch.arange(257)[None], 64, 100_000.0)[0].double()
    figure, axes = new(WIDE, 2.9, columns=2, width_ratios=[1, 1.5])
    ring = torch.linspace(0, 2 * math.pi, 200)
    for pair, colour, radius, mark in ((0, BLUE, 1.0, "o"), (6, RED, 0.55, "s")):
        turned = -angles[:12, pair]
        x, y = turned.cos(), turned.sin()
        axes[0].plot(radius * ring.cos(), radius * ring.sin(), color=FAINT, lw=0.8)
        axes[0].plot(radius * x, radius * y, mark, color=colour)
        axes[0].text(
            0, 0.13 if pair == 0 else -0.13, f"pair {pair}", ha="center", va="center", fontsize=8, color=colour
        )
        for position in range(12) if pair == 0 else (0, 4, 8, 11):
            away = radius + 0.19
            place = (float(away * x[position]), float(away * y[position]))
            axes[0].text(*place, str(position), ha="center", va="center", fontsize=7, color=colour)
    axes[0].set(title="positions 0 to 11", aspect="equal", xlim=(-1.35, 1.35), ylim=(-1.35, 1.35))
    axes[0].set_axis_off()
    axes[1].plot(angles.cos().mean(-1), color=BLUE)
    axes[1].axhline(0, color=FAINT, lw=0.8)
    axes[1].set(
        title="score against distance", xlabel="tokens between query and key", ylabel="score, of its value at 0"
    )
    axes[1].set(ylim=(-0.05, 1.05))
    return figure


def cache_bytes() -> Figure:
    """Cache of one row against tokens, for the sizes of Llama 3 70B."""
    layers, heads, size, width = 80, 64, 128, 2
    tokens = 2.0 ** torch.arange(10, 18)
    lines = {
        "MHA, 64 key heads": 2 * heads * size * tokens,
        "GQA, 8 key heads": 2 * 8 * size * tokens,
        "latent of 576 numbers": 576 * tokens,
        "MQA, 1 key head": 2 * size * tokens,
        "GQA, window of 4,096": 2 * 8 * size * tokens.clamp(max=4096),
    }
    figure, axes = new(WIDE, HEIGHT)
    for (name, numbers), style, colour in zip(lines.items(), STYLES, (RED, BLUE, GREEN, ORANGE, INK), strict=False):
        gib = layers * width * numbers / 2**30
        axes.plot(tokens, gib, linestyle=style, color=colour)
        axes.text(tokens[-1] * 1.1, gib[-1], f"{name}: {gib[-1]:.3g} GiB", va="center", fontsize=8, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="tokens in the cache", ylabel="GiB for one row", xlim=(1000, 1.2e6))
    places = [1024, 4096, 16384, 65536, 131072]
    axes.set_xticks(places, [f"{n // 1024}K" for n in places])
    axes.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.grid(axis="y")
    return figure


def online_softmax() -> Figure:
    """Running maximum, sum and quotient over eight blocks of keys."""
    draws = torch.Generator().manual_seed(4)
    scores, values = 2 * torch.randn(64, generator=draws), torch.randn(64, generator=draws)
    most, total, mixed, found = -math.inf, 0.0, 0.0, []
    for part, value in zip(scores.split(8), values.split(8), strict=True):
        new_most = max(most, float(part.max()))
        shrink, weights = math.exp(most - new_most), (part - new_most).exp()
        total, mixed = shrink * total + float(weights.sum()), shrink * mixed + float(weights @ value)
        most = new_most
        found.append((most, total, mixed / total))
    figure, axes = new(WIDE, 2.3, columns=3)
    blocks = range(1, 9)
    titles = ("maximum m", "sum relative to it", "output u / sum")
    for one, title, line in zip(axes, titles, zip(*found, strict=True), strict=True):
        one.plot(blocks, line, "o-", drawstyle="steps-post" if title == titles[0] else "default", color=BLUE)
        one.set(title=title, xlabel="blocks seen", xticks=[1, 4, 8])
    axes[1].set_ylim(bottom=0)
    exact = float(scores.softmax(0) @ values)
    axes[2].axhline(exact, color=RED, lw=1, linestyle="--")
    axes[2].text(1, exact, "exact, all keys", color=RED, fontsize=8, va="bottom")
    return figure


def blocks() -> Figure:
    """What `attend_in_blocks` computes of a square of 512 x 512 scores."""
    figure, axes = new(3.6, 3.3)
    count = 4
    for row in range(count):
        for column in range(count):
            corner, size = (column * BLOCK, row * BLOCK), BLOCK
            if column < row:
                axes.add_patch(Rectangle(corner, size, size, facecolor=BLUE, alpha=0.55, edgecolor="white"))
            elif column > row:
                axes.add_patch(Rectangle(corner, size, size, facecolor=WASH, edgecolor="white", hatch="///"))
            else:
                axes.add_patch(Rectangle(corner, size, size, facecolor=ORANGE, alpha=0.5, edgecolor="white"))
                x, y = corner
                axes.fill([x, x + size, x], [y, y + size, y + size], color=BLUE, alpha=0.55, lw=0)
        axes.text(-12, row * BLOCK + BLOCK / 2, f"block {row}", ha="right", va="center", fontsize=8)
    axes.text(64, 448, "used", ha="center", color="white", fontweight="bold")
    axes.text(448, 64, "never\ncomputed", ha="center", va="center", color=QUIET)
    axes.annotate(
        "computed\nin vain",
        (352, 290),
        (448, 192),
        ha="center",
        va="center",
        fontsize=9,
        arrowprops={"arrowstyle": "-", "color": INK},
    )
    axes.set(xlim=(0, 512), ylim=(512, 0), aspect="equal", xlabel="keys", xticks=range(0, 513, 128), yticks=[])
    axes.set_ylabel("queries", labelpad=44)
    axes.spines[:].set_visible(False)
    return figure


def induction_layers() -> Figure:
    """The nine curves of the experiment."""
    record = json.loads((RUNS / "book" / "induction.json").read_text())
    looks = {"one layer": (RED, ":"), "one layer and smear": (ORANGE, "--"), "two layers": (BLUE, "-")}
    figure, axes = new(WIDE, HEIGHT)
    for curve in record["curves"]:
        colour, style = looks[curve["name"]]
        steps = [curve["every"] * (at + 0.5) for at in range(len(curve["loss"]))]
        label = curve["name"] if curve["seed"] == 0 else None
        axes.plot(steps, curve["loss"], color=colour, linestyle=style, lw=1.4, label=label)
    axes.axhline(math.log(64), color=QUIET, lw=0.8)
    axes.text(steps[-1], math.log(64) + 0.05, "guessing: ln 64", ha="right", va="bottom", fontsize=8, color=QUIET)
    axes.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, 4.7))
    axes.legend(loc=(0.66, 0.33))
    return figure


def turn() -> Figure:
    """Loss of the recorded midtraining, and the share of new strings that it copies."""
    lines = [json.loads(line) for line in (RUNS / "reference" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line.get("stage") == "midtrain"]
    loss = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    copied = [(line["step"] + 1, line["copied"]) for line in lines if "copied" in line]
    figure, axes = new(WIDE, HEIGHT)
    axes.plot(*zip(*loss, strict=True), color=QUIET, lw=1.2)
    axes.set(xlabel="step of midtraining", ylabel="loss, nats a token (line)", ylim=(0, 6.5))
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    low, high = zip(*(wilson(share, 24) for _, share in copied), strict=True)
    steps, shares = zip(*copied, strict=True)
    errors: Any = [
        [100 * (share - one) for share, one in zip(shares, low, strict=True)],
        [100 * (one - share) for share, one in zip(shares, high, strict=True)],
    ]
    right.errorbar(steps, [100 * share for share in shares], yerr=errors, fmt="o", color=BLUE, capsize=3, lw=1.2)
    right.set(ylabel="strings copied without a slip, % (dots)", ylim=(0, 65))
    right.yaxis.label.set_color(BLUE)
    return figure


def heads() -> Figure:
    """Two heads of the shipped model on a conversation in which it copies."""
    model, tokenizer = shipped("rl")
    parts = [Call("find", "ingredients of flatbread"), Output(RECIPE), Text(RECIPE)]
    talk = [message("user", "What do I need for flatbread?"), message("assistant", parts)]
    ids = render(tokenizer, talk, 512).ids
    found = maps(model, torch.tensor([ids]))[:, 0]
    end = ids.index(tokenizer.special("<|output_end|>"))
    stretches = {
        "question": (0, 14),
        "call": (15, 23),
        "find's answer": (end - COPIED, end),
        "copy": (end + 1, len(ids) - 1),
    }
    figure, axes = new(WIDE, 4.0, columns=2)
    at = torch.arange(end, end + COPIED)  # the places that write the recipe
    looks = {"the token before": 1, "what comes next": COPIED}
    for one, (what, back) in zip(axes, looks.items(), strict=True):
        block, head = divmod(int(found[:, :, at, at - back].mean(-1).argmax()), found.shape[1])
        one.imshow(found[block, head] ** 0.6, cmap=AMOUNT, vmin=0, vmax=1, interpolation="nearest")
        for _, high in stretches.values():
            one.axhline(high - 0.5, color=FAINT, lw=0.5)
            one.axvline(high - 0.5, color=FAINT, lw=0.5)
        places = {name: (low + high) / 2 for name, (low, high) in stretches.items() if name != "call"}
        one.set_xticks(list(places.values()), list(places))
        one.xaxis.tick_top()
        one.tick_params(length=0)
        one.set(yticks=[], xlabel="token that is looked at")
        one.set_title(f"L{block}H{head}: {what}")
    axes[0].set_ylabel("token that looks")
    axes[1].add_patch(Rectangle((end - COPIED - 1, end - 1), COPIED + 1, COPIED + 1, fill=False, edgecolor=RED, lw=1.2))
    return figure


def head_scores() -> Figure:
    """Previous-token and induction scores of all heads, on random tokens that come twice, before and after."""
    figure, axes = new(WIDE, 2.4, columns=4)
    length, rows = 50, 16
    draws = torch.Generator().manual_seed(0)
    for column, stage in enumerate(("pretrain", "rl")):
        model, tokenizer = shipped(stage)
        once = torch.randint(300, 3900, (rows, length), generator=draws.manual_seed(0))
        found = maps(model, torch.cat((torch.full((rows, 1), tokenizer.special("<|bos|>")), once, once), dim=1))
        at = torch.arange(length + 1, 2 * length + 1)
        for kind, back in (("1 back", 1), ("induction", length - 1)):
            scores = found[:, :, :, at, at - back].mean((1, 3))
            one = axes[2 * (kind == "induction") + column]
            one.imshow(scores, cmap=AMOUNT, vmin=0, vmax=0.7)
            for block in range(4):
                for head in range(4):
                    value = float(scores[block, head])
                    colour = "white" if value > 0.35 else INK
                    one.text(head, block, f"{value:.2f}"[1:], ha="center", va="center", fontsize=8, color=colour)
            one.set(xticks=range(4), yticks=range(4), xlabel="head")
            one.set_title(f"{kind}\n{'pretrained' if stage == 'pretrain' else 'at the end'}", fontsize=9)
            one.tick_params(length=0)
    axes[0].set_ylabel("block")
    return figure
