"""Pretraining: learn to continue text, one token at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch

from nanochat.config import parse, to_json
from nanochat.data import Row, TokenStore, open_store, rows, shares
from nanochat.distributed import Parallel
from nanochat.engine import Engine
from nanochat.evaluate.bits import encode_held, score_held
from nanochat.gpt import GPT
from nanochat.optim import build_optimizer, trapezoid
from nanochat.plan import Plan, plan
from nanochat.runtime import Runtime
from nanochat.stages.presets import presets_of
from nanochat.stages.records import read_stage
from nanochat.stages.sample import LAPSE_QUESTION, continue_text
from nanochat.stages.stage import PLANNED_MFU, Stage, open_stage
from nanochat.stages.tokenizer import read_sides
from nanochat.tokenizer import Tokenizer
from nanochat.train import Batch, train


@dataclass(frozen=True)
class PretrainConfig:
    """Learn to continue text. `--depth` is the dial that sets the rest."""

    AT_LEAST_ONE: ClassVar = ("depth", "context", "keep")

    run: str = ""
    """the run's name; by default the preset's"""
    preset: str = "laptop"
    """fills the fields below; a flag beside it wins"""
    depth: int = 4
    """the dial: layers, and by it width, heads, batch, rates, tokens (see `nanochat plan`)"""
    context: int = 512
    """tokens a row, and the longest conversation later on"""
    kv_heads: int = 1
    """heads of keys and values; 0: as many as query heads"""
    smear: bool = False
    """extra: each token's features take in some of the token before it"""
    value_embeddings: bool = False
    """extra: two layers add to a token's values what they know of the token"""
    sharpness: float = 1.0
    """extra: a factor on the scores of attention"""
    tokens_per_step: int = 0
    """0: by the dial"""
    steps: int = 0
    """0: by the dial"""
    rows: int = 0
    """rows of a micro-batch, on each process: fewer need less memory; 0: by the dial"""
    rate: float = 1.0
    """learning rates, as a share of the dial's"""
    eval_every: int = 100
    """steps between two measurements on held-out text; 0: only at the end"""
    eval_documents: int = 100
    """held-out documents of each measurement"""
    lapse_every: int = 100
    """steps between two samples from the same prompt; 0: never"""
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
    """of weights and order"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""
    deterministic: bool = False
    """the same bits again on the same machine, a little slower"""


LAPSE_PROMPT = "Chocolate Cake\n"


def main(argv: Sequence[str]) -> int:
    """The verb `pretrain`."""
    return pretrain(parse(PretrainConfig, argv, prog="nanochat pretrain", presets=presets_of("pretrain", argv)))


def pretrain(config: PretrainConfig) -> int:
    """Run the stage; 0 when it is done."""
    with open_stage("pretrain", config, parents=["tokenizer"]) as stage:
        if stage is None:
            return 0
        tokenizer = Tokenizer.load(stage.run / "tokenizer")
        chosen = plan(
            config.depth, vocab_size=tokenizer.vocab_size, context=config.context, kv_heads=config.kv_heads,
            tokens_per_step=config.tokens_per_step, steps=config.steps, rows=config.rows, world=stage.runtime.world,
            smear=config.smear, value_embeddings=config.value_embeddings, sharpness=config.sharpness,
        )  # fmt: skip
        model = GPT(chosen.model, stage.runtime.dtype)
        model.init_weights(config.seed)
        optimizer = build_optimizer(
            model, matrix_lr=config.rate * chosen.matrix_lr, embedding_lr=config.rate * chosen.embedding_lr,
            head_lr=config.rate * chosen.head_lr, matrix_decay=chosen.matrix_decay, dtype=stage.runtime.dtype,
        )  # fmt: skip
        optimizer = stage.ranks.wrap(model, optimizer, stage.runtime.device)
        start, cursor = stage.resume(model, optimizer)
        seconds = stage.planned_seconds(chosen.tokens, model)
        announce(stage, chosen, seconds)
        stream = rows(
            stores(stage),
            bos=tokenizer.special("<|bos|>"),
            context=chosen.model.context,
            seed=config.seed,
            cursor=cursor,
        )
        batches = row_batches(stream, chosen.rows, stage.runtime)
        schedule = trapezoid(chosen.steps, chosen.warmup, chosen.warmdown)
        steps = train(
            model,
            optimizer,
            batches,
            schedule,
            steps=chosen.steps,
            accumulate=chosen.accumulate,
            start=start,
            ranks=stage.ranks,
        )
        watch = Watch(stage, model, tokenizer)
        for step in stage.training(steps, model, optimizer, chosen.steps, start):
            cursor = step.cursor
            watch(step.index + 1, last=step.index + 1 == chosen.steps)
        stage.save(model, optimizer, chosen.steps, cursor)
        cost = shares(cursor)
        stage.say("packing: {cropped:.1%} of tokens cropped, {padded:.1%} padded".format(**cost))
        record = to_json(chosen) | {"tokens": chosen.tokens, "seconds": seconds}
        stage.finish(plan=record, packing=cost)
    return 0


def announce(stage: Stage, chosen: Plan, seconds: float) -> None:
    """What is about to happen."""
    total, m = sum(chosen.parameters.values()), chosen.model
    stage.say(
        f"{total / 1e6:.2f} M parameters: {m.n_layer} layers x {m.n_embd}, {m.n_head} heads, context {m.context}; "
        f"{chosen.steps} steps x {chosen.tokens_per_step:,} tokens = {chosen.tokens / 1e6:.2f} M tokens"
    )
    runtime, name = stage.runtime, str(stage.runtime.dtype).removeprefix("torch.")
    peak = f"{stage.peak_flops / 1e9:,.0f} GFLOP/s"
    stage.say(f"{runtime.device.type}, {name}, {runtime.threads} threads; products at {peak}")
    stage.say(f"about {seconds:.0f} s, if {PLANNED_MFU:.0%} of that is reached")


def stores(stage: Stage) -> list[TokenStore]:
    """The training side of every source, as the tokenizer stage wrote it."""
    done = read_stage(stage.run, "tokenizer")
    names = [name for name in done["corpus"] if name.endswith(".train")]
    return [open_store(stage.run / "tokens" / f"{name}.npy", tokenizer=done["tokenizer"]) for name in names]


def row_batches(stream: Iterator[Row], count: int, runtime: Runtime) -> Iterator[Batch]:
    """This process's share of each `count` x world rows: rank r takes rows r, r + world, ..."""
    while True:
        everyone = list(islice(stream, count * runtime.world))
        mine = np.stack([row.ids for row in everyone[runtime.rank :: runtime.world]]).astype(np.int64)
        ids = torch.from_numpy(mine).to(runtime.device)
        weights = torch.ones(ids.shape[0], ids.shape[1] - 1, device=runtime.device)
        yield Batch(ids[:, :-1], ids[:, 1:], weights, everyone[-1].cursor)


class Watch:
    """What is looked at between steps: bits per byte of held-out text, and the same prompt again and again."""

    def __init__(self, stage: Stage, model: GPT, tokenizer: Tokenizer) -> None:
        self.stage, self.model, self.config = stage, model, stage.config
        self.engine = Engine(model, tokenizer, stage.runtime)
        sides = read_sides(read_stage(stage.run, "tokenizer")["sources"])
        texts = [doc.text for name, docs in sides.items() if name.endswith(".held") for doc in docs]
        self.held = encode_held(tokenizer, texts, self.config.eval_documents, self.config.seed) if texts else None

    def __call__(self, done: int, last: bool) -> None:
        """Look, if it is time."""
        every, lapse = self.config.eval_every, self.config.lapse_every
        figures: dict[str, Any] = {}
        if self.held and (last or (every and done % every == 0)):
            figures["val_bpb"] = score_held(self.model, self.held, self.stage.runtime).value
            self.stage.measure(done - 1, **figures)
            self.stage.say(f"  step {done:>5}  held-out {figures['val_bpb']:.3f} bits per byte")
        if lapse and (last or done % lapse == 0):
            with self.stage.ranks.whole(self.model):
                for prompt in (LAPSE_PROMPT, LAPSE_QUESTION) if self.stage.runtime.is_main else ():
                    self.stage.lapse(done, prompt, partial(continue_text, self.engine, prompt, self.config.seed))
