"""Figures of chapter 04."""

import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from educational.checks.ch04 import counted
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
    WIDE,
    arrow,
    bare,
    box,
    new,
)
from nanochat.checkpoint import find_run, load_model
from nanochat.gpt import GPT, GPTConfig
from nanochat.plan import count_parameters, flops_per_token, plan
from nanochat.runtime import detect

RECORDS = Path(__file__).parents[2] / "runs/book"
RECIPE = """Pancakes\n\nIngredients:\n- 2 cups flour\n- 2 eggs\n- 1 cup milk\n- 1 teaspoon salt\n
Steps:\n1. Mix the flour and the salt in a bowl.\n2. Add the eggs and the milk.\n3. Fry in a hot pan until golden.\n"""


def staircase() -> Figure:
    """Bits per held-out byte by step, each step of the staircase over three seeds."""
    figures = json.loads((RECORDS / "staircase.json").read_text())["figures"]
    names = {
        "01_bigram": "1 bigram",
        "02_mlp": "2 MLP",
        "03_attention": "3 attention",
        "04_block": "4 blocks",
        "05_gpt": "5 GPT",
    }
    figure, axes = new(WIDE, 3.6)
    for number, (one, label) in enumerate((f, names[f["name"]]) for f in figures if f["name"] in names):
        steps = [step for step, _ in one["curves"][0]]
        columns = list(zip(*([bits for _, bits in curve] for curve in one["curves"]), strict=True))
        middle = [sum(bits) / len(bits) for bits in columns]
        axes.fill_between(
            steps, [min(b) for b in columns], [max(b) for b in columns], color=COLOURS[number], alpha=0.25, lw=0
        )
        axes.plot(steps, middle, color=COLOURS[number], ls=STYLES[number], label=f"{label}: {middle[-1]:.2f}")
    axes.set(xlabel="steps", ylabel="bits per held-out byte", ylim=(1.5, 5), xlim=(0, steps[-1]))
    axes.legend(title="after the last step")
    axes.grid(axis="y")
    return figure


def shapes() -> Figure:
    """The model as a diagram, with the shapes of the running example."""
    figure, axes = new(WIDE, 5.4)
    bare(axes).set(xlim=(0, 10), ylim=(0, 10.2))
    axes.plot([2, 2], [1.62, 7.93], color=INK, lw=5, solid_capstyle="butt", zorder=1)
    axes.text(1.75, 4.7, "residual stream   7 × 256", rotation=90, ha="right", va="center", color=INK)
    box(axes, 2, 0.4, "7 ids", QUIET, 1.6, 0.6)
    box(axes, 2, 1.3, "embedding, norm", BLUE, 2.6, 0.6)
    arrow(axes, (2, 0.7), (2, 1.0))
    for bottom, label, inner, colour in (
        (
            2.1,
            "attention",
            "queries 7 × 256 (4 heads of 64)\nkeys, values 7 × 64 each (1 head)\nRoPE, QK-norm, causal mean",
            GREEN,
        ),
        (4.7, "MLP", "up 7 × 1024\nmax(0, z)²\ndown 7 × 256", ORANGE),
    ):
        middle = bottom + 1.1
        box(axes, 4.0, middle, "norm\n7 × 256", QUIET, 1.3, 0.9)
        box(axes, 7.1, middle, f"{label}\n{inner}", colour, 3.9, 1.7)
        axes.plot([2, 2.7], [bottom, bottom], color=QUIET, lw=1.1)
        axes.plot([2.7, 2.7], [bottom, middle], color=QUIET, lw=1.1)
        arrow(axes, (2.7, middle), (3.35, middle))
        arrow(axes, (4.65, middle), (5.15, middle))
        axes.plot([9.05, 9.4], [middle, middle], color=QUIET, lw=1.1)
        axes.plot([9.4, 9.4], [middle, bottom + 2.2], color=QUIET, lw=1.1)
        arrow(axes, (9.4, bottom + 2.2), (2.2, bottom + 2.2))
        axes.plot(2, bottom + 2.2, "o", color="white", mec=INK, ms=11, zorder=3)
        axes.text(2, bottom + 2.2, "+", ha="center", va="center", zorder=4)
    axes.add_patch(Rectangle((1.0, 1.85), 8.75, 5.45, fill=False, ec=QUIET, ls="--", lw=0.9))
    axes.text(9.7, 7.45, "block, × 4", ha="right", color=QUIET)
    box(axes, 2, 8.2, "norm", QUIET, 1.6, 0.5)
    box(axes, 2, 9.2, "head   7 × 3968", BLUE, 2.6, 0.6)
    box(axes, 6.2, 9.2, "15 tanh(z / 15)   7 × 3968 logits", RED, 4.4, 0.6)
    arrow(axes, (2, 8.45), (2, 8.9))
    arrow(axes, (3.3, 9.2), (4.0, 9.2))
    return figure


def size(x: torch.Tensor) -> float:
    """Root mean square of a token's features, the mean over tokens."""
    return x.square().mean(-1).sqrt().mean().item()


def sizes_of(model: GPT, ids: torch.Tensor) -> tuple[list[float], list[float]]:
    """(size of each write, size of the stream at each place)."""
    stream: list[torch.Tensor] = []
    writes: list[float] = []

    def add(module: object, given: object, write: torch.Tensor) -> None:
        writes.append(size(write))
        stream.append(stream[-1] + write)

    model.blocks[0].register_forward_pre_hook(lambda module, given: stream.append(given[0]))
    for block in model.blocks:
        block.attention.register_forward_hook(add)
        block.mlp.register_forward_hook(add)
    with torch.no_grad():
        model.features(ids)
    return writes, [size(x) for x in stream]


def residual_norm() -> Figure:
    """Size of the stream by depth, and of each write to it."""
    model, tokenizer, _ = load_model(find_run("reference:pretrain"), detect("cpu", "float32", threads=1))
    fresh = GPT(model.config)
    fresh.init_weights()
    ids = torch.tensor([tokenizer.encode(RECIPE)])[:, :-1]
    writes, stream = sizes_of(model, ids)
    _, start = sizes_of(fresh, ids)
    square = [(stream[0] ** 2 + sum(w**2 for w in writes[:n])) ** 0.5 for n in range(len(writes) + 1)]
    figure, (left, right) = new(WIDE, 3.0, columns=2)
    left.plot(stream, "o-", color=BLUE, label="trained")
    left.plot(square, "--", color=QUIET, label="trained, by (4.4)")
    left.plot(start, "s:", color=RED, label="fresh")
    left.set(xlabel="writes so far", ylabel="root mean square", ylim=(0, 8.2), title="the stream")
    left.legend()
    places = range(4)
    right.bar([p - 0.2 for p in places], writes[::2], 0.38, color=GREEN, label="attention")
    right.bar([p + 0.2 for p in places], writes[1::2], 0.38, color=ORANGE, hatch="//", edgecolor="white", label="MLP")
    right.set(xlabel="layer", xticks=list(places), title="what each part writes", ylim=(0, 4.9))
    right.legend()
    return figure


def norm_places() -> Figure:
    """What is left of the first vector after n writes, by where the norm stands; and what was learned."""
    figure, (left, right) = new(WIDE, 3.2, columns=2)
    n = range(0, 49)
    for colour, sigma in ((BLUE, 1.0), (RED, 0.5)):
        left.plot(n, [(1 + k * sigma**2) ** -0.5 for k in n], "-", color=colour, label=f"before, writes of {sigma:g}")
        left.plot(n, [(1 + sigma**2) ** (-k / 2) for k in n], "--", color=colour, label=f"after, writes of {sigma:g}")
    left.set(yscale="log", ylim=(1e-7, 1.5), xlim=(0, 48), xlabel="writes (two a layer)", title="cosine with the start")
    left.legend(loc="lower left")
    left.grid(axis="y")
    figures = json.loads((RECORDS / "norm_places.json").read_text())["figures"]
    names = [("before", "zero"), ("after", "zero"), ("before", "drawn"), ("after", "drawn")]
    for place, (norm, start) in enumerate(names):
        one = next(f for f in figures if (f["norm"], f["start"], f["name"]) == (norm, start, "bits"))
        right.bar(
            place, one["value"], 0.6, color=BLUE, alpha=0.6, hatch="" if norm == "before" else "//", edgecolor="white"
        )
        right.plot([place, place], [one["low"], one["high"]], color=INK, lw=1.5)
        right.text(place, one["high"] + 0.1, f"{one['value']:.2f}", ha="center")
    right.set(xticks=range(4), xticklabels=[f"{norm}\n{start}" for norm, start in names], ylim=(0, 5.3))
    right.set(title="bits per byte after 100 steps")
    return figure


def silenced() -> Figure:
    """Nats a token that are lost when a part is silenced, by layer."""
    figures = json.loads((RECORDS / "silent_layers.json").read_text())["figures"]
    figure, axes = new(WIDE, 2.8)
    for shift, part, label, colour, hatch in (
        (-0.2, "attention", "attention", GREEN, ""),
        (0.2, "mlp", "MLP", ORANGE, "//"),
    ):
        found = [f for f in figures if f["source"] == "cookbook" and f["part"] == part and f["layer"] != "1+2"]
        places = [f["layer"] + shift for f in found]
        axes.bar(places, [f["value"] for f in found], 0.38, color=colour, hatch=hatch, edgecolor="white", label=label)
        for place, one in zip(places, found, strict=True):
            axes.plot([place, place], [one["low"], one["high"]], color=INK, lw=1)
            axes.text(place, one["high"] + 0.05, f"{one['value']:.2f}", ha="center", fontsize=8)
    axes.set(xlabel="layer", xticks=range(4), ylabel="nats a token lost", ylim=(0, 2.6))
    axes.legend()
    return figure


def where_parameters_lie() -> Figure:
    """Shares of the parameters by part, for three models."""
    shipped = GPTConfig(3968, 4, 4, 1, 256, 256, smear=True, value_embeddings=True)
    models = [
        ("shipped", count_parameters(shipped)),
        ("depth 12", plan(12, vocab_size=32_768, context=2048, kv_heads=0).parameters),
        ("depth 20", plan(20, vocab_size=65_536, context=2048, kv_heads=0).parameters),
    ]
    parts = {"embedding": BLUE, "values": SKY, "attention": GREEN, "mlp": ORANGE, "head": PURPLE}
    figure, axes = new(WIDE, 2.3)
    for row, (_, counts) in enumerate(models):
        total, at = sum(counts.values()), 0.0
        for part, colour in parts.items():
            share = 100 * counts.get(part, 0) / total
            axes.barh(row, share, left=at, color=colour, alpha=0.55, edgecolor="white", height=0.62)
            if share > 3:
                label = {"mlp": "MLP", "values": "values"}.get(part, part)
                axes.text(at + share / 2, row, f"{label}\n{share:.0f} %", ha="center", va="center", fontsize=8)
            at += share
        axes.text(101, row, f"{total / 1e6:,.1f} M" if total < 1e7 else f"{total / 1e6:,.0f} M", va="center")
    axes.set(
        yticks=range(3),
        yticklabels=[name for name, _ in models],
        xlim=(0, 112),
        xticks=range(0, 101, 20),
        xlabel="percent of the parameters",
    )
    axes.invert_yaxis()
    return figure


def kept(config: GPTConfig, rows: int) -> int:
    """Bytes that the forward pass keeps for the backward pass, in bfloat16."""
    model = GPT(config, torch.bfloat16)
    model.init_weights()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        found[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model.features(torch.zeros(rows, config.context, dtype=torch.long))
    return sum(x.untyped_storage().nbytes() for place, x in found.items() if place not in own)


def calculator() -> Figure:
    """Operations and memory, measured over predicted."""
    figure, (left, right) = new(WIDE, 3.0, columns=2)
    lengths = (64, 128, 256, 512, 1024)
    for number, depth in enumerate((2, 4, 6)):
        configs = [plan(depth, vocab_size=4096, context=t).model for t in lengths]
        left.plot(
            lengths,
            [counted(c) / flops_per_token(c) for c in configs],
            "o",
            ls=STYLES[number],
            color=COLOURS[number],
            label=f"depth {depth}",
        )
        rows = [max(1, 2048 // c.context) for c in configs]
        planned = [48 * r * c.context * c.n_layer * c.n_embd for r, c in zip(rows, configs, strict=True)]
        right.plot(
            lengths,
            [kept(c, r) / p for c, r, p in zip(configs, rows, planned, strict=True)],
            "o",
            ls=STYLES[number],
            color=COLOURS[number],
        )
    for axes, title in ((left, "operations, measured / (4.11)"), (right, "kept for backward, measured / plan")):
        axes.axhline(1, color=QUIET, lw=0.8)
        axes.set(
            xscale="log", xlabel="tokens a row", xticks=lengths, xticklabels=[str(t) for t in lengths], title=title
        )
        axes.minorticks_off()
    left.set(ylim=(0.75, 1.03))
    right.set(ylim=(0.5, 1.3))
    left.legend()
    return figure
