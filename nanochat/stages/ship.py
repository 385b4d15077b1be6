"""A run made small enough to give away: tokenizer, pretrained and final model in bfloat16, figures and report."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from nanochat.checkpoint import newest, sealed, stages_of
from nanochat.config import dumps
from nanochat.errors import CheckpointError, UsageError
from nanochat.files import sha256, write_atomically
from nanochat.report import write_report
from nanochat.stages.records import read_jsonl, read_stage, write_jsonl

QUOTED = "Recipes in the conversations and the report are quoted from the Cookbook, under the same licence."
ATTRIBUTION = "ATTRIBUTION.md"
EVERY = 10  # steps of the metrics that are kept: one in so many
TOLD = ("stage.json", "figures.json", "conversations.json", "dialogues.json", "judgements.json", "timelapse.jsonl")


def ship(run: Path, target: Path) -> int:
    """Copy what of `run` others need to talk to it and to check it into `target`; how many bytes that is.

    Optimizer states stay behind, and so do the tokens: they are the corpus, whose text is not ours to copy.
    """
    stages = stages_of(run)
    if not stages:
        raise CheckpointError(f"a trained run in {run}", "none", "make it: python -m nanochat run")
    if target.exists() and any(target.iterdir()) and not (target / ATTRIBUTION).exists():
        raise UsageError("an empty folder, or one that a run was shipped to", str(target), "use --ship with another")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(run / "tokenizer", target / "tokenizer")
    thin(run / "metrics.jsonl", target / "metrics.jsonl")
    for stage in stages:
        (target / stage).mkdir()
        for name in TOLD:
            if (run / stage / name).exists():
                shutil.copy(run / stage / name, target / stage / name)
    for stage in {"pretrain", stages[-1]} & set(stages):
        ship_weights(run / stage, target / stage)
    attribution = read_stage(run, "tokenizer").get("attribution", "See the report.")
    (target / ATTRIBUTION).write_text(f"# What this model has read\n\n{attribution}\n\n{QUOTED}\n", "utf-8")
    write_report(target)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def thin(source: Path, target: Path) -> None:
    """Every tenth step of a run's metrics, each stage's last, and every line that something was measured on.

    A line that is kept counts the tokens of those left out before it, so that sums stay what they were.
    """
    rows = read_jsonl(source)
    last = {row["stage"]: row["step"] for row in rows if "tokens" in row}
    kept, waiting = [], {"tokens": 0, "learned": 0}
    for row in rows:
        if "tokens" not in row:
            kept.append(row)
            continue
        waiting = {name: count + row.get(name, 0) for name, count in waiting.items()}
        if row["step"] % EVERY == 0 or row["step"] == last[row["stage"]]:
            kept.append(row | {name: count for name, count in waiting.items() if name in row})
            waiting = dict.fromkeys(waiting, 0)
    write_jsonl(target, kept)


def ship_weights(stage: Path, target: Path) -> None:
    """The newest checkpoint of a stage, its weights rounded to bfloat16, without optimizer state."""
    found = newest(stage)
    if found is None:
        raise CheckpointError(f"a checkpoint in {stage}", "none", "train that stage again")
    folder = target / found.folder.name
    folder.mkdir()
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in found.weights().items()}
    save_file(weights, folder / "model.safetensors")
    state = found.state | {"files": {"model.safetensors": sha256(folder / "model.safetensors")}}
    write_atomically(folder / "state.json", dumps(sealed(state)))
