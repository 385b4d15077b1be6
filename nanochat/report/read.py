"""What a run folder holds, as far as it can be read.

A report is wanted most where something went wrong: a stage was killed, a line was cut, a file is from another hand. So
nothing here raises for what it finds in the folder. It says what is wrong in `problems`, and leaves that out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nanochat.errors import ChatError, CheckpointError, DataError
from nanochat.evaluate.figures import Figure, load_figures
from nanochat.tokenizer import Message, conversation_from_json

STAGES = ("tokenizer", "pretrain", "midtrain", "sft", "rl")
Record = dict[str, Any]
Status = Literal["finished", "unfinished", "missing"]


@dataclass(frozen=True)
class Sample:
    """A conversation to show, and what to say of it."""

    messages: tuple[Message, ...]
    note: str


@dataclass(frozen=True)
class StageRecord:
    """One stage of a run. `about` is its stage.json, or what it left when it started; empty where it never did."""

    name: str
    status: Status
    about: Record = field(default_factory=dict)
    metrics: tuple[Record, ...] = ()  # by step
    figures: tuple[Figure, ...] = ()
    samples: tuple[Sample, ...] = ()
    lapses: tuple[Record, ...] = ()
    dialogues: tuple[Sample, ...] = ()  # whole conversations, of the kind that people have

    @property
    def plan(self) -> Record:
        """What the stage set out to do."""
        return mapping(self.about.get("plan"))

    @property
    def minutes(self) -> float | None:
        """Wall minutes: as recorded, or for an unfinished stage from its first to its last line of metrics."""
        recorded = number(self.about, "seconds")
        if recorded is None and len(times := [value for _, value in self.series("time")]) > 1:
            recorded = max(times) - min(times)
        return None if recorded is None else recorded / 60

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) wherever this metric is a number."""
        found = ((int(row["step"]), number(row, name)) for row in self.metrics)
        return [(step, value) for step, value in found if value is not None]


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    folder: Path
    stages: tuple[StageRecord, ...]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def present(self) -> list[StageRecord]:
        """Stages that were at least started."""
        return [stage for stage in self.stages if stage.status != "missing"]

    @property
    def figures(self) -> list[Figure]:
        """Every figure, in the order of stages."""
        return [figure for stage in self.stages for figure in stage.figures]

    def stage(self, name: str) -> StageRecord:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    def latest(self, key: str) -> Any:
        """What the last stage that recorded `key` says; None where none does."""
        return next((s.about[key] for s in reversed(self.stages) if s.about.get(key) not in (None, "")), None)

    def figure(self, name: str, stage: str = "") -> Figure | None:
        """The figure of this name: of `stage`, or of the last stage that has it."""
        found = [f for f in self.figures if f.name == name and stage in ("", f.stage) and math.isfinite(f.value)]
        return found[-1] if found else None


def read_run(folder: Path) -> Run:
    """The run in `folder`. Raises CheckpointError only where there is no such folder."""
    if not folder.is_dir():
        raise CheckpointError(f"a run at {folder}", "nothing there", "make one: python -m nanochat run")
    problems: list[str] = []
    metrics = read_metrics(folder / "metrics.jsonl", problems)
    stages = tuple(read_stage(folder / name, metrics.get(name, ()), problems) for name in STAGES)
    problems += disagreements(stages)
    return Run(folder, stages, tuple(problems))


def read_stage(folder: Path, metrics: Sequence[Record], problems: list[str]) -> StageRecord:
    """One stage's record."""
    name = folder.name
    about, finished = read_object(folder / "stage.json", problems), False
    if about is not None:
        finished = about.get("finished") is True
    else:
        about = read_object(folder / "started.json", problems)
    started = about is not None or bool(metrics) or any(folder.glob("step_*"))
    status: Status = "finished" if finished else "unfinished" if started else "missing"
    if status == "unfinished":
        steps = f" after step {metrics[-1]['step']}" if metrics else ""
        problems.append(f"{name} is not finished: the record ends{steps}")
    if skipped := sum(row.get("skipped") == "not finite" for row in metrics):
        problems.append(f"{name}: {skipped} of its steps had no finite loss and changed nothing")
    if status == "missing":
        problems.append(f"{name} is missing: it was not run")
    return StageRecord(
        name,
        status,
        about or {},
        tuple(metrics),
        read_figures(folder / "figures.json", problems),
        read_samples(folder / "conversations.json", problems),
        tuple(read_lapses(folder / "timelapse.jsonl", problems)),
        read_samples(folder / "dialogues.json", problems, read_object(folder / "judgements.json", problems) or {}),
    )


def read_metrics(path: Path, problems: list[str]) -> dict[str, tuple[Record, ...]]:
    """The lines of metrics.jsonl by stage, ordered by step; lines of the same step made one, the later wins."""
    merged: dict[str, dict[int, Record]] = {}
    if not path.exists():
        problems.append("metrics.jsonl is missing: there are no curves to draw")
    for row in read_lines(path, problems):
        stage, step = row.get("stage"), number(row, "step")
        if isinstance(stage, str) and step is not None:
            steps = merged.setdefault(stage, {})
            steps[int(step)] = {**steps.get(int(step), {}), **row}
    return {stage: tuple(steps[step] for step in sorted(steps)) for stage, steps in merged.items()}


def read_lapses(path: Path, problems: list[str]) -> list[Record]:
    """The lines of timelapse.jsonl that hold a step, a prompt and a text."""
    rows = read_lines(path, problems)
    strings = ("stage", "prompt", "text")
    return [r for r in rows if number(r, "step") is not None and all(isinstance(r.get(key), str) for key in strings)]


def read_lines(path: Path, problems: list[str]) -> list[Record]:
    """The JSON objects of a file, one a line. Lines that are none (a kill cut them) are counted and left out."""
    found: list[Record] = []
    lines = [line for line in (read_text(path, problems) or "").split("\n") if line.strip()]
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    if skipped := len(lines) - len(found):
        what = "1 damaged line is" if skipped == 1 else f"{skipped} damaged lines are"
        problems.append(f"{shown_path(path)}: {what} left out, of {len(lines):,}")
    return found


def read_object(path: Path, problems: list[str]) -> Record | None:
    """The JSON object in a file; None where there is none."""
    text = read_text(path, problems)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    problems.append(f"{shown_path(path)} is damaged and left out")
    return None


def read_figures(path: Path, problems: list[str]) -> tuple[Figure, ...]:
    """The figures of a stage."""
    if not path.exists():
        return ()
    try:
        return tuple(load_figures(path))
    except DataError:
        problems.append(f"{shown_path(path)} is damaged and left out")
        return ()


def read_samples(path: Path, problems: list[str], judged: Record | None = None) -> tuple[Sample, ...]:
    """The sample conversations of a stage; `judged` says by name what people thought of them."""
    text = read_text(path, problems)
    if text is None:
        return ()
    found = []
    try:
        records = json.loads(text)
        for record in records:
            notes = [str(record.get("note", "")), str((judged or {}).get(str(record.get("name")), ""))]
            note = "; ".join(note for note in notes if note)
            found.append(Sample(tuple(conversation_from_json(record["messages"])), note))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError, ChatError):
        problems.append(f"{shown_path(path)} is damaged; what could be read of it is shown")
    return tuple(found)


def read_text(path: Path, problems: list[str]) -> str | None:
    """The text of a file, with marks where bytes are no UTF-8; None where there is no file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{shown_path(path)} cannot be read: {error.strerror}")
        return None


def shown_path(path: Path) -> str:
    """`pretrain/figures.json`, or the bare name of a file at the top of the run."""
    return f"{path.parent.name}/{path.name}" if path.parent.name in STAGES else path.name


def disagreements(stages: Sequence[StageRecord]) -> list[str]:
    """Where the stages of one run were not made alike: figures of such a run are of no single program."""
    found = []
    for key, what in (("commit", "commits"), ("versions", "versions"), ("machine", "machines"), ("seed", "seeds")):
        values = {json.dumps(s.about[key], sort_keys=True) for s in stages if s.about.get(key) not in (None, "")}
        if len(values) > 1:
            found.append(f"stages were made with {len(values)} different {what}; what is shown is the last one's")
    return found


def number(record: Mapping[str, Any], key: str) -> float | None:
    """`record[key]` where it is a finite number."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def mapping(value: Any) -> Record:
    """`value` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
