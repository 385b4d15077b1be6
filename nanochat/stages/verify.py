"""`nanochat verify RUN`: is a run what it was when it was saved, and does it go on as it went on?

Every file that has a hash on record is hashed again, and the steps of the metrics are counted. Then one step of each
stage is made once more, from a checkpoint: an ordinary resume in a folder of its own, told to stop after one step.
Its loss and the length of its gradient must be those that the run wrote down.
"""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from nanochat.checkpoint import STAGES, Checkpoint, newest, open_checkpoint, run_folder, step_folders
from nanochat.config import dumps, from_json, parse
from nanochat.data import open_store
from nanochat.errors import CheckpointError, NanochatError
from nanochat.files import write_atomically
from nanochat.runtime import detect, home
from nanochat.stages.finetune import BEFORE, FinetuneConfig, finetune
from nanochat.stages.pretrain import PretrainConfig, pretrain
from nanochat.stages.records import METRICS, read_json, read_jsonl, read_stage
from nanochat.stages.reinforce import ReinforceConfig, reinforce
from nanochat.stages.ship import ATTRIBUTION
from nanochat.stages.stage import elsewhere
from nanochat.stages.stopping import Interrupted
from nanochat.tokenizer import Tokenizer

WORK: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "pretrain": (PretrainConfig, pretrain),
    "midtrain": (FinetuneConfig, partial(finetune, "midtrain")),
    "sft": (FinetuneConfig, partial(finetune, "sft")),
    "rl": (ReinforceConfig, reinforce),
}
# How far a loss may lie off, as a share of it, where the same bits can't be asked for: another machine, or no
# --deterministic.
CLOSE = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 2e-2}


@dataclass(frozen=True)
class VerifyConfig:
    """Hash a run again, and repeat one step of each of its stages."""

    run: Annotated[str, tyro.conf.Positional] = "laptop"
    """the run's name"""
    replay: bool = True
    """repeat a step of each stage"""
    json: bool = False
    """print one JSON object and nothing else"""


@dataclass
class Found:
    """What was found of one stage."""

    stage: str
    checkpoints: list[int] = field(default_factory=list)  # whole ones, by their steps
    steps: int = 0  # lines of metrics.jsonl with a loss
    replay: dict[str, Any] = field(default_factory=dict)
    note: str = ""  # why no step was repeated
    problems: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """The verb `verify`; 0 where all is well. Raises CheckpointError where something is not."""
    config = parse(VerifyConfig, argv, prog="nanochat verify")
    run = run_folder(config.run)
    if not run.is_dir():
        raise CheckpointError(f"a run at {run}", "nothing there", "name one: python -m nanochat verify RUN")
    stages = verify(run, config.replay)
    problems = [problem for found in stages for problem in found.problems]
    if config.json:
        print(dumps({"run": config.run, "ok": not problems, "stages": stages, "problems": problems}), end="")
    else:
        print("\n".join(told(found) for found in stages))
    if problems:
        remedy = "start the command that made the run again: it mends what it can"
        raise CheckpointError("a run as it was saved", f"{problems[0]} ({len(problems)} in all)", remedy)
    return 0


def verify(run: Path, again: bool = True) -> list[Found]:
    """What is found of each stage of a run; `again` repeats a step of each."""
    stages = [check_tokenizer(run)]
    for name in STAGES:
        if (run / name).is_dir():
            found = check_stage(run, name)
            stages.append(found)
            if again and not found.problems:
                try:
                    repeat(run, found)
                except NanochatError as error:
                    found.note = str(error)
    return stages


def check_tokenizer(run: Path) -> Found:
    """The tokenizer and the tokens that it made, against their record."""
    found, done = Found("tokenizer"), read_stage(run, "tokenizer")
    try:
        tokenizer = Tokenizer.load(run / "tokenizer")
        if done and tokenizer.fingerprint != done["tokenizer"]:
            found.problems.append(f"{run / 'tokenizer'}: not the tokenizer on record")
        for name in done.get("corpus", ()) if (run / "tokens").exists() else ():
            open_store(run / "tokens" / f"{name}.npy", tokenizer=tokenizer.fingerprint)
    except NanochatError as error:
        found.problems.append(str(error))
    return found


def check_stage(run: Path, name: str) -> Found:
    """The checkpoints of a stage against their hashes; its metrics without gaps or repeats."""
    found = Found(name)
    for folder in step_folders(run / name):
        try:
            found.checkpoints.append(open_checkpoint(folder).step)
        except CheckpointError as error:
            found.problems.append(str(error))
    rows = losses(run, name)
    steps = sorted(rows)
    found.steps = len(steps)
    shipped = (run / ATTRIBUTION).exists()  # of its steps one in ten is kept
    if not shipped and (steps != list(range(len(steps))) or len(steps) < max(found.checkpoints, default=0)):
        found.problems.append(f"{run / METRICS}: steps of {name} are missing")
    if any(len(same) > 1 for same in rows.values()):
        found.problems.append(f"{run / METRICS}: steps of {name} stand there twice")
    return found


def losses(run: Path, name: str) -> dict[int, list[dict[str, Any]]]:
    """A stage's lines of metrics.jsonl that tell of a step, by its number."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in read_jsonl(run / METRICS):
        if row.get("stage") == name and "loss" in row:
            found.setdefault(row["step"], []).append(row)
    return found


def repeat(run: Path, found: Found) -> None:
    """Make one step of a stage once more, and compare. Raises what the stage raises where its inputs are gone."""
    record = read_stage(run, found.stage) or read_json(run / found.stage / "started.json") or {}
    cls, work = WORK[found.stage]
    config = from_json(cls, record["config"])
    rows = {step: same[0] for step, same in losses(run, found.stage).items() if same[0]["loss"] is not None}
    start = next((step for step in reversed(found.checkpoints) if step in rows), 0)
    base = getattr(config, "base", "") or BEFORE.get(found.stage, "")
    if start:
        origin: Checkpoint | None = open_checkpoint(run / found.stage / f"step_{start:06d}")
    else:
        origin = newest(run / base) if base else None  # pretraining begins from nothing
    if start not in rows or not (can_go_on(origin) or (found.stage == "pretrain" and not start)):
        found.note = "there is no checkpoint with the optimizer's state, and a line of metrics for the step after it"
        return
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="verify-", dir=home()))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        copy_inputs(run, folder, found.stage, start)
        quiet = {name: 0 for name in ("eval_every", "lapse_every", "save_every") if hasattr(config, name)}
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Interrupted):
            work(replace(config, run=folder.name, stop_after=1, keep=2, **quiet))
        if start not in (again := losses(folder, found.stage)):
            found.note = "what the stage is made from has changed since"
            return
        compare(found, config, origin.state if origin else record, rows[start], again[start][0])


def can_go_on(origin: Checkpoint | None) -> bool:
    """Whether a checkpoint has what training goes on from; a shipped one has weights alone."""
    return origin is not None and any(name.startswith("optimizer") for name in origin.state["files"])


def copy_inputs(run: Path, folder: Path, stage: str, start: int) -> None:
    """Lay out in `folder` what a resume of the stage after `start` steps reads: links, since it writes elsewhere."""
    for name in ("tokenizer", "tokens", *STAGES[: STAGES.index(stage)]):
        if (run / name).exists():
            (folder / name).symlink_to((run / name).resolve())
    begun = read_json(run / stage / "started.json") or read_stage(run, stage)
    write_atomically(folder / stage / "started.json", dumps({"fingerprint": begun["fingerprint"]}))
    if start:
        step = f"step_{start:06d}"
        (folder / stage / step).symlink_to((run / stage / step).resolve())


def compare(found: Found, config: Any, made: dict[str, Any], before: dict[str, Any], again: dict[str, Any]) -> None:
    """Note how the repeated step compares with the one on record."""
    exact = all(before[name] == again[name] for name in ("tokens", "learned", "loss", "grad_norm", "lr"))
    off = abs(before["loss"] - again["loss"]) / max(abs(before["loss"]), 1e-9)
    runtime = detect(config.device, config.dtype, deterministic=config.deterministic)
    changes = elsewhere(made, runtime)
    found.replay = {"step": before["step"], "loss": before["loss"], "again": again["loss"], "exact": exact}
    if config.deterministic and runtime.device.type == "cpu" and not changes:
        wrong = not exact
    else:
        wrong = not off <= CLOSE[made["machine"]["dtype"]]
    if wrong:
        where = f"step {before['step']} of {found.stage}"
        found.problems.append(f"{where} has a loss of {again['loss']} when repeated, {before['loss']} on record")


def told(found: Found) -> str:
    """A stage's findings as a line."""
    words = list(found.problems)
    if found.stage == "tokenizer":
        words = words or ["tokenizer and tokens as recorded"]
    else:
        kept = ", ".join(str(step) for step in found.checkpoints)
        words.append(f"{found.steps} steps; checkpoints as saved: {kept or 'none'}")
    if replay := found.replay:
        same = "the same bits" if replay["exact"] else f"now {replay['again']:.6g}"
        words.append(f"step {replay['step']} repeated: loss {replay['loss']:.6g}, {same}")
    if found.note:
        words.append(f"no step repeated: {found.note}")
    return f"{found.stage:<9} {'; '.join(words)}"
