"""Midtraining and fine-tuning: the same loop on conversations, where only the assistant's words are learned.

`midtrain` teaches the chat format and the skills: copying from the context, calling tools, arithmetic. `sft` teaches
what to say to people. They differ in their mixture of tasks and their numbers, and in nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from nanochat import tasks as tasks_package
from nanochat.checkpoint import STAGES, newest
from nanochat.config import from_json, parse
from nanochat.data import SOURCES, recipes
from nanochat.distributed import Parallel, share
from nanochat.engine import Engine, Sampling
from nanochat.errors import CheckpointError, UsageError
from nanochat.evaluate.graded import graded
from nanochat.files import sha256
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import IGNORE
from nanochat.optim import Together, build_optimizer, trapezoid
from nanochat.runtime import Runtime, home
from nanochat.stages.presets import presets_of
from nanochat.stages.records import read_stage
from nanochat.stages.sample import LAPSE_QUESTION, ask
from nanochat.stages.stage import Stage, open_stage
from nanochat.tasks import Table, Task, catalogue, example_for, limit_for, mixture, tools_for
from nanochat.tokenizer import Tokenizer, render
from nanochat.tokenizer.chat import Rendered
from nanochat.train import Batch, train


@dataclass(frozen=True)
class FinetuneConfig:
    """Continue a model on conversations: the chat format and skills (midtrain), then what to say (sft)."""

    AT_LEAST_ONE: ClassVar = ("steps", "rows", "accumulate", "keep")

    run: str = ""
    """the run's name; by default the preset's"""
    preset: str = "laptop"
    """fills the fields below; a flag beside it wins"""
    base: Literal["", "pretrain", "midtrain", "sft"] = ""
    """the stage to continue; by default the one before"""
    steps: int = 300
    """optimizer steps"""
    rows: int = 8
    """rows of a micro-batch, over all processes"""
    accumulate: int = 1
    """micro-batches a step"""
    context: int = 0
    """tokens a row, and the longest conversation from here on; 0: as before"""
    mixture: Literal["", "tiny"] = ""
    """the tasks: the kitchen assistant's, or the tiny preset's"""
    rate: float = 0.5
    """learning rates, as a share of pretraining's"""
    warmdown: float = 0.5
    """share of the steps over which the rate falls to zero"""
    lapse_every: int = 50
    """steps between two answers to the same question; 0: never"""
    save_every: int = 200
    """steps between two checkpoints; 0: only at the end"""
    keep: int = 2
    """newest checkpoints that are kept"""
    stop_after: int = 0
    """steps after which to save and stop, to go on another time; 0: none"""
    parallel: Parallel = "zero"
    """many processes: zero shares out the optimizer, fsdp the weights too, ddp nothing (see chapter 6.12)"""
    timeout: int = 600
    """seconds without a sign of another process, after which it counts as lost"""
    seed: int = 0
    """of everything that is drawn"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""
    deterministic: bool = False
    """the same bits again on the same machine, a little slower"""


MOMENTUM = 0.95  # as in pretraining, whose optimizer is carried on
COPYING = "copy_strings"  # whose turn is watched where it is taught
PROBES = 24
BEFORE = {"midtrain": "pretrain", "sft": "midtrain", "rl": "sft"}


def main(argv: Sequence[str], name: Literal["midtrain", "sft"]) -> int:
    """The verbs `midtrain` and `sft`."""
    return finetune(name, parse(FinetuneConfig, argv, prog=f"nanochat {name}", presets=presets_of(name, argv)))


def finetune(name: Literal["midtrain", "sft"], config: FinetuneConfig) -> int:
    """Run the stage; 0 when it is done."""
    base = config.base or BEFORE[name]
    if STAGES.index(base) >= STAGES.index(name):
        raise UsageError(f"a --base before {name}", base, f"one of: {', '.join(STAGES[: STAGES.index(name)])}")
    with open_stage(name, config, parents=[base], inputs=lessons(mixture(name, config.mixture))) as stage:
        if stage is None:
            return 0
        model, optimizer, tokenizer = continued(stage, base, config.rate, config.context)
        share(config.rows, "rows", stage.runtime)
        kitchen = recipes(home())
        start, cursor = stage.resume(model, optimizer)  # from here on the stage's folder is ours: nothing may refuse
        engine = Engine(model, tokenizer, stage.runtime, tools_for(kitchen, limit_for(model.config.context)))
        tasks, table = catalogue(kitchen, limit_for(model.config.context)), mixture(name, config.mixture)
        conversations = conversation_stream(tokenizer, tasks, table, config.seed, model.config.context + 1, cursor)
        batches = row_batches(conversations, config.rows, stage.runtime)
        schedule = trapezoid(config.steps, config.steps // 20, round(config.warmdown * config.steps))
        steps = train(
            model,
            optimizer,
            batches,
            schedule,
            steps=config.steps,
            accumulate=config.accumulate,
            start=start,
            ranks=stage.ranks,
        )
        for step in stage.training(steps, model, optimizer, config.steps, start):
            done = step.index + 1
            if config.lapse_every and (done % config.lapse_every == 0 or done == config.steps):
                with stage.ranks.whole(model):
                    if stage.runtime.is_main:
                        stage.lapse(done, LAPSE_QUESTION, lambda: ask(engine, LAPSE_QUESTION, config.seed))
                    if COPYING in table:
                        copies = copied(engine, tasks[COPYING])
                        stage.measure(step.index, copied=copies)
                        stage.say(f"  step {done:>5}  copies {copies:.0%} of new strings")
            cursor = step.cursor
        stage.save(model, optimizer, config.steps, cursor)
        tokens = config.steps * config.accumulate * config.rows * model.config.context
        seconds = stage.planned_seconds(tokens, model)
        about = {"steps": config.steps, "tokens": tokens, "seconds": seconds, "base": base, "mixture": describe(table)}
        stage.finish(plan=about)
    return 0


def copied(engine: Engine, task: Task) -> float:
    """The share of a few held-out strings that the model says again without a slip: it turns up all of a sudden."""
    answers = graded(engine, task, "test", PROBES, sampling=Sampling(temperature=0, max_tokens=64))
    return sum(answer.grade.right for answer in answers) / PROBES


def continued(
    stage: Stage, base: str, rate: float, context: int = 0, momentum: float = 0.0
) -> tuple[GPT, Together, Tokenizer]:
    """The model and the optimizer that `base` ended with, at `rate` times pretraining's learning rates.

    With a `momentum` the optimizer begins anew, with that one: another loss has other gradients.

    A `context` replaces the model's: nothing in its weights depends on it, only what they have been trained for.
    """
    found = newest(stage.run / base)
    if found is None:
        raise CheckpointError(
            f"a checkpoint of {base} in {stage.run}", "none", f"run it first: python -m nanochat {base}"
        )
    shape = found.state["config"] | ({"context": context} if context else {})
    model = GPT(from_json(GPTConfig, shape), stage.runtime.dtype)
    plan = read_stage(stage.run, "pretrain")["plan"]
    optimizer = build_optimizer(
        model,
        matrix_lr=rate * plan["matrix_lr"],
        embedding_lr=rate * plan["embedding_lr"],
        head_lr=rate * plan["head_lr"],
        dtype=stage.runtime.dtype,
        momentum=momentum or MOMENTUM,
    )
    if momentum:
        found.restore(model)
    optimizer = stage.ranks.wrap(model, optimizer, stage.runtime.device)
    if not momentum:
        found.restore(model, optimizer)
    return model, optimizer, Tokenizer.load(stage.run / "tokenizer")


def lessons(table: Table) -> dict[str, object]:
    """What conversations are made from besides numbers: an edited task, or another Cookbook, makes a stage stale."""
    folder = Path(tasks_package.__file__).parent
    made_by = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.suffix in (".py", ".jsonl")}
    return {"table": dict(table), "tasks": made_by, "recipes": SOURCES["cookbook"].sha256}


def describe(table: Table) -> dict[str, float]:
    """Shares of a mixture by task, for the record."""
    total = sum(table.values())
    return {task: weight / total for task, weight in table.items()}


POOL = 32  # conversations to choose from: enough that a row is filled to its last few tokens


@dataclass(frozen=True)
class Row:
    """Conversations laid end to end to T + 1 tokens, and where the stream stands after them."""

    ids: np.ndarray
    mask: np.ndarray
    cursor: dict[str, object]


def conversation_stream(
    tokenizer: Tokenizer, tasks: Mapping[str, Task], table: Table, seed: int, length: int, cursor: Mapping[str, object]
) -> Iterator[Row]:
    """Rows of whole conversations, without end: of a few dozen the oldest, then whichever still fit, then padding.

    A conversation longer than a row is cut at its end. Conversation i is a function of (seed, table, i), so a cursor
    needs no more than which one is next and which ones wait.
    """

    def rendered(index: int) -> tuple[int, Rendered]:
        return index, render(tokenizer, example_for(tasks, table, index, seed)[1].conversation, length)

    following, waiting = int(str(cursor.get("next", 0))), [rendered(index) for index in indices(cursor)]
    while True:
        while len(waiting) < POOL:
            waiting.append(rendered(following))
            following += 1
        ids: list[int] = []
        mask: list[int] = []
        left = []
        for index, conversation in waiting:
            if len(ids) + len(conversation.ids) <= length:
                ids += conversation.ids
                mask += conversation.mask
            else:
                left.append((index, conversation))
        waiting = left
        padding = [0] * (length - len(ids))
        after: dict[str, object] = {"next": following, "waiting": [index for index, _ in waiting]}
        yield Row(np.array(ids + padding), np.array(mask + padding), after)


def indices(cursor: Mapping[str, object]) -> list[int]:
    """The conversations that a cursor says are waiting."""
    waiting = cursor.get("waiting", [])
    assert isinstance(waiting, list)
    return waiting


def row_batches(rows: Iterator[Row], count: int, runtime: Runtime) -> Iterator[Batch]:
    """This process's share of each `count` rows: rank r takes rows r, r + world, ..."""
    while True:
        all_rows = [next(rows) for _ in range(count)]
        mine = all_rows[runtime.rank :: runtime.world]
        ids = torch.from_numpy(np.stack([row.ids for row in mine])).long()
        mask = torch.from_numpy(np.stack([row.mask for row in mine])).bool()
        targets = torch.where(mask, ids, IGNORE)[:, 1:]
        ids, targets = ids.to(runtime.device), targets.to(runtime.device)
        yield Batch(ids[:, :-1], targets, (targets != IGNORE).float(), all_rows[-1].cursor)
