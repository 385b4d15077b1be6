"""`nanochat run`: every stage of a preset, in order; what is done, and whose inputs have not changed, is skipped."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from rich.console import Console

from nanochat.checkpoint import run_folder
from nanochat.config import parse
from nanochat.distributed import Parallel, joined
from nanochat.report import write_report
from nanochat.report.tally import REFERENCE_PEAK
from nanochat.runtime import Runtime, detect, measure_peak
from nanochat.stages.evaluate import EvaluateConfig, evaluate
from nanochat.stages.finetune import FinetuneConfig, finetune
from nanochat.stages.presets import PRESETS, fields_of, is_slow
from nanochat.stages.pretrain import PretrainConfig, pretrain
from nanochat.stages.reinforce import ReinforceConfig, reinforce
from nanochat.stages.ship import ship
from nanochat.stages.tokenizer import TokenizerConfig, prepare

Config = TypeVar("Config")
SLOWER = 2.4  # bfloat16 products against float32 ones on the reference machine: 430 and 180 GFLOP/s


@dataclass(frozen=True)
class RunConfig:
    """All stages of a preset, from raw text to a chatbot and its report card. The same command goes on after a stop."""

    AT_LEAST_ONE: ClassVar = ("keep",)

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
    keep: int = 2
    """newest checkpoints of each stage that are kept"""
    parallel: Parallel = "zero"
    """many processes: zero shares out the optimizer, fsdp the weights too, ddp nothing (see chapter 6.12)"""
    timeout: int = 600
    """seconds without a sign of another process, after which it counts as lost"""
    chat: bool = False
    """open the chat when all is done"""
    serve: bool = False
    """show the run in a browser while it learns, and talk to its newest checkpoint there; as `nanochat serve` does"""
    port: int = 8000
    """where the page is, with --serve"""
    evaluate: bool = True
    """measure each stage on held-out text and questions"""
    questions: int = 0
    """held-out questions of each kind; 0: the preset's"""
    prompts: str = ""
    """conversations to have with the model and to print in the report, as `nanochat eval --prompts`"""
    ship: str = ""
    """a folder to leave the run in, small enough to give away"""


def main(argv: Sequence[str]) -> int:
    """The verb `run`."""
    return run_all(parse(RunConfig, argv, prog="nanochat run", presets={name: {} for name in PRESETS}))


def run_all(config: RunConfig) -> int:
    """Run what has not been run; 0 when all is done."""
    began, run = time.perf_counter(), run_folder(config.run or config.preset)
    runtime = detect(config.device, config.dtype)
    console = Console(stderr=True, quiet=not runtime.is_main)
    console.print(f"[bold]{config.preset}[/] -> {run}{expected(config, runtime)}", highlight=False)
    console.print(
        f"As soon as a stage has saved, talk to it in another terminal: python -m nanochat chat --run {run.name}",
        style="dim", highlight=False,
    )  # fmt: skip
    with joined(runtime, config.parallel, config.timeout):
        for name, work in stages(config):
            console.rule(f"[bold]{name}", align="left", style="dim")
            if code := work():
                return code
            if config.evaluate and name != "tokenizer":
                evaluate(stage_config(EvaluateConfig, config, "eval", stage=name, seed=0, **asked(config, name)))
    if runtime.is_main:
        report = write_report(run)
        if config.ship:
            size = ship(run, Path(config.ship))
            console.print(f"{config.ship}: {size / 1e6:.1f} MB to give away", highlight=False)
        console.rule("[bold]done", align="left", style="dim")
        console.print(f"{(time.perf_counter() - began) / 60:.1f} minutes; report card: {report}", highlight=False)
    return 0


def expected(config: RunConfig, runtime: Runtime) -> str:
    """How long it should take here."""
    minutes = PRESETS[config.preset].get("run", {}).get("minutes")
    if not minutes or config.depth:
        return ""
    if runtime.device.type != "cpu":
        return f": about {minutes:g} reference minutes when nothing is done yet"
    here = max(1, round(minutes * REFERENCE_PEAK / peak_in_bf16(runtime)))
    plural = "s" * (here != 1)
    return f": about {here} minute{plural} here when nothing is done yet ({minutes:g} by the reference machine)"


def peak_in_bf16(runtime: Runtime) -> float:
    """Speed of bfloat16 products, which define the reference minute; estimated from float32 where they are slow."""
    measured = measure_peak(runtime)
    return measured if runtime.dtype == torch.bfloat16 else SLOWER * measured


def asked(config: RunConfig, stage: str) -> dict[str, Any]:
    """What `run` was told about measuring: how many questions, and conversations to have at the end."""
    found: dict[str, Any] = {"questions": config.questions} if config.questions else {}
    if stage != "pretrain" and not config.questions:
        # What is left of the text by then is worth a glance.
        found["documents"] = fields_of(config.preset, "eval", slow=False).get("documents") or 100
    return found | ({"prompts": config.prompts} if stage in ("sft", "rl") else {})


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
    given = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("depth", "questions", "prompts")}
    own = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return cls(
        **{
            **fields_of(config.preset, name, is_slow(config.device, config.dtype)),
            **{k: v for k, v in given.items() if k in own},
            **more,
        }
    )
