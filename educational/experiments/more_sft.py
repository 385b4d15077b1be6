"""Is reinforcement worth its minutes? Each run's rl stage beside its sft stage, continued for the same seconds.

    python educational/experiments/more_sft.py --runs NAME NAME NAME [--questions 1000]

Takes runs that are done, of different seeds, and leaves them as they are. Fine-tuning goes on with the next of its
conversations, at its own rate and falling to zero again; as many steps as fit into the time that rl took, at the speed
that sft had. Both are asked the same held-out sums in new wordings, greedily. Writes runs/more_sft.json.
"""

import argparse
import datetime
import json
import statistics
from itertools import pairwise
from pathlib import Path

from nanochat import native
from nanochat.checkpoint import load_model, newest, run_folder
from nanochat.data import recipes
from nanochat.engine import Engine
from nanochat.evaluate.figures import student
from nanochat.evaluate.graded import graded
from nanochat.optim import Together, build_optimizer, trapezoid
from nanochat.runtime import Runtime, commit, detect, home, machine, versions
from nanochat.stages.finetune import conversation_stream, row_batches
from nanochat.stages.records import read_jsonl, read_stage
from nanochat.tasks import catalogue, limit_for, mixture, tools_for
from nanochat.tasks.mixture import CALCULATOR_TASKS
from nanochat.train import train

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--questions", type=int, default=1000)
    asked = parser.parse_args()
    runtime = detect()
    rows = [compared(run_folder(name), asked.questions, runtime) for name in asked.runs]
    gains = [row["rl"] - row["more_sft"] for row in rows]
    mean, n = statistics.fmean(gains), len(gains)
    reach = student(n - 1) * statistics.stdev(gains) / n**0.5 if n > 1 else float("inf")
    record = {
        "command": "python educational/experiments/more_sft.py --runs " + " ".join(asked.runs),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(runtime),
        "versions": versions(),
        "questions": asked.questions,
        "runs": rows,
        "gain": {"mean": mean, "low": mean - reach, "high": mean + reach},
    }
    target = ROOT / "runs" / "more_sft.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target, json.dumps(record["gain"]))


def compared(run: Path, questions: int, runtime: Runtime) -> dict[str, float]:
    """Shares of sums that are right after sft, after rl, and after sft continued."""
    took = {stage: seconds(run, stage) for stage in ("sft", "rl")}
    row: dict[str, float] = {"seed": read_stage(run, "sft")["config"]["seed"], "rl_seconds": took["rl"]}
    row |= {stage: right(run / stage, questions, runtime) for stage in ("sft", "rl")}
    row["steps"] = round(read_stage(run, "sft")["plan"]["steps"] * took["rl"] / took["sft"])
    row["more_sft"] = right(run / "sft", questions, runtime, int(row["steps"]))
    print(run.name, row, flush=True)
    return row


def seconds(run: Path, stage: str) -> float:
    """How long a stage's steps took, by the median of their distances: a pause in between is none of theirs."""
    times = [line["time"] for line in read_jsonl(run / "metrics.jsonl") if line["stage"] == stage and "loss" in line]
    return statistics.median(b - a for a, b in pairwise(times)) * len(times)


def right(folder: Path, questions: int, runtime: Runtime, steps: int = 0) -> float:
    """The share of sums in new wordings that the stage's model answers rightly, after so many more steps."""
    model, tokenizer, _ = load_model(folder, runtime)
    kitchen, limit = recipes(home()), limit_for(model.config.context)
    tasks = catalogue(kitchen, limit)
    if steps:
        found = newest(folder)
        assert found is not None
        stage, plan = read_stage(folder.parent, "sft")["config"], read_stage(folder.parent, "pretrain")["plan"]
        rates = {name: stage["rate"] * plan[name] for name in ("matrix_lr", "embedding_lr", "head_lr")}
        optimizer: Together = build_optimizer(model, **rates, dtype=runtime.dtype)
        found.restore(model.train().requires_grad_(True), optimizer)
        stream = conversation_stream(
            tokenizer, tasks, mixture("sft"), stage["seed"], model.config.context + 1, found.state["cursor"]
        )
        schedule = trapezoid(steps, steps // 20, round(stage["warmdown"] * steps))
        with native.kernels():
            for _ in train(model, optimizer, row_batches(stream, stage["rows"], runtime), schedule, steps=steps):
                pass
        model.eval()
    engine = Engine(model, tokenizer, runtime, tools_for(kitchen, limit))
    each = questions // len(CALCULATOR_TASKS)
    answers = [answer for name in CALCULATOR_TASKS for answer in graded(engine, tasks[name], "test", each)]
    return statistics.fmean(answer.grade.right for answer in answers)


if __name__ == "__main__":
    main()
