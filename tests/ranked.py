"""What the tests of many processes do in each of them: `python -m tests.ranked WORK FOLDER`, alone or by torchrun."""

import itertools
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from nanochat import rollout
from nanochat.checkpoint import newest, save
from nanochat.distributed import common_list, gathered, joined
from nanochat.errors import NanochatError
from nanochat.gpt import GPT, GPTConfig
from nanochat.keyed import key
from nanochat.loss import IGNORE
from nanochat.optim import Together, build_optimizer, trapezoid
from nanochat.runtime import Runtime, detect, home
from nanochat.stages import evaluate as evaluate_stage
from nanochat.stages import finetune as finetune_stage
from nanochat.stages import reinforce as reinforce_stage
from nanochat.stages.evaluate import EvaluateConfig, evaluate
from nanochat.stages.finetune import FinetuneConfig, finetune
from nanochat.stages.pretrain import PretrainConfig, pretrain
from nanochat.stages.reinforce import ReinforceConfig, reinforce
from nanochat.stages.stage import Stage
from nanochat.stages.stopping import Interrupted
from nanochat.stages.tokenizer import TokenizerConfig, prepare
from nanochat.train import Batch, Ranks, Step, train
from tests.oracles.kitchen import KITCHEN

# Every kind of weight: matrices, tables, the few numbers that are not cut up; 61 rows, which no number divides.
CONFIG = GPTConfig(
    vocab_size=61, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, context=24, smear=True, value_embeddings=True
)


def stream(runtime: Runtime, start: int = 0) -> Iterator[Batch]:
    """This process's rows of four. Rows differ in how many targets they have; every fifth batch has those of one."""
    for at in itertools.count(start):
        draws = torch.Generator().manual_seed(key("toy", at))
        ids = (torch.randint(61, (4, 1), generator=draws) + 3 * torch.arange(25)) % 61
        targets = ids[:, 1:].clone()
        targets[0, 3:] = IGNORE
        if at % 5 == 4:
            targets[:3] = IGNORE
        mine = slice(runtime.rank, None, runtime.world)
        yield Batch(ids[mine, :-1], targets[mine], torch.ones(4, 24)[mine], {"next": at + 1})


def parts(runtime: Runtime, ranks: Ranks) -> tuple[GPT, Together]:
    """A model and its optimizer, as the way of working together wants them."""
    model = GPT(CONFIG, runtime.dtype)
    model.init_weights(1)
    optimizer = build_optimizer(
        model, matrix_lr=0.02, embedding_lr=0.1, head_lr=0.01, matrix_decay=0.1, dtype=runtime.dtype
    )
    return model, ranks.wrap(model, optimizer, runtime.device)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, wherever its rows are."""
    found = tensor.detach()
    return (found.full_tensor() if isinstance(found, DTensor) else found).clone()


def weights(model: GPT, optimizer: Together) -> dict[str, Tensor]:
    """The model's weights as wrapped, or as they are."""
    return dict(getattr(optimizer, "weights", None) or model.named_parameters())


class Messages(TorchDispatchMode):
    """Counts what torch.distributed is asked to send, and the bytes that a ring sends for it."""

    def __init__(self, world: int) -> None:
        super().__init__()
        self.world, self.counts, self.bytes = world, Counter[str](), 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function.__name__.partition(".")[0].strip("_")
            self.counts[name] += 1
            tensors = args[0] if isinstance(args[0], list) else args[:2]
            largest, shares = max(tensor.nbytes for tensor in tensors), 2 if name == "allreduce" else 1
            self.bytes += shares * largest * (self.world - 1) // self.world
        return function(*args, **(kwargs or {}))


def learn(runtime: Runtime, parallel: Any, accumulate: int, steps: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Losses and norms of some steps; weights at their end, and the gradients of the first."""
    first: dict[str, Tensor] = {}
    with joined(runtime, parallel) as ranks:
        model, optimizer = parts(runtime, ranks)
        step_for_real = optimizer.step

        def noted() -> None:
            if not first:
                first.update({f"{name}.grad": whole(w.grad) for name, w in weights(model, optimizer).items()})
            step_for_real()

        optimizer.step = noted  # type: ignore[method-assign]
        # Of many steps each is short: where all has been learned, the rounding of a gradient of nothing is made a step.
        rate = min(1.0, 10 / steps)
        run = train(model, optimizer, stream(runtime), lambda _: rate, steps=steps, accumulate=accumulate, ranks=ranks)
        with Messages(runtime.world) as messages:
            done = [next(run)]
        done += run
        found = {name: whole(weight) for name, weight in weights(model, optimizer).items()}
    told = {"losses": [s.loss for s in done], "norms": [s.grad_norm for s in done], "messages": messages.counts}
    held = [t for o in optimizer.optimizers for state in o.state.values() for t in state.values()]
    told |= {"bytes": messages.bytes, "moments": sum(tensor.numel() for tensor in held)}
    return told, found | first


def skips(runtime: Runtime, parallel: Any) -> list[list[str]]:
    """Why each process skipped each of three steps, of which the second has a broken row, and one process has it."""

    def broken() -> Iterator[Batch]:
        for index, batch in enumerate(stream(runtime)):
            if index == 1 and runtime.rank == runtime.world - 1:
                batch.weights.fill_(float("inf"))
            yield batch

    with joined(runtime, parallel) as ranks:
        model, optimizer = parts(runtime, ranks)
        done = []
        for step in train(model, optimizer, broken(), lambda _: 1.0, steps=3, ranks=ranks):
            done.append(step.skipped)
            assert all(whole(weight).isfinite().all() for weight in weights(model, optimizer).values())
    return gathered(done, runtime)


def ways(folder: Path, world: int) -> None:
    """Some steps in each way of working together, in three number formats; and one step of one and of four batches."""
    told: dict[str, Any] = {}
    for parallel in ("ddp", "zero", "fsdp") if world > 1 else ("alone",):
        for dtype in ("float64", "float32", "bfloat16"):
            runtime = detect("cpu", dtype, threads=1)
            told[f"{parallel} {dtype}"], tensors = learn(runtime, parallel, 2, 100 if dtype == "float64" else 10)
            if runtime.is_main:
                save_file(tensors, folder / f"{parallel}_{dtype}.safetensors")
        for accumulate in (1, 4):
            told[f"{parallel} {accumulate}"] = learn(detect("cpu", "float64", threads=1), parallel, accumulate, 1)[0]
        told[f"{parallel} skips"] = skips(detect("cpu", "float32", threads=1), parallel)
    if runtime.is_main:
        (folder / "told.json").write_text(json.dumps(told))


def part(folder: Path, parallel: Any, until: int) -> None:
    """Go on from the checkpoint in `folder`, if there is one, up to a step, and leave one there."""
    runtime = detect("cpu", "float64", threads=1)
    with joined(runtime, parallel) as ranks:
        model, optimizer = parts(runtime, ranks)
        start = 0
        if found := newest(folder):
            found.restore(model, optimizer)
            start = found.step
        batches, schedule = stream(runtime, start), trapezoid(16, 2, 6)
        list(train(model, optimizer, batches, schedule, steps=until, start=start, ranks=ranks))
        if runtime.is_main or parallel != "ddp":
            save(folder, until, model, optimizer, runtime, {}, ranks=ranks if runtime.world > 1 else None)
        ranks.wait()


def told_figures(folder: Path) -> None:
    """The figures of the stages that have been run."""
    for stage in ("pretrain", "rl"):
        figures = evaluate(EvaluateConfig(run="toy", stage=stage, questions=5, device="cpu", dtype="float64"))
        if os.environ.get("RANK", "0") == "0":
            rows = [[f.name, f.value, f.low, f.high, f.n] for f in figures]
            (folder / f"figures_{stage}.json").write_text(json.dumps(rows))


def all_stages(folder: Path, steps: int) -> None:
    """A run of every stage in float64, with the answers that reinforcement drew; then its figures."""
    for module in (finetune_stage, reinforce_stage, evaluate_stage):
        module.recipes = lambda root: KITCHEN  # type: ignore[attr-defined]
    # Rewards that a young model earns: without any, no weight would move.
    rollout.reward = lambda tokenizer, question, completion: completion.ids[0] % 7 / 7
    draw, answers = reinforce_stage.roll_out, {}

    def drawn(engine: Any, questions: Any, samples: Any, sampling: Any, rows: Any) -> Any:
        found = draw(engine, questions, samples, sampling, rows)
        mine = {row: r.completion.ids for row, r in zip(rows, found, strict=True)}
        for other in gathered(mine, engine.runtime):
            answers.update({f"{sampling.seed} {row}": ids for row, ids in other.items()})
        return found

    reinforce_stage.roll_out = drawn
    common: dict[str, Any] = {"run": "toy", "device": "cpu", "dtype": "float64"}
    prepare(TokenizerConfig(**common, sources=(str(folder / "dishes.txt"),), vocab_size=300))
    pretrain(PRETRAIN(steps=steps, **common))
    for name in ("midtrain", "sft"):
        finetune(name, FinetuneConfig(**common, steps=steps, rows=4, mixture="tiny", lapse_every=50))
    reinforce(ReinforceConfig(**common, steps=5, prompts=4, samples=2, rows=4, max_tokens=6, mixture="tiny"))
    told_figures(folder)
    if os.environ.get("RANK", "0") == "0":
        (folder / "answers.json").write_text(json.dumps(answers))


def PRETRAIN(**more: Any) -> PretrainConfig:
    return PretrainConfig(
        **{
            "depth": 1, "context": 192, "tokens_per_step": 768, "eval_every": 25, "eval_documents": 5,
            "lapse_every": 50, "smear": True, "value_embeddings": True, **more,
        }
    )  # fmt: skip


def doomed(folder: Path, how: str) -> None:
    """Pretraining in which process 1, once, ends, falls silent or is asked to stop after the sixth step.

    Or, `apart`, in which it has a disk of its own with a copy of the tokens.
    """
    note = Stage.write_metrics

    def noted(self: Stage, step: Step, *more: Any) -> None:
        note(self, step, *more)
        if self.runtime.rank == 1 and step.index == 5 and not (folder / "doomed").exists():
            (folder / "doomed").touch()
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "asked":
                os.kill(os.getpid(), signal.SIGTERM)
            if how == "sleeps":
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                time.sleep(600)

    Stage.write_metrics = noted  # type: ignore[method-assign]
    common: dict[str, Any] = {"run": "toy", "device": "cpu", "dtype": "float32", "deterministic": True}
    prepare(TokenizerConfig(**common, sources=(str(folder / "dishes.txt"),), vocab_size=300))
    if how == "apart" and os.environ["RANK"] == "1":
        os.environ["NANOCHAT_HOME"] = str(shutil.copytree(home(), folder / "other"))
    pretrain(PRETRAIN(**common, steps=60 if how == "cut" else 10, save_every=4, eval_every=0, lapse_every=0))


def meet(runtime: Runtime) -> None:
    """Wait until all are there: on a busy machine one may import for longer than the patience of another."""
    if runtime.world > 1:
        store = common_list()
        store.set(f"here: {runtime.rank}", "")
        store.wait([f"here: {rank}" for rank in range(runtime.world)], timedelta(minutes=10))


def main(work: str, place: str, *more: str) -> None:
    folder = Path(place)
    if work == "ways":
        runtime = detect("cpu")
        with joined(runtime):  # under torchrun a connection is made once
            ways(folder, runtime.world)
    elif work == "part":
        part(folder, more[0], int(more[1]))
    else:
        runtime = detect("cpu")
        meet(runtime)
        with joined(runtime, timeout={"sleeps": 20, "cut": 15}.get(work, 600)):
            all_stages(folder, int(more[0])) if work == "stages" else doomed(folder, work)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except NanochatError as error:
        print(f"nanochat: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Interrupted as stop:
        print(f"nanochat: {stop}", file=sys.stderr)
        sys.exit(130)
