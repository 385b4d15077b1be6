"""`nanochat plan`: parameters, operations, memory and time of a pretraining run, before anything runs."""

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from nanochat.cluster import GPUS, MFU, estimate
from nanochat.config import dumps, parse, to_json
from nanochat.distributed import Parallel
from nanochat.gpt import GPT
from nanochat.optim import build_optimizer
from nanochat.plan import Plan, plan
from nanochat.runtime import Runtime, detect, measure_peak
from nanochat.stages.presets import PRESETS, given, presets_of
from nanochat.stages.stage import PLANNED_MFU
from nanochat.train import Batch, train

LONGEST_TRIAL = 2.0  # seconds that a micro-batch may take to be tried at all


@dataclass(frozen=True)
class PlanConfig:
    """What a depth costs: parameters, operations, tokens, memory, and the time on this machine or a stated one."""

    preset: str = "laptop"
    """fills the fields below; a flag beside it wins"""
    depth: int = 4
    """the dial: layers, and by it width, heads, batch, rates, tokens"""
    vocab_size: int = 4096
    """tokens of the vocabulary"""
    context: int = 512
    """tokens a row"""
    kv_heads: int = 1
    """heads of keys and values; 0: as many as query heads"""
    tokens_per_step: int = 0
    """0: by the dial"""
    steps: int = 0
    """0: by the dial"""
    rows: int = 0
    """rows of a micro-batch; 0: by the dial"""
    smear: bool = False
    """extra: each token's features take in some of the token before it"""
    value_embeddings: bool = False
    """extra: two layers add to a token's values what they know of the token"""
    sharpness: float = 1.0
    """extra: a factor on the scores of attention"""
    world: int = 1
    """processes; with GPUs that are not at hand, one each"""
    parallel: Parallel = "zero"
    """how they share the work, as in `pretrain`"""
    device: str = "auto"
    """auto, cpu, cuda or mps: this machine, tried for about two seconds; or a GPU, as its maker states it: a100, h100,
    h200 or b200"""
    machine: Literal["this", "a100", "h100", "h200", "b200"] = "this"
    """such a GPU, too"""
    price: float = 0.0
    """dollars an hour of one GPU; 0: what was asked for one in early 2026"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""
    json: bool = False
    """one JSON object, and nothing else"""


def main(argv: Sequence[str]) -> int:
    """The verb `plan`."""
    known = {"depth", "context", "tokens_per_step", "steps", "rows", "smear", "value_embeddings", "sharpness"}
    # A GPU that is not here has no say in which preset is quick enough here.
    here = [re.sub(rf"^(--device=)?({'|'.join(GPUS)})$", r"\1auto", word) for word in argv]
    pretraining = presets_of("pretrain", here)
    if given(argv, "--world") != "auto" and given(argv, "--preset") == "auto":
        pretraining = {name: {} for name in pretraining}  # steps of a laptop's size can't be cut into many
    presets = {
        name: {k: v for k, v in fields.items() if k in known} | {"vocab_size": PRESETS[name]["tokenizer"]["vocab_size"]}
        for name, fields in pretraining.items()
    }
    config = parse(PlanConfig, argv, prog="nanochat plan", presets=presets)
    chosen = plan(
        config.depth, vocab_size=config.vocab_size, context=config.context, kv_heads=config.kv_heads,
        tokens_per_step=config.tokens_per_step, steps=config.steps, world=config.world,
        rows=config.rows, smear=config.smear, value_embeddings=config.value_embeddings,
        sharpness=config.sharpness,
    )  # fmt: skip
    figures = report(chosen, config)
    if config.json:
        print(dumps(figures), end="")
    else:
        show(figures, chosen)
    return 0


def report(chosen: Plan, config: PlanConfig) -> dict[str, Any]:
    """The plan and its time, ready for JSON."""
    gpu = config.device if config.device in GPUS else config.machine
    if gpu == "this":
        runtime = detect(config.device, config.dtype)
        peak = measure_peak(runtime)
        here = f"{runtime.device.type}, {str(runtime.dtype).removeprefix('torch.')}"
        step = chosen.rows * chosen.model.context * chosen.flops_per_token / (PLANNED_MFU * peak)
        if step < LONGEST_TRIAL:
            speed, source = calibrate(chosen, runtime), f"training steps tried on this machine ({here})"
        else:
            speed = PLANNED_MFU * peak / chosen.flops_per_token
            source = f"{PLANNED_MFU:.0%} of this machine's matrix products ({here}); too large to be tried in seconds"
    else:
        return stated(chosen, config, gpu)
    return figures_of(chosen, config, speed, peak) | {"speed_source": source}


def stated(chosen: Plan, config: PlanConfig, gpu: str) -> dict[str, Any]:
    """The same for GPUs that are not at hand."""
    about = GPUS[gpu]
    found = estimate(chosen, about, config.world, config.parallel, config.price)
    figures = figures_of(chosen, config, chosen.tokens / found.seconds / config.world, about.peak)
    named, links = (f"{config.world} {gpu}", ", and stated links") if config.world > 1 else (f"one {gpu}", "")
    return figures | {
        "memory_gb": found.memory_gb, "device_memory_gb": about.memory_gb, "sent_gb_per_step": found.sent_gb,
        "sending_seconds_per_step": found.sending_seconds, "dollars": found.dollars,
        "dollars_per_hour": config.price or about.price,
        "speed_source": f"stated peak of {named}, at an assumed {MFU:.0%} of it{links}; not run",
    }  # fmt: skip


def figures_of(chosen: Plan, config: PlanConfig, speed: float, peak: float) -> dict[str, Any]:
    """The plan, at so many tokens a second in each process."""
    total = sum(chosen.parameters.values())
    return {
        **to_json(chosen), "parameters_total": total, "tokens": chosen.tokens, "flops": chosen.flops,
        "tokens_per_second": speed * config.world, "seconds": chosen.tokens / (speed * config.world),
        "peak_flops": peak, "mfu": speed * chosen.flops_per_token / peak, "world": config.world,
        "parallel": config.parallel,
    }  # fmt: skip


def calibrate(chosen: Plan, runtime: Runtime, seconds: float = 2.0) -> float:
    """Tokens a second of real training steps of this model: the median of some `seconds`, after a first step."""
    model = GPT(chosen.model, runtime.dtype).to(runtime.device)
    model.init_weights()
    optimizer = build_optimizer(model, matrix_lr=0.0, embedding_lr=0.0, head_lr=0.0, dtype=runtime.dtype)
    ids = torch.randint(0, chosen.model.vocab_size, (chosen.rows, chosen.model.context), device=runtime.device)
    batch = Batch(ids, ids, torch.ones_like(ids, dtype=torch.float32), {})
    speeds, deadline = [], time.perf_counter() + seconds
    for step in train(model, optimizer, iter(lambda: batch, None), lambda _: 0.0, steps=1000):
        speeds.append(step.tokens / step.seconds)
        if time.perf_counter() > deadline and len(speeds) > 1:
            break
    return statistics.median(speeds[1:])


def show(figures: dict[str, Any], chosen: Plan) -> None:
    """The plan as a table."""
    table = Table(title=f"depth {chosen.model.n_layer}", title_justify="left", show_header=False, box=None)
    for part, count in chosen.parameters.items():
        table.add_row(f"parameters, {part}", f"{count:,}")
    table.add_row("parameters, all", f"{figures['parameters_total']:,}")
    m = chosen.model
    table.add_row(
        "shape", f"{m.n_layer} layers x {m.n_embd}, {m.n_head} heads of {m.head_size}, {m.n_kv_head} of keys and values"
    )
    table.add_row("FLOPs a token", f"{chosen.flops_per_token:.3g}")
    table.add_row(
        "batch", f"{chosen.tokens_per_step:,} tokens a step: {chosen.accumulate} x {chosen.rows} rows x {m.context}"
    )
    table.add_row("run", f"{chosen.steps:,} steps, {chosen.tokens:,} tokens, {chosen.flops:.3g} FLOPs")
    table.add_row("memory", memory(figures))
    if "sent_gb_per_step" in figures and figures["world"] > 1:
        sending = f"{1000 * figures['sending_seconds_per_step']:.1f} ms a step where nothing else is done meanwhile"
        table.add_row("messages", f"{figures['sent_gb_per_step']:.2f} GB a step from each process: {sending}")
    peak = f"{figures['mfu']:.0%} of {figures['peak_flops'] / 1e9:,.0f} GFLOP/s"
    table.add_row("speed", f"{figures['tokens_per_second']:,.0f} tokens/s, {peak}")
    table.add_row("time", readable(figures["seconds"]))
    if "dollars" in figures:
        each = f"{figures['world']} x ${figures['dollars_per_hour']:.2f} an hour"
        table.add_row("cost", f"${figures['dollars']:,.2f}: {each}")
    table.add_row("", figures["speed_source"])
    Console().print(table, highlight=False)


def memory(figures: dict[str, Any]) -> str:
    """Memory of a process, and whether the device has it."""
    needed = f"about {figures['memory_gb']:.1f} GB a process"
    there = figures.get("device_memory_gb")
    if there is None or figures["memory_gb"] <= there:
        return needed if there is None else f"{needed}, of {there:.0f}"
    return f"{needed}, more than the {there:.0f} there are: fewer --rows, or --parallel fsdp"


def readable(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
