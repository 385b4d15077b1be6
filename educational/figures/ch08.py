"""Chapter 8's figures: broken runs, four ways to draw, the states of an answer, the logit lens, speed, bits."""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from educational.figures.style import (
    AMOUNT,
    BLUE,
    COLOURS,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    QUIET,
    RED,
    STYLES,
    WIDE,
    arrow,
    bare,
    box,
    new,
)
from nanochat.checkpoint import load_model, run_folder
from nanochat.engine import Engine, Sampling
from nanochat.gpt import GPT, GPTConfig, rms_norm
from nanochat.optim import build_optimizer, trapezoid
from nanochat.runtime import detect
from nanochat.sampling import distribution
from nanochat.tasks.measures import convert
from nanochat.tokenizer import message, prompt
from nanochat.tools import Calculator
from nanochat.train import Batch, train

ROOT = Path(__file__).parents[2]
QUESTION = "2 cups of flour serve 4. How much for 10?"


def record(name: str) -> dict[str, Any]:
    """What an experiment of the chapter wrote."""
    found: dict[str, Any] = json.loads((ROOT / "runs" / "book" / f"{name}.json").read_text())
    return found


def shipped(stage: str) -> tuple[GPT, Any]:
    model, tokenizer, _ = load_model(run_folder("reference") / stage, detect("cpu", "float32", threads=1))
    return model, tokenizer


def symptoms() -> Figure:
    """Loss by step of four runs on a text of a few hundred letters: one healthy, three broken."""
    text = torch.tensor(list((ROOT / "LICENSE").read_bytes()))
    runs = {"healthy": (1, 1.0), "learning rate 0": (1, 0.0), "targets unshifted": (0, 1.0), "rate x 100": (1, 100.0)}
    figure, axes = new(WIDE, 3.0)
    for number, (name, (shift, rate)) in enumerate(runs.items()):
        model = GPT(GPTConfig(256, 2, n_head=2, n_kv_head=1, n_embd=64, context=32))
        model.init_weights(0)
        optimizer = build_optimizer(model, matrix_lr=0.02 * rate, embedding_lr=0.2 * rate, head_lr=0.01 * rate)
        steps = train(model, optimizer, windows(text, shift), trapezoid(40, 3, 12), steps=40)
        losses = [step.loss for step in steps]
        colour = [BLUE, PURPLE, RED, ORANGE][number]
        axes.plot(losses, color=colour, linestyle=STYLES[number])
        axes.text(40.5, max(losses[-1], 0.2), name, va="center", color=colour)
    axes.text(20, 5.65, "ln 256", color=QUIET, fontsize=8)
    axes.set(xlabel="step", ylabel="loss (nats a token)", ylim=(0, None), xlim=(0, 52))
    axes.set_xticks(range(0, 41, 10))
    axes.spines["bottom"].set_bounds(0, 40)
    return figure


def windows(text: Tensor, shift: int, size: int = 32, count: int = 8) -> Any:
    for step in itertools.count():
        draws = torch.Generator().manual_seed(step)
        at = torch.randint(len(text) - size - 1, (count, 1), generator=draws) + torch.arange(size)
        yield Batch(text[at], text[at + shift], torch.ones(count, size), {})


def sampling() -> Figure:
    """The twelve likeliest tokens after "- 1 cup", as they are and as three knobs leave them."""
    model, tokenizer = shipped("pretrain")
    ids = [tokenizer.special("<|bos|>"), *tokenizer.encode("Chocolate Cake\n\nIngredients:\n- 1 cup")]
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1]
    order = logits[0].topk(12).indices
    knobs = {
        "as it is": Sampling(),
        "temperature 0.5": Sampling(temperature=0.5),
        "top-k 5": Sampling(top_k=5),
        "top-p 0.5": Sampling(top_p=0.5),
    }
    figure, panels = new(WIDE, 3.0, 1, 4, sharey=True)
    names = [tokenizer.decode([int(token)]).strip() or "space" for token in order]
    for panel, (name, knob), colour in zip(panels, knobs.items(), [QUIET, BLUE, GREEN, ORANGE], strict=True):
        p = distribution(logits, knob)[0].exp()
        panel.barh(range(12), p[order], color=colour, height=0.75)
        alive = int((p > 0).sum())
        panel.set_title(name, fontsize=9)
        rest = float(1 - p[order].sum())
        panel.text(
            0.97,
            0.03,
            f"{alive:,} tokens left\nother tokens: {abs(rest):.2f}",
            transform=panel.transAxes,
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=QUIET,
        )
        panel.set_xlim(0, 0.6)
    panels[0].set_yticks(range(12), names)
    panels[0].invert_yaxis()
    figure.supxlabel("probability", fontsize=9)
    return figure


def tools() -> Figure:
    """The states of an answer, and the tokens that lead from one to the next."""
    figure, axes = new(WIDE, 2.7)
    bare(axes)
    axes.set(xlim=(0, 10), ylim=(0, 4))
    box(axes, 2.2, 2.6, "text", BLUE, 1.5, 0.8)
    box(axes, 7.6, 3.3, "call", BLUE, 1.5, 0.8)
    box(axes, 7.6, 1.4, "output", ORANGE, 1.5, 0.8)
    box(axes, 0.95, 0.5, "stop", GREEN, 1.3, 0.6)
    box(axes, 3.6, 0.5, "malformed", RED, 1.7, 0.6)
    arrow(axes, (2.95, 2.85), (6.85, 3.4), BLUE)
    axes.text(4.8, 3.35, "<|call_start|>", ha="center", color=BLUE, fontsize=8)
    arrow(axes, (7.6, 2.9), (7.6, 1.8), ORANGE)
    axes.text(
        7.75,
        2.35,
        "<|call_end|>  drawn; then the tool is run\nand <|output_start|> put in",
        va="center",
        color=INK,
        fontsize=7.5,
    )
    arrow(axes, (6.85, 1.5), (2.95, 2.4), ORANGE)
    axes.text(4.9, 1.55, "<|output_end|>", ha="center", color=ORANGE, fontsize=8)
    arrow(axes, (1.9, 2.2), (1.1, 0.8), BLUE)
    axes.text(1.25, 1.5, "<|assistant_end|>", ha="right", color=BLUE, fontsize=8)
    arrow(axes, (2.5, 2.2), (3.4, 0.8), RED)
    axes.text(3.35, 0.98, "any other special token", color=RED, fontsize=8)
    axes.set_xlim(-0.9, 10.9)
    return figure


def lens() -> Figure:
    """Layers by tokens of the answer: the likeliest next token there, coloured by the probability of the true one."""
    model, tokenizer = shipped("rl")
    engine = Engine(model, tokenizer, detect("cpu", "float32", threads=1), {"calculator": Calculator(convert)})
    asked = prompt(tokenizer, [message("user", QUESTION)])
    written = engine.generate([asked], Sampling(temperature=0, max_tokens=40))[0].ids
    seen: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for block in model.blocks]
    with torch.no_grad():
        last = model.features(torch.tensor([asked + written]))
        streams = [rms_norm(x, model.config.norm_eps) for x in seen] + [last]
        laws = torch.stack([model.logits(x)[0].softmax(-1) for x in streams])
    for hook in hooks:
        hook.remove()
    specials = {token: name for name, token in tokenizer.specials.items()}
    short = {"call_start": "call", "call_end": "/call", "output_start": "out", "output_end": "/out"}
    short["assistant_end"] = "end"

    def spell(token: int) -> str:
        name = specials.get(token, "").strip("<|>")
        return short.get(name, name) or tokenizer.decode([token]).replace(" ", "·").replace("\n", "↵")

    laws = laws[:, len(asked) - 1 : -1]
    true = laws.gather(2, torch.tensor(written)[None, :, None].expand(len(laws), -1, 1))[..., 0]
    figure, axes = new(WIDE, 3.0)
    picture = axes.imshow(true, cmap=AMOUNT, vmin=0, vmax=1, aspect="auto", origin="lower")
    for layer in range(len(laws)):
        for place in range(len(written)):
            word = spell(int(laws[layer, place].argmax()))
            dark = float(true[layer, place]) > 0.55
            axes.text(
                place,
                layer,
                word[:7],
                ha="center",
                va="center",
                fontsize=5.2,
                rotation=0,
                color="white" if dark else INK,
            )
    axes.set_xticks(
        range(len(written)),
        [spell(token) for token in written],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        fontsize=7,
    )
    axes.set_yticks(range(len(laws)), ["embedding", *(f"block {n}" for n in range(1, len(laws)))])
    axes.set_xlabel("token that was written (· is a space)")
    figure.colorbar(picture, ax=axes, label="its probability", pad=0.01)
    return figure


def decoding() -> Figure:
    """Tokens a second by rows: engine and model as measured, and the roof."""
    found = record("decoding")
    limits = found["limits"]
    figure, axes = new(WIDE, 3.2)
    for number, name in enumerate(("model", "engine")):
        rows = [f for f in found["figures"] if f["name"] == name]
        batches, values = [f["batch"] for f in rows], [f["value"] for f in rows]
        label = "the model alone, measured" if name == "model" else "the engine, measured"
        axes.plot(batches, values, color=COLOURS[number], marker="os"[number], linestyle=STYLES[number], label=label)
        axes.fill_between(
            batches, [f["low"] for f in rows], [f["high"] for f in rows], color=COLOURS[number], alpha=0.2, linewidth=0
        )
    batches = [2 ** (n / 4) for n in range(29)]
    step = [
        max(
            limits["bytes_per_step"] / limits["bytes_per_second"],
            b * limits["flops_per_token"] / limits["flops_per_second"],
        )
        for b in batches
    ]
    axes.plot(
        batches,
        [b / t for b, t in zip(batches, step, strict=True)],
        color=QUIET,
        linestyle=":",
        label="roof: reading weights, then multiplying",
    )
    axes.set(xscale="log", yscale="log", xlabel="rows at once", ylabel="tokens a second")
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128], ["1", "2", "4", "8", "16", "32", "64", "128"])
    axes.minorticks_off()
    axes.legend(loc="lower right")
    return figure


def bits() -> Figure:
    """Bits per byte, and sums answered, by bits a weight, for three sizes of group."""
    found = record("quantisation")["figures"]
    figure, (left, right) = new(WIDE, 3.2, 1, 2)
    names = {"matrix": "one scale a matrix", "row": "one a row", "32": "one for 32 numbers"}
    for number, (group, label) in enumerate(names.items()):
        extra = 0.5 if group == "32" else 0.0
        look = {"color": COLOURS[number], "marker": "o^s"[number], "linestyle": STYLES[number]}
        rows = sorted(
            (f for f in found if (f["name"], f.get("part"), f["group"]) == ("worse", "all", group)),
            key=lambda f: f["bits"],
        )
        x = [f["bits"] + extra for f in rows]
        left.plot(x, [f["value"] for f in rows], label=label, **look)
        left.fill_between(
            x, [f["low"] for f in rows], [f["high"] for f in rows], color=COLOURS[number], alpha=0.15, linewidth=0
        )
        sums = sorted((f for f in found if f["name"] == "sums" and f["group"] == group), key=lambda f: f["bits"])
        if sums:
            right.plot([f["bits"] + extra for f in sums], [100 * f["value"] for f in sums], **look)
    left.plot([3, 8], [0.2, 0.2 / 4**5], color=QUIET, linestyle=":", linewidth=1)
    left.set_yscale("symlog", linthresh=1e-3)
    left.set_yticks([0, 1e-3, 1e-2, 0.1, 1], ["0", "0.001", "0.01", "0.1", "1"])
    left.minorticks_off()
    left.set(xlabel="bits a weight, scales counted", ylabel="bits per byte more than at 16 bits", ylim=(-3e-4, 4))
    left.legend(loc="upper right")
    before = next(f for f in found if f["name"] == "sums" and f["bits"] == 16)
    right.axhline(100 * before["value"], color=QUIET, linestyle=":", linewidth=1)
    right.set(xlabel="bits a weight, scales counted", ylabel="sums answered rightly (%)", ylim=(0, 100))
    return figure
