"""A run as the page shows it, also while it learns: its stages, its curves, and what its models said on the way.

Everything is read from the files that the stages leave. Whoever reads in a moment of writing sees a line less.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanochat.checkpoint import STAGES, stages_of, step_folders
from nanochat.report.read import Record, Sample, mapping, number, read_lapses, read_object, read_samples
from nanochat.tokenizer import Call, Part

MOST_POINTS = 1_200  # lines of a stage's metrics in the first answer; later ones bring what is new
MOST_BYTES = 1 << 23  # of metrics that are read at once
SHOWN = ("time", "step", "tokens", "loss", "val_bpb", "reward", "copied", "tokens_per_second", "mfu", "lr")


def stages(run: Path) -> list[dict[str, Any]]:
    """Each stage that was begun: how far it is, whether it can be talked to, and what it said when it was asked."""
    talkative = stages_of(run)
    found = []
    for name in STAGES:
        folder, problems = run / name, list[str]()
        about = read_object(folder / "stage.json", problems)
        started = about or read_object(folder / "started.json", problems)
        if started is None and name not in talkative:
            continue
        steps = number(mapping((started or {}).get("plan")), "steps")
        newest = step_folders(folder)[-1:]
        found.append(
            {
                "name": name,
                "finished": bool(about and about.get("finished")),
                "steps": int(steps or number(mapping((started or {}).get("config")), "steps") or 0),
                "seconds": number(about or {}, "seconds"),
                "checkpoint": int(newest[0].name.removeprefix("step_")) if newest else None,
                "speaks": name in talkative,
                "recorded": recorded(read_samples(folder / "conversations.json", problems)),
                "lapse": list(read_lapses(folder / "timelapse.jsonl", problems)),
            }
        )
    return found


def recorded(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Questions that were asked when the stage was measured, each with the answer's parts."""
    pairs = [sample.messages[:2] for sample in samples if len(sample.messages) >= 2]
    return [
        {
            "question": asked.text,
            "answer": [{"type": type(part).__name__.lower(), "text": told(part)} for part in said.parts],
        }
        for asked, said in pairs
        if asked.role == "user"
    ]


def told(part: Part) -> str:
    """A part of an answer as the page has it: a call as it was written."""
    return part.text if not isinstance(part, Call) else str(part)


def training(run: Path, since: int = 0) -> dict[str, Any]:
    """Lines of the run's metrics from byte `since` on, by stage, and where to go on from.

    `anew` says that what was sent before no longer holds: a stage that is run again takes its lines back.
    """
    path = run / "metrics.jsonl"
    size = path.stat().st_size if path.exists() else 0
    anew = since <= 0 or since > size
    start = 0 if anew else since
    rows: dict[str, list[Record]] = {}
    end = start
    if size:
        with path.open("rb") as file:
            file.seek(max(start, size - MOST_BYTES))
            if start < size - MOST_BYTES:
                file.readline()  # the seek fell into the middle of a line
            data = file.read()
            end = file.tell()
        whole = data.rfind(b"\n") + 1
        end -= len(data) - whole  # a line that is still being written is left for the next time
        for line in data[:whole].split(b"\n"):
            if (row := metrics_row(line)) is not None:
                rows.setdefault(row["stage"], []).append({key: row[key] for key in SHOWN if key in row})
    return {"anew": anew, "next": end, "rows": {stage: thinned(lines) for stage, lines in rows.items()}}


def metrics_row(line: bytes) -> Record | None:
    """The object in a line of metrics, where it is one that tells of a step."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    told = isinstance(row, dict) and isinstance(row.get("stage"), str) and number(row, "step") is not None
    return row if told else None


def thinned(rows: list[Record]) -> list[Record]:
    """At most about MOST_POINTS of the rows: all that something was measured on, and the last."""
    every = -(-len(rows) // MOST_POINTS)
    return [row for place, row in enumerate(rows) if place % every == 0 or "loss" not in row or row is rows[-1]]
