"""Measuring on a machine that others use too: both sides in turn, medians, ratios within a round."""

import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from nanochat.config import dumps, to_json
from nanochat.files import write_atomically
from nanochat.runtime import Runtime, commit, machine, versions

Work = Callable[[], float | None]  # does the work once; returns its seconds, or None to be timed from outside
Seconds = dict[str, list[float]]


def in_turn(sides: Mapping[str, Work], rounds: int, *, beside: Callable[[], float] | None = None) -> Seconds:
    """Seconds of each side in each of `rounds` rounds, which begin with another side each time.

    `beside` is called before and after every measurement and its results are kept under "beside": the yardstick of a
    share of the peak, sampled in the same seconds. Nothing is thrown away: warm up before.
    """
    seconds: Seconds = {name: [] for name in sides}
    if beside is not None:
        seconds["beside"] = [beside()]
    order = list(sides)
    for number in range(rounds):
        first = number % len(order)
        for name in order[first:] + order[:first]:
            began = time.perf_counter()
            own = sides[name]()
            seconds[name].append(time.perf_counter() - began if own is None else own)
            if beside is not None:
                seconds["beside"].append(beside())
    return seconds


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as fast we are, from seconds: the median over the rounds, and the lowest and highest.

    >>> ratios([1.0, 2.0, 1.0], [2.0, 2.0, 3.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    each = [other / own for own, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


def measurement(task: str, side: str, seconds: Sequence[float], **about: Any) -> dict[str, Any]:
    """One line of a record: what was done, by whom, how long it took in each round, and what else is known of it."""
    return {"task": task, "side": side, "seconds": [round(value, 4) for value in seconds], **about}


def record(
    name: str,
    config: Any,
    runtime: Runtime,
    figures: Mapping[str, float | None],
    measurements: Iterable[Mapping[str, Any]],
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """A benchmark's result as JSON: its `figures` by their names, the measurements, and what they were measured on.

    A figure that does not apply here, None, is left out. `packages` are named with their versions.
    """
    return {
        "benchmark": name,
        **{key: round(value, 4) for key, value in figures.items() if value is not None},
        "measurements": list(measurements),
        "config": to_json(config),
        "command": " ".join(["nanochat", *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions() | {package: version_of(package) for package in packages},
        "machine": machine(runtime),
        "date": time.strftime("%Y-%m-%d"),
    }


def version_of(package: str) -> str:
    """The installed version of a package; empty where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def show(result: Mapping[str, Any], as_json: bool, save: str = "") -> int:
    """Print a record, as JSON alone or as a table, and keep it in the file `save` where one is named; 0."""
    if save:
        write_atomically(Path(save), dumps(result))
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return 0
    Console(soft_wrap=True).print(table(result), markup=False, highlight=False)
    return 0


def table(result: Mapping[str, Any]) -> str:
    """The measurements of a record as a Markdown table; `benchmarks/README.md` quotes this.

    The last column is how many times as fast a side is as the first of the same task: the median, lowest and highest of
    the rounds.
    """
    lines = ["| task | side | seconds, median (least to most) | times as fast as the first |", "|---|---|---|---|"]
    firsts: dict[str, Sequence[float]] = {}
    for row in result["measurements"]:
        seconds = row["seconds"]
        first = firsts.setdefault(row["task"], seconds)
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        versus = "" if first is seconds else "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratios(seconds, first))
        lines.append(f"| {row['task']} | {row['side']} | {spread} | {versus} |")
    return "\n".join(lines) + "\n"
