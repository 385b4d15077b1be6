"""How the book's figures look: one size of type, colours that the colour-blind tell apart, the same bytes each time.

from educational.figures.style import COLOURS, new

def residual_norm() -> Figure:
    figure, axes = new(width=6.5, height=3.2)
    axes.plot(..., color=COLOURS[0], label="with the norm")
    return figure
"""

import io
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# After Okabe and Ito (2008), who chose colours that people with any kind of colour vision can tell apart; their yellow
# is left out, which white paper swallows. In print they also differ in lightness: let a line's style or a label say
# the same once more.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#AA4499", "#56B4E9"
COLOURS = [BLUE, RED, GREEN, ORANGE, PURPLE, SKY]
INK, QUIET, FAINT, WASH = "#1f2328", "#59636e", "#d1d9e0", "#f4f6f8"
STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1))]
# White to blue for amounts, red over white to blue for amounts with a sign.
AMOUNT = LinearSegmentedColormap.from_list("amount", ["#ffffff", "#9ecae1", BLUE, "#08306b"])
SIGNED = LinearSegmentedColormap.from_list("signed", [RED, "#f7c6a8", "#ffffff", "#a9cfe8", BLUE])

# Inches. WIDE fills the text's width on paper.
WIDE, NARROW, HEIGHT = 6.5, 4.2, 3.2

SETTINGS: Any = {
    "svg.hashsalt": "nanochat", "svg.fonttype": "path", "path.simplify": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "axes.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "mathtext.fontset": "dejavusans",
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 9,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET, "xtick.color": QUIET, "ytick.color": QUIET,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": False, "grid.color": FAINT, "grid.linewidth": 0.6,
    "lines.linewidth": 1.8, "lines.markersize": 4,
    "axes.prop_cycle": cycler(color=COLOURS),
}  # fmt: skip


def new(
    width: float = WIDE, height: float = HEIGHT, rows: int = 1, columns: int = 1, **given: Any
) -> tuple[Figure, Any]:
    """A figure in the book's style, in inches, and its axes: one, or an array of rows x columns."""
    matplotlib.rcParams.update(SETTINGS)
    figure = Figure(figsize=(width, height))
    axes: Axes | np.ndarray[Any, Any] = figure.subplots(rows, columns, **given)
    return figure, axes


def bare(axes: Axes) -> Axes:
    """Axes without frame, ticks and labels: a sheet of paper for a diagram."""
    axes.set_axis_off()
    return axes


def box(axes: Axes, x: float, y: float, text: str, colour: str = BLUE, width: float = 1.0, height: float = 0.5) -> None:
    """A box of a diagram around (x, y), with its words."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=f"{colour}22", edgecolor=colour, linewidth=1.2)
    )
    axes.text(x, y, text, ha="center", va="center")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = QUIET) -> None:
    """An arrow of a diagram."""
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    )


def svg(figure: Figure) -> str:
    """The figure as SVG: the same figure gives the same bytes, with no date in them."""
    matplotlib.rcParams.update(SETTINGS)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def png(figure: Figure, path: str) -> None:
    """The figure as a picture to look at while it is being made."""
    figure.savefig(path, format="png", dpi=150, facecolor="white")
