"""What a stage leaves behind besides its weights: its record, which says that it is finished, and lines of JSON."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nanochat.checkpoint import SCHEMA
from nanochat.config import to_json
from nanochat.errors import CheckpointError, SchemaError
from nanochat.files import flush, write_atomically

# Fields of a configuration that say where, how loudly and how often, but not what: changing them makes no stage stale.
NOT_INPUTS = {"run", "preset", "device", "parallel", "timeout", "save_every", "keep", "stop_after", "lapse_every"}
NOT_INPUTS |= {"eval_every", "eval_documents"}

# Lines that a stage adds as it goes: the run's metrics, and in its own folder its samples and the steps that failed.
METRICS, SAMPLES, NOT_FINITE_LOG = "metrics.jsonl", "timelapse.jsonl", "not_finite.jsonl"


def fingerprint_of(name: str, config: Any, run: Path, parents: Sequence[str], inputs: Mapping[str, Any]) -> str:
    """A hash of everything that decides what a stage makes. Raises CheckpointError where a parent is unfinished."""
    above = {}
    for parent in parents:
        found = read_stage(run, parent)
        if not found or not found["finished"]:
            raise CheckpointError(
                f"a finished {parent} stage in {run}", "none", f"run it first: python -m nanochat {parent}"
            )
        above[parent] = found["fingerprint"]
    own = {f.name: to_json(getattr(config, f.name)) for f in fields(config) if f.name not in NOT_INPUTS}
    decides = json.dumps([name, own, above, to_json(inputs)], sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()


def read_stage(run: Path, name: str) -> dict[str, Any]:
    """The record of a finished stage; empty where there is none. Raises SchemaError for one of another version."""
    found = read_json(run / name / "stage.json") or {}
    if found and found.get("schema") != SCHEMA:
        got = f"version {found.get('schema')} in {run / name}"
        raise SchemaError(
            f"a stage of schema version {SCHEMA}", got, "use the nanochat that wrote it, or another --run"
        )
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file. Raises CheckpointError for a damaged one."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"JSON in {path}", str(error), "delete that file, and the stage will be run again"
        ) from error
    return found


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, none where there is no file; a line cut short by a crash is left out."""
    rows: list[Any] = []
    if not path.exists():
        return []
    # Not splitlines(): it also cuts at signs that JSON leaves in a text.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file at `path` by `rows`, one JSON object a line."""
    write_atomically(path, "".join(json_line(row) for row in rows))


def json_line(row: Mapping[str, Any]) -> str:
    """One object as a line of a JSON-lines file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def logs_of(run: Path, stage: str) -> list[Path]:
    """The files that a stage adds lines to, as far as they are there."""
    paths = [run / METRICS, run / stage / SAMPLES, run / stage / NOT_FINITE_LOG]
    return [path for path in paths if path.exists()]


def flush_logs(run: Path, stage: str) -> None:
    """Put the lines that were added on the disk."""
    for path in logs_of(run, stage):
        flush(path)


def forget_from(step: int, run: Path, stage: str) -> None:
    """Drop a stage's lines from `step` on: they will be written again."""
    for path in logs_of(run, stage):
        # A line has the index of its step; a sample the number of steps that its model had made.
        last = step if path.name == SAMPLES else step - 1
        write_jsonl(path, [row for row in read_jsonl(path) if row.get("stage") != stage or row.get("step", 0) <= last])
