"""`nanochat bench train`: whole optimizer steps beside `transformers`' NanoChatForCausalLM, and beside the product peak.

Shape `a` is that of a small GPT with as many key heads as query heads; shape `b` is the laptop preset's, which beside
`transformers` goes without the extras that it lacks. Both sides read the same random tokens: speed does not depend on
which.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from nanochat import native
from nanochat.bench.measure import in_turn, measurement, ratios, record, show
from nanochat.errors import UsageError
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import build_optimizer
from nanochat.plan import flops_per_token
from nanochat.runtime import Runtime, detect, measure_peak, peak_memory_gb
from nanochat.train import Batch, Step, train


@dataclass(frozen=True)
class Shape:
    """A model and how a step of it is cut."""

    model: GPTConfig
    rows: int  # of a micro-batch
    accumulate: int  # micro-batches a step

    @property
    def tokens(self) -> int:
        """Tokens a step."""
        return self.rows * self.accumulate * self.model.context


SHAPES = {
    "a": Shape(GPTConfig(8192, 6, 6, 6, 384, 512), rows=8, accumulate=4),
    "b": Shape(
        GPTConfig(3968, 4, 4, 1, 256, 256, smear=True, value_embeddings=True, sharpness=1.5), rows=8, accumulate=1
    ),
}


@dataclass(frozen=True)
class TrainBench:
    """Train beside transformers' model of the same shape, optimizers included; shares of the product peak."""

    shape: str = "a"
    """a: 6 layers x 384, 16,384 tokens a step; b: the laptop preset's"""
    rounds: int = 7
    """how often each side is measured"""
    steps: int = 1
    """optimizer steps of each measurement; the fastest counts"""
    against: bool = True
    """measure transformers too; without, only our own two sides"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16 or float32"""
    save: str = ""
    """a file to keep the record in"""
    json: bool = False
    """print one JSON object and nothing else"""


class Ours:
    """Our own steps, with the time that Muon takes of each."""

    def __init__(self, shape: Shape, runtime: Runtime, plain: bool = False) -> None:
        self.runtime, self.plain, self.muon_seconds = runtime, plain, 0.0
        model = GPT(shape.model, runtime.dtype).to(runtime.device)
        model.init_weights()
        optimizer = build_optimizer(
            model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.005, matrix_decay=0.05, dtype=runtime.dtype
        )
        muon = optimizer.optimizers[1]
        muon.step = partial(self.timed, muon.step)  # type: ignore[method-assign]
        everlasting = 1_000_000_000
        self.loop = train(
            model, optimizer, batches(shape, runtime), lambda step: 1.0, steps=everlasting, accumulate=shape.accumulate
        )
        self.muon_shares: list[float] = []

    def timed(self, step: Callable[[], None]) -> None:
        """Muon's own step, on the clock."""
        self.runtime.synchronize()
        began = time.perf_counter()
        step()
        self.runtime.synchronize()
        self.muon_seconds = time.perf_counter() - began

    def step(self) -> float:
        """Seconds of one optimizer step."""
        with native.kernels(not self.plain):
            done: Step = next(self.loop)
        self.muon_shares.append(self.muon_seconds / done.seconds)
        return done.seconds


class Theirs:
    """`NanoChatForCausalLM` as its documentation has it trained: autocast to bfloat16, PyTorch's fused AdamW."""

    def __init__(self, shape: Shape, runtime: Runtime, compiled: bool) -> None:
        from transformers import NanoChatConfig, NanoChatForCausalLM

        m = shape.model
        config = NanoChatConfig(
            vocab_size=m.vocab_size, hidden_size=m.n_embd, intermediate_size=4 * m.n_embd,
            num_hidden_layers=m.n_layer, num_attention_heads=m.n_head, num_key_value_heads=m.n_kv_head,
            max_position_embeddings=m.context, use_cache=False,
        )  # fmt: skip
        self.shape, self.runtime = shape, runtime
        self.model = NanoChatForCausalLM(config).to(runtime.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.batches = batches(shape, runtime)
        self.loss = torch.compile(self.plain_loss) if compiled else self.plain_loss

    def plain_loss(self, ids: torch.Tensor) -> torch.Tensor:
        """Mean loss of a micro-batch."""
        with torch.autocast(self.runtime.device.type, self.runtime.dtype, self.runtime.dtype != torch.float32):
            loss: torch.Tensor = self.model(ids, labels=ids).loss
        return loss

    def step(self) -> float:
        """Seconds of one optimizer step."""
        began = time.perf_counter()
        for _ in range(self.shape.accumulate):
            (self.loss(next(self.batches).inputs) / self.shape.accumulate).backward()
        torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.runtime.synchronize()
        return time.perf_counter() - began


def batches(shape: Shape, runtime: Runtime) -> Iterator[Batch]:
    """Random tokens."""
    draws = torch.Generator().manual_seed(0)
    weights = torch.ones(shape.rows, shape.model.context, device=runtime.device)
    while True:
        ids = torch.randint(shape.model.vocab_size, (shape.rows, shape.model.context + 1), generator=draws)
        ids = ids.to(runtime.device)
        yield Batch(ids[:, :-1], ids[:, 1:], weights, {})


def fastest(step: Callable[[], float], steps: int) -> float:
    """The least seconds of some steps: what else runs on a machine only ever adds."""
    return min(step() for _ in range(steps))


def bench_train(config: TrainBench) -> int:
    """Measure, print and keep; 0 when done. Raises UsageError for a shape that is not listed."""
    if config.shape not in SHAPES:
        raise UsageError("a shape", repr(config.shape), f"use --shape with one of: {', '.join(SHAPES)}")
    runtime, shape = detect(config.device, config.dtype), SHAPES[config.shape]
    sides: dict[str, Any] = {"nanochat": Ours(shape, runtime)}
    began = time.perf_counter()
    first = sides["nanochat"].step()
    sides["nanochat"].step()
    figures: dict[str, float | None] = {"first_step_seconds": first, "peak_memory_gb": peak_memory_gb()}
    sides["nanochat, plain PyTorch"] = Ours(shape, runtime, plain=True)
    twin = replace(shape, model=replace(shape.model, smear=False, value_embeddings=False, sharpness=1.0))
    if config.against:
        if twin != shape:
            sides["nanochat, no extras"] = Ours(twin, runtime)
        sides["transformers, eager"] = Theirs(twin, runtime, compiled=False)
        sides["transformers, compiled"] = Theirs(twin, runtime, compiled=True)
    compile_seconds = {}
    for name, side in sides.items():
        began = time.perf_counter()
        side.step()
        compile_seconds[name] = time.perf_counter() - began
        side.step()
    seconds = in_turn(
        {name: partial(fastest, side.step, config.steps) for name, side in sides.items()},
        config.rounds,
        beside=partial(measure_peak, runtime),
    )
    peaks = seconds.pop("beside")
    order, count = list(sides), len(sides)

    def peak_of(name: str, number: int) -> float:
        """The mean of the samples right before and after one measurement: rounds begin with another side each time."""
        place = number * count + (order.index(name) - number) % count
        return (peaks[place] + peaks[place + 1]) / 2

    rows = []
    for name, values in seconds.items():
        model = shape.model if name in ("nanochat", "nanochat, plain PyTorch") else twin.model
        needed = shape.tokens * flops_per_token(model)
        shares = [needed / value / peak_of(name, number) for number, value in enumerate(values)]
        rows.append(
            measurement(
                f"shape {config.shape}", name, values,
                tokens_per_second=round(shape.tokens / statistics.median(values), 1),
                share_of_peak=round(statistics.median(shares), 4), shares=[round(share, 4) for share in shares],
            )
        )  # fmt: skip
    named = {row["side"]: row for row in rows}
    ours = "nanochat, no extras" if "nanochat, no extras" in named else "nanochat"
    figures |= {
        "share_of_peak": named["nanochat"]["share_of_peak"],
        "share_of_peak_plain": named["nanochat, plain PyTorch"]["share_of_peak"],
        "tokens_per_second": named["nanochat"]["tokens_per_second"],
        "tokens_per_second_plain": named["nanochat, plain PyTorch"]["tokens_per_second"],
        "muon_share": statistics.median(sides["nanochat"].muon_shares),
        "peak_gflops": statistics.median(peaks) / 1e9,
    }
    if config.against:
        for key, name in (("ratio_vs_transformers", "compiled"), ("ratio_vs_transformers_eager", "eager")):
            figures[key] = ratios(seconds[ours], seconds[f"transformers, {name}"])["median"]
        figures["transformers_compile_seconds"] = compile_seconds["transformers, compiled"]
    return show(record("train", config, runtime, figures, rows, packages=["transformers"]), config.json, config.save)
