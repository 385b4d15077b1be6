"""Curves as SVG that lives inside the page: it takes the page's colours and fonts, and says in words what it shows.

Each plot is drawn twice, wide and narrow, and the page shows the one that fits. matplotlib is imported late: importing
this module has no effect, and importing that one writes a cache of fonts.
"""

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.evaluate.figures import Figure
from nanochat.report.read import Run, StageRecord
from nanochat.report.words import baseline_title, beside, is_baseline, plain

WIDE, NARROW = 704, 340  # CSS pixels; a point of the drawing is one
POINTS = 240  # of a curve: more than a screen can tell apart
# matplotlib wants colours of its own; these stand for the page's, and are replaced by them.
COLOURS = {
    "ink": "#010101", "quiet": "#010102", "line": "#010103",
    "pretrain": "#010201", "midtrain": "#010202", "sft": "#010203", "rl": "#010204", "tokenizer": "#010205",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nanochat",
    "text.parse_math": False,
    "font.size": 12.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.edgecolor": COLOURS["line"], "axes.labelcolor": COLOURS["quiet"], "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["line"], "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["quiet"], "ytick.labelcolor": COLOURS["quiet"],
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": COLOURS["line"], "grid.linewidth": 0.6,
    "lines.linewidth": 1.8, "lines.solid_capstyle": "round",
}  # fmt: skip
Series = list[tuple[float, float]]
Draw = Callable[[Any, bool], None]  # (matplotlib's figure, whether it is the narrow one)


@dataclass(frozen=True)
class Plot:
    """A plot for the page: both drawings, and the line under them."""

    name: str
    wide: str
    narrow: str
    caption: str


def loss_plot(run: Run) -> Plot | None:
    """The loss of each stage over its steps; for reinforcement the reward, which is what it is about."""
    panels = [
        (stage, name, series)
        for stage in run.stages
        for name in ("reward" if stage.series("reward") else "loss",)
        if len(series := drawable(stage, name)) > 1
    ]
    if not panels:
        return None

    def draw(canvas: Any, narrow: bool) -> None:
        shape = (len(panels), 1) if narrow else (1, len(panels))
        axes = canvas.subplots(*shape, squeeze=False).flatten()
        for place, (ax, (stage, name, series)) in enumerate(zip(axes, panels, strict=True)):
            curve(ax, series, COLOURS[stage.name])
            ax.set_title(f"{stage.name}: {name}", loc="left", fontsize=12, color=COLOURS[stage.name])
            if narrow or place == len(panels) // 2:
                ax.set_xlabel("steps")

    told = joined_ends([(f"{stage.name} {name}", series) for stage, name, series in panels])
    heights = (230, 60 + 170 * len(panels))
    caption = (
        "Loss in nats a token, thin by step and bold as a running mean. Of rl: the mean reward of a step's answers."
    )
    return plot("loss", "Learning curves by stage", told, draw, heights, caption)


def bits_plot(run: Run) -> Plot | None:
    """Bits per byte on held-out documents over the tokens read, with what compressing and counting achieve."""
    curves = [(stage, points) for stage in run.stages if (points := bits_over_tokens(stage))]
    if not curves:
        return None
    bars = baselines(run)

    def draw(canvas: Any, narrow: bool) -> None:
        ax = canvas.subplots()
        for stage, points in curves:
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=COLOURS[stage.name], marker="o", markersize=4.5, label=stage.name)
            ax.annotate(f"{stage.name} {y[-1]:.3f}", (x[-1], y[-1]), (0, -17), textcoords="offset points",
                        ha="right", color=COLOURS[stage.name])  # fmt: skip
        right = max(x for _, points in curves for x, _ in points)
        for place, bar in enumerate(bars):
            ax.axhline(bar.value, color=COLOURS["quiet"], linewidth=1.1, linestyle=(0, (4, 3)))
            ax.annotate(f"{bar_title(bar)} {bar.value:.3f}", (right, bar.value), (0, 4), textcoords="offset points",
                        ha="right", color=COLOURS["quiet"], zorder=3 + place)  # fmt: skip
        ax.set_xlabel("tokens read")
        ax.set_ylabel("bits per byte")
        ax.xaxis.set_major_formatter(lambda value, _: short(value))
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom - 0.12 * (top - bottom), top)
        ax.set_xlim(0, 1.02 * right)

    told = joined_ends([(f"{stage.name} bits per byte", points) for stage, points in curves])
    told += "".join(f" {bar_title(bar)}: {bar.value:.3f}." for bar in bars)
    caption = "Held-out documents, each byte counted once; lower is better. Dashed: without learning, on the same text."
    return plot("bits", "Bits per byte while reading", told, draw, (300, 280), caption)


def drawable(stage: StageRecord, name: str) -> Series:
    """(steps done, value) of a metric, without values that no axis could show."""
    return [(float(step + 1), value) for step, value in stage.series(name) if abs(value) < 1e12 and step < 1e12]


def bits_over_tokens(stage: StageRecord) -> Series:
    """(tokens read by then, bits per byte) at each measurement of a stage."""
    found, read = [], 0.0
    measured, tokens = dict(drawable(stage, "val_bpb")), dict(drawable(stage, "tokens"))
    for step in sorted(measured.keys() | tokens.keys()):
        read += tokens.get(step, 0.0)
        if step in measured:
            found.append((read or step, measured[step]))
    return found


def bar_title(bar: Figure) -> str:
    """`xz, wiki`: a baseline's name and the documents that it is of."""
    # A name may come from outside; a plot has glyphs for plain letters only.
    documents = re.sub(r"[^\w-]+|_+", " ", beside(bar.name).removeprefix("bpb"), flags=re.ASCII).strip()
    return baseline_title(bar.name) + (f", {documents}" if documents else "")


def baselines(run: Run) -> list[Figure]:
    """Baselines on all held-out documents, as the curve is; on parts of them only where there are no others."""
    found = [f for f in run.figures if is_baseline(f.name) and math.isfinite(f.value)]
    return [f for f in found if beside(f.name) == "bpb"] or found


def curve(ax: Any, series: Series, colour: str) -> None:
    """A noisy series: faint as it is, bold as the mean of its neighbourhood."""
    x, y = zip(*thinned(series), strict=True)
    if len(series) < 30:
        ax.plot(x, y, color=colour)
    else:
        ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
        ax.plot(x, smooth(y), color=colour)
    # The first steps fall from so high that everything after them would be a line on the floor.
    low, high = min(y), sorted(y)[min(len(y) - 1, round(0.97 * len(y)))]
    if high > low and max(y) > high + 0.5 * (high - low):
        ax.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))
    ax.locator_params(axis="both", nbins=4)


def thinned(series: Series) -> Series:
    """At most POINTS points: each the mean of as many neighbours."""
    size = -(-len(series) // POINTS)
    parts = [series[first : first + size] for first in range(0, len(series), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, a thirtieth of the series to each side."""
    reach = max(1, len(values) // 30)
    parts = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def plot(name: str, heading: str, told: str, draw: Draw, heights: tuple[int, int], caption: str) -> Plot:
    """Both drawings of a plot."""
    wide = drawn(f"{name}-wide", heading, told, draw, (WIDE, heights[0]), narrow=False)
    return Plot(name, wide, drawn(f"{name}-narrow", heading, told, draw, (NARROW, heights[1]), narrow=True), caption)


def drawn(name: str, heading: str, told: str, draw: Draw, size: tuple[int, int], narrow: bool) -> str:
    """One drawing as an `<svg>` element."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        draw(canvas, narrow)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return adapted(file.getvalue(), name, heading, told)


def adapted(svg: str, name: str, heading: str, told: str) -> str:
    """matplotlib's file as part of a page: ids of its own, the page's colours and fonts, a title and a description."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"(font: [^;\"']*?[\d.]+px) [^;\"]*", r"\1 var(--sans)", body)
    for role, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{role})")
    inside = f'<title id="{name}-title">{html.escape(heading)}</title><desc id="{name}-desc">{html.escape(told)}</desc>'
    size = re.search(r'viewBox="[^"]*"', body)
    assert size, "matplotlib writes a viewBox"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size.group()}'
    start += f' role="img" aria-labelledby="{name}-title {name}-desc">'
    return start + inside + body[body.index(">") + 1 :].strip()


def joined_ends(named: Sequence[tuple[str, Series]]) -> str:
    """In words for those who cannot see it: where each curve starts and ends."""
    return " ".join(f"{name}: from {plain(s[0][1])} to {plain(s[-1][1])}." for name, s in named)


def short(value: float) -> str:
    """An axis label: 500k, 2.5M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """A curve in one line of text, for where there are no pictures.

    >>> sparkline([4, 3, 2, 1])
    '█▆▃▁'
    """
    blocks = "▁▂▃▄▅▆▇█"
    size = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for first in range(0, len(values), size) if (part := values[first : first + size])]
    low, high = (min(means), max(means)) if means else (0.0, 0.0)
    return "".join(blocks[round((value - low) / (high - low) * 7)] if high > low else blocks[0] for value in means)
