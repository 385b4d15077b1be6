"""Figures: what every evaluation returns, each with the interval that its sample allows.

All intervals are of 95 %. `n` counts what was drawn independently of each other: examples, or documents.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanochat.config import dumps, from_json
from nanochat.errors import DataError, NanochatError, UsageError
from nanochat.files import write_atomically

NORMAL = 1.959963984540054  # 97.5 % of a normal distribution lie below it


@dataclass(frozen=True)
class Figure:
    """One measured number: which stage's model, what, how much, from where to where, on how many, in which unit."""

    stage: str
    name: str
    value: float
    low: float
    high: float
    n: int
    unit: str

    @property
    def has_interval(self) -> bool:
        """False for what was measured once and is no mean, such as a compressor's file size."""
        return math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high


def proportion(stage: str, name: str, successes: int, n: int, unit: str = "share") -> Figure:
    """The share of n trials that succeeded, with Wilson's interval: honest at 0 of n and n of n too.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    demand(n)
    low, high = wilson(successes / n, n)
    return Figure(stage, name, successes / n, low, high, n, unit)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Shares that n trials could have come from: the roots p of (share - p)^2 = z^2 p (1 - p) / n."""
    weight = NORMAL**2 / n
    centre = (share + weight / 2) / (1 + weight)
    reach = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    # At the ends the roots are exactly 0 and 1; rounding would put them just beside.
    return (0.0 if share == 0 else max(0.0, centre - reach)), (1.0 if share == 1 else min(1.0, centre + reach))


def mean(
    stage: str, name: str, values: Sequence[float], unit: str, bounds: tuple[float, float] | None = None
) -> Figure:
    """The mean of independent values with Student's t interval, which `bounds` cut off.

    Equal values say nothing about their spread. Where bounds are known the interval is then Wilson's, the widest that
    any spread between them could give; where not, there is none.
    """
    n = demand(len(values))
    sample = np.asarray(values, dtype=np.float64)
    centre, spread = float(sample.mean()), float(sample.std(ddof=1)) if n > 1 else 0.0
    reach = student(n - 1) * spread / math.sqrt(n) if n > 1 else 0.0
    low, high = centre - reach, centre + reach
    if bounds is not None:
        bottom, top = bounds
        if spread == 0:
            low, high = (bottom + share * (top - bottom) for share in wilson((centre - bottom) / (top - bottom), n))
        low, high = max(low, bottom), min(high, top)
    return Figure(stage, name, centre, low, high, n, unit)


def ratio(stage: str, name: str, numerators: Sequence[float], denominators: Sequence[float], unit: str) -> Figure:
    """Sum of numerators over sum of denominators, one pair a document: bits over bytes.

    Documents are what is independent, not bytes: a document that surprises once goes on doing so. The spread is that of
    the residuals y - R x (Cochran, Sampling Techniques, 1977, equation 6.13).
    """
    n = demand(len(numerators))
    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if x.sum() <= 0:
        raise DataError("documents that hold text", f"{n} empty ones", "name another source or more documents")
    value = float(y.sum() / x.sum())
    if n == 1:
        return Figure(stage, name, value, value, value, n, unit)
    variance = float(np.square(y - value * x).sum()) / (n - 1) / n / float(x.mean()) ** 2
    reach = student(n - 1) * math.sqrt(variance)
    return Figure(stage, name, value, max(0.0, value - reach), value + reach, n, unit)


def student(freedom: int) -> float:
    """The t that 97.5 % of Student's distribution lie below.

    With t = sqrt(freedom) tan(angle) its density becomes cos(angle)^(freedom - 1): smooth, on a bounded interval, and
    so summed up and inverted on a grid. Six digits are right, from one degree of freedom to thousands.
    """
    freedom = min(freedom, 10_000)  # from there on a normal distribution to four digits
    angle = np.linspace(0, math.pi / 2, 40_001)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    return math.sqrt(freedom) * math.tan(float(np.interp(0.95 * area[-1], area, angle)))


def demand(n: int) -> int:
    """`n`, which must be at least one: a share of nothing is not a number."""
    if n < 1:
        raise UsageError("at least one example to evaluate on", f"{n}", "ask for more, or name another source")
    return n


def save_figures(path: Path, figures: Iterable[Figure]) -> None:
    """Write figures as a JSON list beside those that the file holds; one of the same stage and name is replaced."""
    kept = {(f.stage, f.name): f for f in (load_figures(path) if path.exists() else [])}
    kept |= {(f.stage, f.name): f for f in figures}
    write_atomically(path, dumps([as_json(figure) for figure in kept.values()]))


def load_figures(path: Path) -> list[Figure]:
    """The figures in a JSON list. Raises DataError for a file that is not one."""
    try:
        return [from_record(record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, NanochatError) as error:
        raise DataError("a list of figures", f"{path}: {error}", "delete the file and evaluate again") from error


def as_json(figure: Figure) -> dict[str, object]:
    """A figure as JSON can hold it: what is not a number (a diverged model's loss) as null."""
    numbers = {key: getattr(figure, key) for key in ("value", "low", "high")}
    safe = {key: float(number) if math.isfinite(number) else None for key, number in numbers.items()}
    return {"stage": figure.stage, "name": figure.name, **safe, "n": figure.n, "unit": figure.unit}


def from_record(record: dict[str, object]) -> Figure:
    """The figure that `as_json` wrote. Raises DataError for anything else."""
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("stage", "name", "unit")):
        raise DataError("a figure with stage, name and unit", str(record)[:80])
    numbers = {key: math.nan if record.get(key) is None else record[key] for key in ("value", "low", "high")}
    if not all(isinstance(x, (int, float)) for x in numbers.values()) or not isinstance(record.get("n"), int):
        raise DataError("numbers as value, low, high and n", str(record)[:80])
    return from_json(Figure, {**record, **numbers})
