"""The verb `report`: a run folder in, report.json, report.md and report.html out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint import run_folder
from nanochat.config import dumps, parse
from nanochat.errors import CheckpointError
from nanochat.evaluate.figures import as_json
from nanochat.files import write_atomically
from nanochat.report.card import peak_memory
from nanochat.report.markdown import markdown
from nanochat.report.page import page
from nanochat.report.read import Run, StageRecord, read_run
from nanochat.report.summary import summary
from nanochat.report.tally import core_minutes, minutes_of, reference_minutes, tally


@dataclass(frozen=True)
class ReportConfig:
    """Write a run's report card: report.html with plots, report.md, and report.json for programs."""

    run: str = ""
    """the run's name; by default the preset's"""
    preset: str = "laptop"
    """whose run to take where no name is given"""


def main(argv: Sequence[str]) -> int:
    """The verb `report`."""
    config = parse(ReportConfig, argv, prog="nanochat report")
    folder = run_folder(config.run.partition(":")[0] or config.preset)
    print(write_report(folder))
    return 0


def write_report(folder: Path) -> Path:
    """Write the three files into the run folder and return the page's path.

    Whatever is missing or damaged is said in the report. Raises CheckpointError where there is no run, or no room.
    """
    run = read_run(folder)
    files = {"report.json": dumps(figures_json(run)), "report.md": markdown(run), "report.html": page(run)}
    for name, text in files.items():
        try:
            # Half of a character, as JSON can spell it, is the one thing that UTF-8 can't.
            write_atomically(folder / name, text.encode("utf-8", "replace").decode("utf-8"))
        except OSError as error:
            remedy = "free some space, or make the folder writable; nothing of the run is lost"
            raise CheckpointError(f"to write {folder / name}", str(error), remedy) from error
    return folder / "report.html"


def figures_json(run: Run) -> dict[str, Any]:
    """What programs read: every figure, and what the run took."""
    return {
        "run": run.name,
        "figures": [as_json(figure) for figure in run.figures],
        "minutes": minutes_of(run),
        "reference_minutes": reference_minutes(run),
        "core_minutes": core_minutes(run),
        "peak_memory_gb": peak_memory(run),
        "commit": run.latest("commit"),
        "versions": run.latest("versions"),
        "machine": run.latest("machine"),
        "seed": run.latest("seed"),
        "summary": summary(run),
        "stages": [stage_json(stage) for stage in run.stages],
        "problems": list(run.problems),
    }


def stage_json(stage: StageRecord) -> dict[str, Any]:
    """The plan of a stage against what happened."""
    return {"stage": stage.name, "status": stage.status, **asdict(tally(stage))}
