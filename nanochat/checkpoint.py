"""Run folders and the checkpoints in them: safetensors and JSON, written so that a crash can't hurt them.

    ROOT/NAME/tokenizer/  pretrain/  midtrain/  sft/  rl/        a run, and its stages in order
              pretrain/step_000123/model.safetensors             weights, float32
                                   optimizer.safetensors         momentum and second moments
                                   state.json                    configuration, cursor, versions, hashes of the files

Where the model is cut up among processes, each writes a file of its own, `model-00001-of-00004.safetensors` and so on.

A checkpoint is written to a folder of another name, flushed to the disk, and renamed: it is there whole or not at all.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from nanochat.config import dumps, from_json, to_json
from nanochat.errors import CheckpointError, SchemaError, UsageError
from nanochat.files import discard, partial_of, sha256, whole_folder
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import Together
from nanochat.runtime import Runtime, home, machine, versions
from nanochat.sharded import Sharded
from nanochat.sharded_checkpoint import described, read_into, read_whole, write_shares
from nanochat.tokenizer import Tokenizer
from nanochat.train import Alone, Ranks

SCHEMA = 1  # of state.json; raised when an older program could misread a newer file
STAGES = ("pretrain", "midtrain", "sft", "rl")
SHIPPED = "reference"  # the run that comes with the code
OLDER = "delete this checkpoint, and an older one will be used"
STEP_FOLDER = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint found on disk and verified."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps that led here."""
        return int(self.state["step"])

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors by name."""
        return read_whole(self.folder, "model")

    def restore(self, model: GPT, optimizer: Together | None = None) -> None:
        """Fill `model`, and `optimizer` where given, with what was saved."""
        if isinstance(optimizer, Sharded):
            state = optimizer.empty_state(described(self.folder, "optimizer"))
            read_into(self.folder, {name: weight.detach() for name, weight in optimizer.weights.items()} | state)
            return
        fill(model, self.weights(), self.folder)
        if optimizer is not None:
            named = dict(model.named_parameters())
            for name, tensor in read_whole(self.folder, "optimizer").items():
                weight, _, key = name.rpartition(".")
                optimizer.state_of(named[weight])[key] = tensor if key == "step" else tensor.to(named[weight].device)


def save(
    folder: Path,
    step: int,
    model: GPT,
    optimizer: Together | None,
    runtime: Runtime,
    state: Mapping[str, Any],
    keep: int = 2,
    ranks: Ranks | None = None,
) -> Path:
    """Write `folder/step_NNNNNN`, then drop all but the newest `keep`. `state` is the caller's: cursor, stage, seed.

    The main process does it; where the model is cut up among `ranks` all call it, and each writes its share. Raises
    CheckpointError where that fails, and then the checkpoints before it are as they were.
    """
    final = folder / f"step_{step:06d}"
    ranks = ranks or Alone()
    if not runtime.is_main:
        ranks.wait()  # for the folder
        write_tensors(partial_of(final), model, optimizer)
        return final
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(final) as partial:
            ranks.wait()
            write_tensors(partial, model, optimizer)
            write_state(partial, model, {"step": step, "machine": machine(runtime), **state})
    except (OSError, SafetensorError) as error:
        remedy = "free some space, or set NANOCHAT_HOME to another disk; the checkpoint before it is whole"
        raise CheckpointError(f"to write {final}", str(error), remedy) from error
    for old in step_folders(folder)[: -max(1, keep)]:
        discard(old)
    return final


def write_tensors(folder: Path, model: GPT, optimizer: Together | None) -> None:
    """The weights and the optimizer's state, or this process's share of them."""
    if isinstance(optimizer, Sharded):
        write_shares(folder, "model", {name: weight.detach() for name, weight in optimizer.weights.items()})
        write_shares(folder, "optimizer", optimizer.state())
        return
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    if optimizer is not None:
        save_file(optimizer_tensors(model, optimizer), folder / "optimizer.safetensors")


def write_state(folder: Path, model: GPT, state: Mapping[str, Any]) -> None:
    """What else is to be known; state.json, which has the hashes of the others and of itself, comes last."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    about = {"schema": SCHEMA, "config": model.config, "versions": versions(), **state, "files": files}
    (folder / "state.json").write_text(dumps(sealed(about)), encoding="utf-8")


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` with the hash of all that it says: a cursor that lost a digit would train on, and nobody would notice."""
    plain: dict[str, Any] = to_json({name: value for name, value in state.items() if name != "seal"})
    return plain | {"seal": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


def optimizer_tensors(model: GPT, optimizer: Together) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: `blocks.0.mlp.up.weight.momentum`."""
    found = {}
    for name, weight in model.named_parameters():
        for key, tensor in optimizer.state_of(weight).items():
            found[f"{name}.{key}"] = tensor.detach().cpu().contiguous()
    return found


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None; damaged ones are named in a warning and passed over."""
    for candidate in reversed(step_folders(folder)):
        try:
            return open_checkpoint(candidate)
        except SchemaError:
            raise
        except CheckpointError as error:
            warnings.warn(f"passing over a damaged checkpoint: {error}", stacklevel=2)
    return None


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, its files compared with their hashes. Raises CheckpointError."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        schema, files = state["schema"], dict(state["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"a state.json in {folder}", f"{type(error).__name__}: {error}", OLDER) from error
    if schema != SCHEMA:
        got = f"schema version {schema} in {folder}"
        raise SchemaError(
            f"a checkpoint of schema version {SCHEMA}", got, "use the nanochat that wrote it, or train anew"
        )
    if "seal" in state and sealed(state) != state:  # those written before there were seals have none
        raise CheckpointError(f"{folder / 'state.json'} as it was saved", "other words", OLDER)
    for name, digest in files.items():
        compare(folder / name, digest)
    return Checkpoint(folder, state)


def compare(path: Path, digest: str) -> None:
    """Raises CheckpointError where a file has not the SHA-256 that it was saved with, or can't be read."""
    try:
        got = "" if sha256(path) == digest else "other bytes"
    except FileNotFoundError:
        got = "no file"
    except OSError as error:
        got = str(error)
    if got:
        raise CheckpointError(f"{path} as it was saved", got, OLDER)


def is_whole(folder: Path) -> bool:
    """Whether the newest checkpoint of a stage's folder is there, and undamaged."""
    try:
        return bool(open_checkpoint(step_folders(folder)[-1]))
    except (IndexError, CheckpointError):
        return False


def fill(model: GPT, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy `tensors` into `model`; names and shapes must be exactly its own."""
    wanted = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != got:
        odd = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        raise CheckpointError(f"the weights of {model.config}", f"{', '.join(odd[:3])} otherwise in {folder}")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[name])


def load_model(stage: Path, runtime: Runtime) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """The newest model of a stage's folder, its tokenizer, and its state. Raises CheckpointError."""
    found = newest(stage)
    if found is None:
        raise CheckpointError(f"a checkpoint in {stage}", "none", "train that stage first, or name another with --run")
    model = model_of(found, runtime)
    tokenizer = Tokenizer.load(stage.parent / "tokenizer")
    if tokenizer.fingerprint != found.state.get("tokenizer", tokenizer.fingerprint):
        raise CheckpointError(f"the tokenizer that {stage} was trained with", "another", "train that stage again")
    return model, tokenizer, found.state


def model_of(checkpoint: Checkpoint, runtime: Runtime) -> GPT:
    """The model of a checkpoint, on the runtime's device, ready to answer."""
    try:
        model = GPT(from_json(GPTConfig, checkpoint.state["config"]), runtime.dtype)
    except (UsageError, TypeError, KeyError) as error:
        raise CheckpointError(f"a model configuration in {checkpoint.folder}/state.json", str(error)) from error
    try:
        fill(model, checkpoint.weights(), checkpoint.folder)
    except SafetensorError as error:
        raise CheckpointError(f"weights in {checkpoint.folder}", str(error), "delete this checkpoint") from error
    return model.to(runtime.device).eval()


def run_folder(name: str) -> Path:
    """`ROOT/NAME`, or where the run that comes with the code lies. UsageError for a name that leaves the root."""
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UsageError("a run's name of letters, digits, '.', '-' and '_'", repr(name), "use --run NAME")
    shipped = Path(__file__).parent.parent / "runs" / SHIPPED
    return shipped if name == SHIPPED and not (home() / name).is_dir() and shipped.is_dir() else home() / name


def find_run(selector: str, preset: str = "laptop") -> Path:
    """The stage folder that `NAME[:stage]` selects: by default the preset's run, and its last finished stage."""
    name, _, stage = selector.partition(":")
    folder = run_folder(name or preset)
    if not folder.is_dir():
        there = sorted(path.parent.name for path in home().glob("*/tokenizer"))
        hint = f"runs here: {', '.join(there)}" if there else "make one: python -m nanochat run --preset tiny"
        raise CheckpointError(f"a run at {folder}", "nothing there", hint)
    trained = stages_of(folder)
    if stage and stage not in STAGES:
        raise UsageError(f"a stage, one of {', '.join(STAGES)}", repr(stage), "use --run NAME:STAGE")
    if not trained or (stage and stage not in trained):
        hint = f"stages here: {', '.join(trained)}" if trained else "train it: python -m nanochat run"
        raise CheckpointError(f"a trained {stage or 'stage'} in {folder}", "none", hint)
    finished = [name for name in trained if (folder / name / "stage.json").exists()]
    return folder / (stage or (finished or trained)[-1])


def stages_of(run: Path) -> list[str]:
    """Stages of a run that have a checkpoint, in the order of training."""
    return [stage for stage in STAGES if step_folders(run / stage)]


def step_folders(folder: Path) -> list[Path]:
    """The checkpoints of a stage's folder, oldest first."""
    found = [path for path in folder.glob("step_*") if STEP_FOLDER.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))
