"""The figures of chapter 3."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from educational.figures.style import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, QUIET, RED, WASH, bare, new
from nanochat.tokenizer import PATTERN, Call, Output, Text, Tokenizer, message, render
from nanochat.tokenizer.bpe import compile_pattern, split

ROOT = Path(__file__).parents[2]
SENTENCE = "2 cups of flour serve 4"

# The same instruction, said by us in twelve languages.
LANGUAGES = {
    "English": "Mix the flour with warm water and let the dough rest for one hour.",
    "Spanish": "Mezcla la harina con agua tibia y deja reposar la masa una hora.",
    "French": "Mélangez la farine avec de l'eau tiède et laissez reposer la pâte une heure.",
    "German": "Das Mehl mit warmem Wasser mischen und den Teig eine Stunde ruhen lassen.",
    "Chinese": "把面粉和温水混合,让面团静置一个小时。",
    "Korean": "밀가루를 따뜻한 물과 섞고 반죽을 한 시간 동안 두세요.",
    "Japanese": "小麦粉をぬるま湯と混ぜ、生地を一時間休ませます。",
    "Arabic": "اخلط الدقيق بالماء الدافئ واترك العجين يرتاح لمدة ساعة.",
    "Russian": "Смешайте муку с тёплой водой и дайте тесту отдохнуть один час.",
    "Greek": "Ανακατέψτε το αλεύρι με χλιαρό νερό και αφήστε τη ζύμη να ξεκουραστεί μία ώρα.",
    "Hindi": "आटे को गुनगुने पानी के साथ मिलाएँ और एक घंटे के लिए रख दें।",
    "Thai": "ผสมแป้งกับน้ำอุ่นแล้วพักแป้งไว้หนึ่งชั่วโมง",
}


@cache
def shipped() -> Tokenizer:
    """The vocabulary of the shipped run."""
    return Tokenizer.load(ROOT / "runs" / "reference" / "tokenizer")


@cache
def record(name: str) -> dict:
    """An experiment's record."""
    return json.loads((ROOT / "runs" / "book" / f"{name}.json").read_text())


def values(name: str, figure: str) -> dict:
    """One figure of a record: value, low, high."""
    (found,) = (entry for entry in record(name)["figures"] if entry["name"] == figure)
    return found


def visible(text: str) -> str:
    """Spaces and line ends as something that can be seen."""
    return text.replace(" ", "␣").replace("\n", "↵")


def sentence() -> Figure:
    """The running example: characters, bytes, pieces, tokens with their ids."""
    tokenizer = shipped()
    figure, axes = new(width=6.5, height=2.5)
    bare(axes)
    data = SENTENCE.encode()
    pieces = split(compile_pattern(PATTERN), SENTENCE)
    ids = tokenizer.encode(SENTENCE)
    for place, byte in enumerate(data):
        cell(axes, place, 3, 1, visible(chr(byte)), WASH, size=9)
        cell(axes, place, 2, 1, str(byte), WASH, size=6.5)
    for row, parts, colour in (
        (1, [piece.encode() for piece in pieces], ORANGE),
        (0, [tokenizer.token_bytes(i) for i in ids], BLUE),
    ):
        at = 0
        for part, token in zip(parts, ids, strict=True):
            shown = visible(part.decode()) if row else str(token)
            cell(axes, at, row, len(part), shown, f"{colour}33", edge=colour, size=9)
            at += len(part)
    for row, name in ((3, "characters"), (2, "bytes"), (1, "pieces"), (0, "ids")):
        axes.text(-0.4, row + 0.4, name, ha="right", va="center", fontsize=9, color=QUIET)
    axes.set_xlim(-4.2, len(data) + 0.2)
    axes.set_ylim(-0.1, 4)
    return figure


def cell(
    axes: Axes, x: float, row: float, width: float, text: str, fill: str, edge: str = FAINT, size: float = 9
) -> None:
    """A box of a row, with its text."""
    axes.add_patch(Rectangle((x + 0.04, row), width - 0.08, 0.8, facecolor=fill, edgecolor=edge, linewidth=0.9))
    axes.text(x + width / 2, row + 0.4, text, ha="center", va="center", fontsize=size)


def merge_tree() -> Figure:
    """Which merges made four of the sentence's tokens."""
    tokenizer = shipped()
    figure, axes = new(width=6.5, height=2.9)
    bare(axes)
    left = 0.0
    for word in (" cups", " of", " flour", " serve"):
        (token,) = tokenizer.encode(word)
        top = draw_tree(axes, tokenizer, token, left)[1]
        axes.text(left + (len(word) - 1) / 2, top + 0.62, f"“{visible(word)}”", ha="center", fontsize=10, color=INK)
        left += len(word) + 0.9
    axes.set_xlim(-0.7, left - 1.1)
    axes.set_ylim(-0.5, 4)
    return figure


def draw_tree(axes: Axes, tokenizer: Tokenizer, token: int, left: float) -> tuple[float, float]:
    """(x, y) of the token's node; its bytes stand in a row from `left` on."""
    spelled = tokenizer.token_bytes(token)
    if token < 256:
        axes.text(left, 0, visible(spelled.decode()), ha="center", va="center", fontsize=10,
                  bbox={"boxstyle": "round,pad=0.25", "facecolor": WASH, "edgecolor": FAINT})  # fmt: skip
        return left, 0.0
    first, second = tokenizer.merges[token - 256]
    a = draw_tree(axes, tokenizer, first, left)
    b = draw_tree(axes, tokenizer, second, left + len(tokenizer.token_bytes(first)))
    x, y = (a[0] + b[0]) / 2, max(a[1], b[1]) + 1.0
    for child in (a, b):
        axes.plot([x, child[0]], [y, child[1]], color=QUIET, linewidth=1, zorder=0)
    axes.text(x, y, str(token), ha="center", va="center", fontsize=8.5,
              bbox={"boxstyle": "round,pad=0.25", "facecolor": "#dbeaf5", "edgecolor": BLUE})  # fmt: skip
    return x, y


def chat_mask() -> Figure:
    """A conversation's tokens, those that are learned filled."""
    tokenizer = shipped()
    talk = [
        message("user", "2 cups of flour serve 4. How many for 6?"),
        message("assistant", [Call("calculator", "2/4*6"), Output("3"), Text("3 cups.")]),
    ]
    ids, mask = render(tokenizer, talk)
    specials = set(tokenizer.specials.values())
    figure, axes = new(width=6.5, height=2.55)
    bare(axes)
    x, y, right = 0.0, 0.0, 62.0
    for token, bit in zip(ids, mask, strict=True):
        special = token in specials
        shown = visible(tokenizer.decode([token])).replace("<|", "").replace("|>", "")
        width = len(shown) * (0.95 if special else 1.05) + 1.3
        if x + width > right:
            x, y = 0.0, y - 1.5
        fill = f"{GREEN}55" if bit else WASH
        axes.add_patch(Rectangle((x + 0.12, y), width - 0.24, 1.05, facecolor=fill, edgecolor=GREEN if bit else QUIET,
                                 linewidth=1.4 if bit else 0.7, linestyle="-" if bit else (0, (3, 2))))  # fmt: skip
        axes.text(x + width / 2, y + 0.52, shown, ha="center", va="center", fontsize=6.6 if special else 8,
                  color=PURPLE if special else INK, family="monospace")  # fmt: skip
        x += width
    y -= 1.6
    for at, fill, edge, style, words in ((0, f"{GREEN}55", GREEN, "-", "mask 1: the assistant has to say it"),
                                         (30, WASH, QUIET, (0, (3, 2)), "mask 0: others say it")):  # fmt: skip
        axes.add_patch(Rectangle((at, y), 2, 0.8, facecolor=fill, edgecolor=edge, linestyle=style))
        axes.text(at + 2.8, y + 0.4, words, va="center", fontsize=8)
    axes.set_xlim(-0.5, right + 0.5)
    axes.set_ylim(y - 0.3, 1.4)
    return figure


def cost_by_language() -> Figure:
    """Characters, bytes and tokens of one instruction in twelve languages."""
    tokenizer = shipped()
    rows = [(name, len(text), len(text.encode()), len(tokenizer.encode(text))) for name, text in LANGUAGES.items()]
    rows.sort(key=lambda row: row[3])
    figure, axes = new(width=6.5, height=3.9)
    places = np.arange(len(rows))
    english = next(row[3] for row in rows if row[0] == "English")
    axes.barh(places, [row[3] for row in rows], 0.62, color=BLUE, alpha=0.85, label="tokens, shipped vocabulary")
    axes.plot([row[2] for row in rows], places, "|", color=RED, markersize=13, markeredgewidth=2, label="bytes (UTF-8)")
    axes.plot([row[1] for row in rows], places, "o", color=INK, markersize=4, label="characters")
    for place, row in zip(places, rows, strict=True):
        axes.text(max(row[2], row[3]) + 3, place, f"{row[3] / english:.1f} ×", va="center", fontsize=8, color=BLUE)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 168)
    axes.set_xlabel("one instruction (mix flour with water, let the dough rest)")
    axes.legend(loc="upper right")
    return figure


def untrained_rows() -> Figure:
    """Length of each row of the pretrained embedding, against how often its token occurs in the training text."""
    from safetensors.torch import load_file

    weights = load_file(ROOT / "runs" / "reference" / "pretrain" / "step_001000" / "model.safetensors")
    lengths = weights["embedding.weight"].double().norm(dim=1).numpy()
    occurs = np.array(record("vocabulary_details")["occurrences"])
    lengths = lengths[: len(occurs)]
    figure, axes = new(width=6.5, height=3.2)
    x = np.maximum(occurs, 0.5)
    single = np.arange(len(occurs)) < 256
    axes.scatter(x[~single], lengths[~single], s=5, color=BLUE, alpha=0.35, linewidths=0, label="merged tokens")
    axes.scatter(x[single], lengths[single], s=12, color=RED, marker="x", linewidths=0.9, label="single bytes")
    axes.axhline(0.8 * math.sqrt(256), color=QUIET, linewidth=1, linestyle="--")
    axes.text(
        1.5e5, 0.8 * 16 - 1.5, "length at the start: 0.8 √256 = 12.8", ha="right", va="top", fontsize=8, color=QUIET
    )
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([0.5, 1, 10, 100, 1000, 10_000, 100_000], ["never", "1", "10", "100", "1,000", "10,000", "100,000"])
    axes.set_xlabel("occurrences in the training text")
    axes.set_ylabel("length of the embedding row")
    axes.set_ylim(0, None)
    axes.annotate(
        "“␣minut”, “@” and\n70 others",
        (0.5, 14.5),
        (0.33, 34),
        fontsize=8,
        arrowprops={"arrowstyle": "-", "color": QUIET},
    )
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.2))
    return figure


def sizes(axes: Axes) -> None:
    """An axis of vocabulary sizes."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([256, 1024, 4096, 16384]))
    axes.xaxis.set_minor_locator(FixedLocator([512, 2048, 8192, 32768]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("vocabulary V")


def bytes_a_token() -> Figure:
    """Two panels against V: bytes a token, and what a model that knows nothing, or only frequencies, pays."""
    size = [1 << power for power in range(8, 16)]
    figure, (left, right) = new(width=6.5, height=2.9, columns=2)
    for kind, style, colour in (("cookbook_", "--", ORANGE), ("", "-", BLUE), ("wikipedia_", ":", PURPLE)):
        found = [values("vocabulary", f"bytes_a_token_{kind}{v}") for v in size]
        y = [one["value"] for one in found]
        left.plot(size, y, style, color=colour, label={"": "both"}.get(kind, kind[:-1].capitalize()))
        left.fill_between(size, [one["low"] for one in found], [one["high"] for one in found], color=colour, alpha=0.2)
    sizes(left)
    left.set_ylabel("bytes a token, held-out text")
    left.set_ylim(0, None)
    left.legend(loc="lower right")
    for kind, style, colour, words in (
        ("uniform", "-", BLUE, "all tokens alike: log₂ V / b"),
        ("unigram", "--", RED, "token frequencies"),
    ):
        found = [values("vocabulary", f"{kind}_bits_{v}") for v in size]
        right.plot(size, [one["value"] for one in found], style, color=colour, label=words)
    sizes(right)
    right.set_ylabel("bits per byte, held-out text")
    right.set_ylim(2, 8.3)
    right.legend(loc="upper right")
    return figure


def merge_growth() -> Figure:
    """How often each merge was made when it was learned, and where the uniform code stops gaining."""
    details = record("vocabulary_details")
    (size,) = (entry["value"] for entry in details["figures"] if entry["name"] == "training_bytes")
    counts = np.array(details["merge_counts"], dtype=float)
    tokens = size - np.concatenate([[0], np.cumsum(counts)[:-1]])
    vocab = 256 + np.arange(len(counts))
    figure, axes = new(width=6.5, height=3.0)
    axes.loglog(1 + np.arange(len(counts)), counts, color=BLUE, label="occurrences of the pair that is merged")
    axes.loglog(1 + np.arange(len(counts)), tokens * np.log1p(1 / vocab) / np.log(vocab + 1), "--", color=RED,
                label="break-even of (3.5)")  # fmt: skip
    axes.set_xlabel("merge number")
    axes.set_ylabel("occurrences")
    tokenizer = shipped()
    for rank in (0, 20, 445, 1090, 3700):
        token = 256 + rank
        axes.plot(rank + 1, counts[rank], "o", color=BLUE)
        axes.annotate(
            f"“{visible(tokenizer.decode([token]))}”",
            (rank + 1, counts[rank]),
            (4, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axes.legend(loc="lower left")
    return figure
