"""The figures of chapter 1: what a run takes, what each way of predicting costs, and one sentence through the book."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from educational.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    QUIET,
    RED,
    SKY,
    STYLES,
    arrow,
    bare,
    new,
)
from nanochat.checkpoint import load_model
from nanochat.runtime import Runtime

ROOT = Path(__file__).parents[2]
SENTENCE = "2 cups of flour serve 4"
# The three lines that section 1.3 counts in.
LINES = "2 cups of flour serve 4\n2 cups of rice serve 6\n1 cup of flour serves 2\n"


def record(path: str) -> dict[str, Any]:
    """A record of a run."""
    found: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return found


def figure_of(found: dict[str, Any], **wanted: object) -> dict[str, Any]:
    """The one figure of a record that has these fields."""
    (one,) = (f for f in found["figures"] if all(f.get(name) == value for name, value in wanted.items()))
    return dict(one)


def timed_map() -> Figure:
    """Minutes of each stage of the laptop run, one after another, and what is left for measuring and loading."""
    found = record("runs/laptop.json")
    stages = [(stage["stage"], float(stage["minutes"] or 0)) for stage in found["stages"]]
    whole = found["wall_seconds"] / 60
    stages.append(("the rest", max(0.0, whole - sum(minutes for _, minutes in stages))))
    does = {
        "tokenizer": "learn which pieces to cut text into",
        "pretrain": "guess what comes next in recipes and articles",
        "midtrain": "learn the form of a chat, copying, calling tools",
        "sft": "learn to answer people",
        "rl": "practise, and be graded",
        "the rest": "read and cut the text, measure, write the report",
    }
    figure, axes = new(6.5, 2.9)
    start = 0.0
    for place, (name, minutes) in enumerate(stages):
        colour = QUIET if name == "the rest" else COLOURS[place]
        axes.barh(place, max(minutes, whole * 0.004), left=start, color=colour, height=0.55)
        label = f"{minutes:.1f} min: {does[name]}" if minutes >= 1 else f"{60 * minutes:.0f} s: {does[name]}"
        if start < whole / 2:
            axes.text(start + max(minutes, whole * 0.004) + whole * 0.012, place, label, va="center", fontsize=8)
        else:
            axes.text(start - whole * 0.012, place, label, va="center", ha="right", fontsize=8)
        start += minutes
    axes.set_yticks(range(len(stages)), [name for name, _ in stages])
    axes.set(xlabel="minutes, stage after stage", xlim=(0, whole * 1.02), ylim=(len(stages) - 0.5, -0.5))
    return figure


def bar_to_clear() -> Figure:
    """Bits per byte of held-out recipes and articles: nothing learned, xz, n-grams, the model, with 95 % intervals."""
    found, nothing = record("runs/laptop.json"), record("runs/book/ngram_orders.json")
    names = [("xz", "_xz"), ("trigram", "_trigram"), ("5-gram", "_5gram"), ("our model", "")]
    figure, axes = new(6.5, 2.9)
    for side, (source, label, colour) in enumerate((("recipes", "recipes", BLUE), ("wiki", "articles", RED))):
        for place, (_, ending) in enumerate(names):
            one = figure_of(found, stage="pretrain", name=f"bpb_{source}{ending}")
            x, value = place + 0.38 * side, one["value"]
            axes.bar(x, value, width=0.34, color=colour, hatch="//" if side else "", edgecolor="white",
                     label=label if place == 0 else None)  # fmt: skip
            axes.errorbar(x, value, yerr=[[value - one["low"]], [one["high"] - value]], color=INK, linewidth=1)
            axes.text(x, one["high"] + 0.04, f"{value:.2f}", ha="center", fontsize=8)
    line = figure_of(nothing, name="bpb_uniform")["value"]
    axes.axhline(line, color=QUIET, linestyle="--", linewidth=1)
    axes.text(3.6, line + 0.05, f"every token equally likely: {line:.2f}", color=QUIET, fontsize=8, ha="right")
    axes.set_xticks([place + 0.19 for place in range(4)], [name for name, _ in names])
    axes.set(ylabel="bits per byte", ylim=(0, line * 1.14), xlim=(-0.3, 3.7))
    axes.legend(loc="upper left", bbox_to_anchor=(0.55, 0.9), ncol=2)
    return figure


def more_text() -> Figure:
    """Bits per byte of n-grams by their order, for three amounts of training text, and the model's beside them."""
    found = record("runs/book/ngram_orders.json")
    figure, axes = new(6.5, 2.9)
    for place, (part, label) in enumerate((("1/16", "1/16 of the text"), ("1/4", "1/4"), ("1", "all of it"))):
        rows = [figure_of(found, name="bpb", part=part, order=order) for order in range(1, 6)]
        values = [row["value"] for row in rows]
        axes.plot(range(1, 6), values, STYLES[place], marker="o", color=COLOURS[place], label=label)
        axes.fill_between(
            range(1, 6), [row["low"] for row in rows], [row["high"] for row in rows], color=COLOURS[place], alpha=0.2
        )
        axes.text(5.08, values[-1], f"{values[-1]:.2f}", va="center", color=COLOURS[place], fontsize=8)
    ours = figure_of(record("runs/laptop.json"), stage="pretrain", name="bpb")["value"]
    axes.axhline(ours, color=INK, linewidth=1, linestyle="--")
    axes.text(1.0, ours - 0.09, f"our model, all of it: {ours:.2f}", fontsize=8)
    axes.set_xticks(range(1, 6), ["1: no history", "2: bigram", "3: trigram", "4", "5"])
    axes.set(xlabel="tokens of an n-gram, the predicted one included", ylabel="bits per byte", xlim=(0.9, 5.4))
    axes.set_ylim(bottom=ours - 0.2)
    axes.legend(loc="upper right")
    return figure


def pairs() -> Tensor:
    """How often each character follows each other one in the three lines, and a tenth more."""
    letters = sorted(set(LINES))
    ids = [letters.index(letter) for letter in LINES]
    found = torch.full((len(letters), len(letters)), 0.1, dtype=torch.float64)
    for before, after in itertools.pairwise(ids):
        found[before, after] += 1
    return found


def descent() -> Figure:
    """The loss of a bigram that learns by gradient descent, over what counting costs."""
    counts = pairs()
    best = -(counts * (counts / counts.sum(1, keepdim=True)).log()).sum().item() / counts.sum().item()
    scores, losses = torch.zeros_like(counts, requires_grad=True), []
    for _ in range(201):
        loss = -(counts * scores.log_softmax(-1)).sum() / counts.sum()
        losses.append(loss.item())
        (slope,) = torch.autograd.grad(loss, scores)
        scores = (scores - 25 * slope).detach().requires_grad_()
    figure, (left, right) = new(6.5, 2.6, columns=2)
    left.plot(losses[:41], color=BLUE)
    left.axhline(best, color=RED, linestyle="--", linewidth=1.2)
    left.text(40, best - 0.03, f"counting: {best:.3f}", color=RED, fontsize=8, ha="right", va="top")
    left.text(2, losses[0], f"ln {len(counts)} = {losses[0]:.3f}", fontsize=8, va="center")
    left.set(xlabel="step", ylabel="loss, nats", ylim=(best - 0.25, losses[0] + 0.1), title="The loss")
    right.semilogy([loss - best for loss in losses], color=BLUE)
    right.set(xlabel="step", ylabel="loss over that of counting", title="What is left to gain")
    return figure


def journey() -> Figure:
    """The running example, as it looks in each of the eight chapters."""
    model, tokenizer, _ = load_model(ROOT / "runs/reference/pretrain", Runtime(torch.device("cpu"), torch.float32))
    ids = tokenizer.encode(SENTENCE)
    row = torch.tensor([[tokenizer.special("<|bos|>"), *ids]])
    with torch.no_grad():
        logits = model(row[:, :-1])[0].float()
    nats = float(-logits.log_softmax(-1).gather(1, row[0, 1:, None]).mean())
    size = logits.shape[-1]
    words = "|".join(tokenizer.decode([token]).strip() or "␣" for token in ids)
    numbers = " ".join(map(str, ids))
    steps = [
        ("1", "a sentence", f"{SENTENCE}\nHow likely is it?", BLUE),
        ("3", "bytes, then ids", f"{len(SENTENCE.encode())} bytes, {len(ids)} tokens\n{words}\n{numbers}", ORANGE),
        ("4", "vectors", f"{len(ids)} rows of {logits_width(model)} numbers,\nlayer after layer", GREEN),
        ("5", "attention", "each token looks back\nat those before it", GREEN),
        ("6", "scores and loss", f"{size:,} scores a token;\nloss {nats:.2f}, guessing {math.log(size):.2f}", RED),
        ("2", "gradient", "$p - y$, back through\nevery layer", RED),
        ("7", "update", "each weight a little\nagainst its gradient", PURPLE),
        ("8", "answer", "“How much for 10?”\n“You need 5 cups.”", SKY),
    ]  # fmt: skip
    figure, axes = new(6.5, 3.1)
    bare(axes).set(xlim=(0, 13), ylim=(0.2, 7))
    spots = [(1.55 + 3.3 * (k if k < 4 else 7 - k), 5.3 if k < 4 else 1.9) for k in range(8)]
    for (number, title, text, colour), (x, y) in zip(steps, spots, strict=True):
        frame = {"boxstyle": "round,pad=0,rounding_size=0.1", "facecolor": f"{colour}18", "edgecolor": colour}
        axes.add_patch(FancyBboxPatch((x - 1.45, y - 1.35), 2.9, 2.7, **frame))
        axes.text(x, y + 0.85, f"{number}  {title}", ha="center", va="center", weight="bold", fontsize=8.5)
        axes.text(x, y - 0.3, text, ha="center", va="center", fontsize=6.2 if number == "3" else 7, linespacing=1.8)
    for (x0, y0), (x1, y1) in itertools.pairwise(spots):
        if y0 == y1:
            arrow(axes, (x0 + math.copysign(1.47, x1 - x0), y0), (x1 - math.copysign(1.47, x1 - x0), y1))
        else:
            arrow(axes, (x0, y0 - 1.37), (x1, y1 + 1.37))
    # After an update the next text goes the same way.
    axes.plot([spots[6][0], spots[6][0]], [3.27, 3.6], color=QUIET, linewidth=1.1)
    axes.plot([spots[6][0], spots[2][0] + 0.3], [3.6, 3.6], color=QUIET, linewidth=1.1)
    arrow(axes, (spots[2][0] + 0.3, 3.6), (spots[2][0] + 0.3, 3.93))
    axes.text(spots[6][0] + 0.1, 3.68, "again, with the next text", fontsize=6.6, color=QUIET)
    return figure


def logits_width(model: Any) -> int:
    """Features of a token inside the model: the columns of its head."""
    return int(model.head.weight.shape[1])
