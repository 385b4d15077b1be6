"""What to expect: the laptop preset over five seeds, each figure with the band that a sixth seed would fall into.

    python educational/experiments/seeds.py [--seeds 5] [--preset laptop] [--questions 200]
    python educational/experiments/seeds.py --runs NAME NAME ...

About ten minutes a seed on two cores. Runs that are done are not done again; --runs takes those that are there as they
are. Writes runs/seeds.json.
"""

import argparse
import datetime
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

from nanochat.checkpoint import run_folder
from nanochat.evaluate.figures import student
from nanochat.stages.records import read_jsonl

ROOT = Path(__file__).parents[2]
SHOWN = (0, 10, 50, 100, 200, 300, 500, 900)  # steps whose loss is told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--runs", nargs="*", default=[])
    asked = parser.parse_args()
    runs = asked.runs or [f"{asked.preset}-seed-{seed}" for seed in range(asked.seeds)]
    for seed, run in enumerate([] if asked.runs else runs):
        given = ["--preset", asked.preset, "--run", run, "--seed", str(seed), "--questions", str(asked.questions)]
        subprocess.run([sys.executable, "-m", "nanochat", "run", *given], check=True)
    reports = [json.loads((run_folder(run) / "report.json").read_text()) for run in runs]
    metrics = [read_jsonl(run_folder(run) / "metrics.jsonl") for run in runs]
    record = {
        "command": "python educational/experiments/seeds.py",
        "date": datetime.date.today().isoformat(),
        "commit": reports[0]["commit"],
        "machine": reports[0]["machine"],
        "versions": reports[0]["versions"],
        "seeds": [report["seed"] for report in reports],
        "questions": [figure_n(report) for report in reports],
        "reference_minutes": band([report["reference_minutes"] for report in reports]),
        "peak_memory_gb": band([report["peak_memory_gb"] for report in reports]),
        "figures": figures(reports),
        "losses": losses(metrics),
    }
    target = ROOT / "runs" / "seeds.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target)


def figure_n(report: dict) -> int:
    """How many questions of a kind were asked."""
    return max(figure["n"] for figure in report["figures"] if figure["name"] == "find_accuracy")


def figures(reports: list[dict]) -> list[dict]:
    """Each figure of the report, over seeds."""
    found = []
    for first in reports[0]["figures"]:
        key = (first["stage"], first["name"])
        values = [f["value"] for report in reports for f in report["figures"] if (f["stage"], f["name"]) == key]
        if len(values) == len(reports):
            bounds = (0.0, 1.0) if first["unit"] == "share" else (0.0, math.inf)
            found.append(
                {"stage": first["stage"], "name": first["name"], "unit": first["unit"], **band(values, bounds)}
            )
    return found


def losses(metrics: list[list[dict]]) -> list[dict]:
    """The loss at a few steps of each stage, and bits per byte wherever they were measured, over seeds."""
    found = []
    for name in ("loss", "val_bpb", "copied", "reward", "grad_norm"):
        series: dict[tuple[str, int], list[float]] = {}
        for rows in metrics:
            for row in rows:
                if name in row:
                    series.setdefault((row["stage"], row["step"]), []).append(row[name])
        last = {stage: max(step for other, step in series if other == stage) for stage, _ in series}
        for (stage, step), values in sorted(series.items()):
            wanted = name in ("val_bpb", "copied") or step in SHOWN or step == last[stage]
            if wanted and len(values) == len(metrics):
                found.append({"stage": stage, "step": step, "name": name, **band(values)})
    return found


def band(values: list[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> dict:
    """Mean and 95 % prediction interval: where one more run is expected, not where the mean is."""
    centre, n = statistics.fmean(values), len(values)
    reach = student(n - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / n) if n > 1 else 0.0
    low, high = max(centre - reach, bounds[0]), min(centre + reach, bounds[1])
    return {"mean": centre, "low": low, "high": high, "values": values}


if __name__ == "__main__":
    main()
