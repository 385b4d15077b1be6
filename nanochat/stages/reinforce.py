"""Reinforcement learning with verifiable rewards: the model answers, what was good becomes likelier."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from nanochat.attention import rounded
from nanochat.config import parse
from nanochat.data import recipes
from nanochat.distributed import Parallel, share
from nanochat.engine import Engine, Sampling
from nanochat.errors import UsageError
from nanochat.gpt import GPT
from nanochat.loss import IGNORE
from nanochat.optim import trapezoid
from nanochat.rollout import Question, Rollout, roll_out, sampling_seed, to_batches
from nanochat.runtime import Runtime, home
from nanochat.stages.finetune import BEFORE, continued, conversation_stream, describe, lessons, row_batches
from nanochat.stages.presets import presets_of
from nanochat.stages.sample import LAPSE_QUESTION, ask
from nanochat.stages.stage import Stage, open_stage
from nanochat.tasks import Table, Task, catalogue, example_for, limit_for, mixture, tools_for
from nanochat.train import Batch, train


@dataclass(frozen=True)
class ReinforceConfig:
    """Reinforcement learning on tasks whose answers a program can check."""

    AT_LEAST_ONE: ClassVar = ("steps", "prompts", "samples", "rows", "max_tokens", "keep")

    run: str = ""
    """the run's name; by default the preset's"""
    preset: str = "laptop"
    """fills the fields below; a flag beside it wins"""
    steps: int = 60
    """optimizer steps, each on fresh answers"""
    prompts: int = 16
    """questions a step"""
    samples: int = 8
    """answers to each question"""
    rows: int = 64
    """most answers of a micro-batch"""
    rehearse: int = 4
    """rows of fine-tuning's conversations beside the answers, so that nothing else is forgotten; 0: none"""
    max_tokens: int = 64
    """longest answer, in tokens that the model draws"""
    mixture: Literal["", "tiny"] = ""
    """the tasks: the kitchen assistant's, or the tiny preset's"""
    rate: float = 0.1
    """learning rates, as a share of pretraining's; falls to zero"""
    lapse_every: int = 20
    """steps between two answers to the same question; 0: never"""
    save_every: int = 20
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


MOMENTUM = 0.9  # begun anew, and shorter than fine-tuning's: that one's gradients would lead the first twenty steps
APART = 1 << 40  # further than any run counts: where the second draw of an index lies
SUM_QUESTION = "2 cups of flour serve 4. How much for 10 people?"


def main(argv: Sequence[str]) -> int:
    """The verb `rl`."""
    return reinforce(parse(ReinforceConfig, argv, prog="nanochat rl", presets=presets_of("rl", argv)))


def reinforce(config: ReinforceConfig) -> int:
    """Run the stage; 0 when it is done."""
    with open_stage("rl", config, parents=[BEFORE["rl"]], inputs=lessons(mixture("rl", config.mixture))) as stage:
        if stage is None:
            return 0
        model, optimizer, tokenizer = continued(stage, BEFORE["rl"], config.rate, momentum=MOMENTUM)
        mine, kitchen = share(config.prompts, "prompts", stage.runtime), recipes(home())
        share(config.rehearse, "rehearse", stage.runtime)
        start, cursor = stage.resume(model, optimizer)
        engine = Engine(model, tokenizer, stage.runtime, tools_for(kitchen, limit_for(model.config.context)))
        tasks, table = catalogue(kitchen, limit_for(model.config.context)), mixture("rl", config.mixture)
        batches = rollout_batches(stage, model, engine, tasks, table, start)
        # Every process must read as many micro-batches as the others, whatever its answers are.
        accumulate = -(-mine * config.samples // config.rows) + (config.rehearse > 0)
        schedule = trapezoid(config.steps, 0, config.steps)
        steps = train(
            model,
            optimizer,
            batches,
            schedule,
            steps=config.steps,
            accumulate=accumulate,
            start=start,
            ranks=stage.ranks,
        )
        for step in stage.training(steps, model, optimizer, config.steps, start):
            done, cursor = step.index + 1, step.cursor
            figures = {name: float(str(cursor[name])) for name in ("reward", "answer_tokens", "stopped", "taught")}
            stage.measure(step.index, **figures)
            if config.lapse_every and (done % config.lapse_every == 0 or done == config.steps):
                with stage.ranks.whole(model):
                    for asked in (LAPSE_QUESTION, SUM_QUESTION) if stage.runtime.is_main else ():
                        stage.lapse(done, asked, partial(ask, engine, asked, config.seed))
        stage.save(model, optimizer, config.steps, cursor)
        stage.finish(
            plan={
                "steps": config.steps,
                "answers": config.steps * config.prompts * config.samples,
                "mixture": describe(table),
            }
        )
    return 0


def rollout_batches(
    stage: Stage, model: GPT, engine: Engine, tasks: dict[str, Task], table: Table, start: int
) -> Iterator[Batch]:
    """Micro-batches of fresh answers. Nothing is drawn ahead: each step's answers are those of its own model."""
    config, step = stage.config, start
    mine = share(config.prompts, "prompts", stage.runtime)
    while True:
        first = step * config.prompts
        questions = [
            question(engine, tasks, table, first + i, config.seed)
            for i in range(stage.runtime.rank, config.prompts, stage.runtime.world)
        ]
        sampling = Sampling(max_tokens=config.max_tokens, seed=sampling_seed(config.seed, step))
        rows = [
            (stage.runtime.rank + i * stage.runtime.world) * config.samples + s
            for i in range(mine)
            for s in range(config.samples)
        ]
        with stage.breaking(), stage.ranks.whole(model):
            rollouts = roll_out(engine, questions, config.samples, sampling, rows)
        cursor = summary(stage, step, rollouts)
        yield from micro_batches(rollouts, config.rows, stage.runtime, cursor)
        if config.rehearse:
            yield replace(lessons_of(stage, engine, tasks, step), cursor=cursor)
        step += 1


def micro_batches(
    rollouts: Sequence[Rollout], rows: int, runtime: Runtime, cursor: dict[str, object]
) -> Iterator[Batch]:
    """Micro-batches of the answers that teach: those that were better or worse than the others to their question.

    Where all answers to a question earn the same, no advantage is left, and a pass over them would cost time for a
    gradient of zero. How many micro-batches there are must not depend on the answers, since all processes read as
    many: each gets an equal share, of like lengths, and what is left over at the end is empty.
    """
    count = -(-len(rollouts) // rows)
    teaching = sorted((r for r in rollouts if r.advantage), key=lambda r: len(r.prompt) + len(r.completion.ids))
    each = min(rows, rounded(max(1, -(-len(teaching) // count))))
    made = list(to_batches(teaching, each, runtime, cursor))
    nothing = torch.zeros(1, 1, dtype=torch.long, device=runtime.device)
    empty = Batch(nothing, torch.full_like(nothing, IGNORE), nothing.float(), cursor)
    yield from made + [empty] * (count - len(made))


def lessons_of(stage: Stage, engine: Engine, tasks: dict[str, Task], step: int) -> Batch:
    """The conversations of fine-tuning that are kept up in this step: others in each, and known from its number."""
    config, length = stage.config, engine.model.config.context + 1
    first: dict[str, object] = {"next": APART + step * config.rehearse * length}
    table = mixture("sft", config.mixture)
    rows = conversation_stream(engine.tokenizer, tasks, table, config.seed, length, first)
    return next(row_batches(rows, config.rehearse, stage.runtime))


def question(engine: Engine, tasks: dict[str, Task], table: Table, index: int, seed: int) -> Question:
    """The question of this index: the first of its draws that leaves the context room for an answer of equal length."""
    context = engine.model.config.context
    for attempt in range(100):
        name, example = example_for(tasks, table, index + attempt * APART, seed)
        asked = Question(tasks[name], example)
        if 2 * len(asked.prompt(engine.tokenizer)) < context:
            return asked
    raise UsageError(f"questions that fit into half of {context} tokens", "none in 100", "use a larger --context")


def summary(stage: Stage, step: int, rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """The cursor after a step's answers: the next step, and what the answers were like over all processes."""
    sums = [
        float(len(rollouts)),
        sum(r.reward for r in rollouts),
        float(sum(sum(r.completion.sampled) for r in rollouts)),
        float(sum(r.completion.finish == "stop" for r in rollouts)),
        float(sum(r.advantage != 0 for r in rollouts)),
    ]
    count, *totals = stage.ranks.total(sums)
    means = (total / count for total in totals)
    return {"next": step + 1, **dict(zip(("reward", "answer_tokens", "stopped", "taught"), means, strict=True))}
