"""`nanochat run`: every stage of a preset, in order; what is done, and whose inputs have not changed, is skipped."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

from rich.console import Console

from nanochat.checkpoint import run_folder
from nanochat.config import parse
from nanochat.distributed import joined
from nanochat.report import write_report
from nanochat.runtime import detect
from nanochat.stages.evaluate import EvaluateConfig, evaluate
from nanochat.stages.finetune import FinetuneConfig, finetune
from nanochat.stages.presets import PRESETS
from nanochat.stages.pretrain import PretrainConfig, pretrain
from nanochat.stages.reinforce import ReinforceConfig, reinforce
from nanochat.stages.tokenizer import TokenizerConfig, prepare

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunConfig:
    """All stages of a preset, from raw text to a chatbot and its report card. The same command goes on after a stop."""

    preset: str = "laptop"
    """which sizes and how many steps"""
    run: str = ""
    """the run's name; by default the preset's"""
    depth: int = 0
    """turns the dial: pretraining's width, batch, steps and rates follow; 0: the preset's"""
    seed: int = 0
    """of everything that is drawn"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""
    deterministic: bool = False
    """the same bits again on the same machine, a little slower"""
    chat: bool = False
    """open the chat when all is done"""
    evaluate: bool = True
    """measure each stage on held-out text and questions"""


def main(argv: Sequence[str]) -> int:
    """The verb `run`."""
    return run_all(parse(RunConfig, argv, prog="nanochat run", presets={name: {} for name in PRESETS}))


def run_all(config: RunConfig) -> int:
    """Run what has not been run; 0 when all is done."""
    began, run = time.perf_counter(), run_folder(config.run or config.preset)
    runtime = detect(config.device, config.dtype)
    console = Console(stderr=True, quiet=not runtime.is_main)
    minutes = PRESETS[config.preset].get("run", {}).get("minutes")
    expected = f", about {minutes:g} reference minutes when nothing is done yet" if minutes and not config.depth else ""
    console.print(f"[bold]{config.preset}[/] -> {run}{expected}", highlight=False)
    with joined(runtime):
        for name, work in stages(config):
            console.rule(f"[bold]{name}", align="left", style="dim")
            if code := work():
                return code
            if config.evaluate and name != "tokenizer":
                evaluate(stage_config(EvaluateConfig, config, "eval", stage=name, seed=0))
    if runtime.is_main:
        report = write_report(run)
        console.rule("[bold]done", align="left", style="dim")
        console.print(f"{(time.perf_counter() - began) / 60:.1f} minutes; report card: {report}", highlight=False)
    return 0


def stages(config: RunConfig) -> list[tuple[str, Callable[[], int]]]:
    """The stages in their order, each ready to be called."""
    return [
        ("tokenizer", partial(prepare, stage_config(TokenizerConfig, config, "tokenizer"))),
        ("pretrain", partial(pretrain, pretraining(config))),
        ("midtrain", partial(finetune, "midtrain", stage_config(FinetuneConfig, config, "midtrain"))),
        ("sft", partial(finetune, "sft", stage_config(FinetuneConfig, config, "sft"))),
        ("rl", partial(reinforce, stage_config(ReinforceConfig, config, "rl"))),
    ]


def pretraining(config: RunConfig) -> PretrainConfig:
    """The preset's pretraining; with a depth, what the dial makes of it in the preset's context."""
    chosen = stage_config(PretrainConfig, config, "pretrain")
    return replace(chosen, depth=config.depth, steps=0, tokens_per_step=0) if config.depth else chosen


def stage_config(cls: type[Config], config: RunConfig, name: str, **more: Any) -> Config:
    """A stage's configuration: the preset's fields for it, and what `run` was given."""
    given = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "depth"}
    own = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return cls(**{**PRESETS[config.preset].get(name, {}), **{k: v for k, v in given.items() if k in own}, **more})
