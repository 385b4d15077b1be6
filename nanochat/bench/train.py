"""`nanochat bench train`: whole steps beside `transformers`' NanoChatForCausalLM, and beside the product peak.

Shape `a` is that of a small GPT with as many key heads as query heads; shape `b` is the laptop preset's, which beside
`transformers` goes without the extras that it lacks. Both sides read the same random tokens: speed does not depend on
which.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

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
OURS, PLAIN, TWIN = "nanochat", "nanochat, plain PyTorch", "nanochat, no extras"
EAGER, COMPILED = "transformers, eager", "transformers, compiled"
AGAINST = ("transformers", "plain", "all")


@dataclass(frozen=True)
class TrainBench:
    """Train beside transformers' model of the same shape, optimizers included; shares of the product peak."""

    shape: str = "a"
    """a: 6 layers x 384, 16,384 tokens a step; b: the laptop preset's"""
    rounds: int = 7
    """how often each side is measured"""
    steps: int = 1
    """optimizer steps of each measurement; the fastest counts"""
    against: str = "all"
    """transformers, plain (ourselves without kernels), or all"""
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
        muon.step = partial(self.timed, muon.step)  # type: ignore[assignment, method-assign]
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
        self.model: torch.nn.Module = NanoChatForCausalLM(config)
        self.model.to(runtime.device).train()
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
    """Measure, print and keep; 0 when done. Raises UsageError for a shape or a side that is not listed."""
    for flag, value, known in (("shape", config.shape, (*SHAPES,)), ("against", config.against, AGAINST)):
        if value not in known:
            raise UsageError(f"a known --{flag}", repr(value), f"use --{flag} with one of: {', '.join(known)}")
    runtime, shape = detect(config.device, config.dtype), SHAPES[config.shape]
    ours = Ours(shape, runtime)
    # Of a fresh process, so these two are ours alone.
    figures: dict[str, float | None] = {"first_step_seconds": ours.step()}
    ours.step()
    figures["peak_memory_gb"] = peak_memory_gb()
    sides = {OURS: ours} | others(shape, runtime, config.against)
    first_steps = {name: side.step() for name, side in sides.items()}
    seconds = in_turn(
        {name: partial(fastest, side.step, config.steps) for name, side in sides.items()},
        config.rounds,
        beside=partial(measure_peak, runtime),
    )
    peaks = seconds.pop("beside")
    rows = []
    for name, values in seconds.items():
        needed = shape.tokens * flops_per_token((shape if name in (OURS, PLAIN) else portable(shape)).model)
        shares = [needed / value / peak for value, peak in zip(values, peaks_of(name, list(sides), peaks), strict=True)]
        rows.append(
            measurement(
                f"shape {config.shape}", name, values,
                tokens_per_second=round(shape.tokens / statistics.median(values), 1),
                share_of_peak=round(statistics.median(shares), 4), shares=[round(share, 4) for share in shares],
            )
        )  # fmt: skip
        if name in (OURS, PLAIN):
            end = "" if name == OURS else "_plain"
            figures["share_of_peak" + end] = rows[-1]["share_of_peak"]
            figures["tokens_per_second" + end] = rows[-1]["tokens_per_second"]
    figures |= {"muon_share": statistics.median(ours.muon_shares), "peak_gflops": statistics.median(peaks) / 1e9}
    if COMPILED in sides:
        same = seconds.get(TWIN, seconds[OURS])
        figures["ratio_vs_transformers"] = ratios(same, seconds[COMPILED])["median"]
        figures["ratio_vs_transformers_eager"] = ratios(same, seconds[EAGER])["median"]
        figures["transformers_first_step_seconds"] = first_steps[COMPILED]
    return show(record("train", config, runtime, figures, rows, packages=["transformers"]), config.json, config.save)


def others(shape: Shape, runtime: Runtime, against: str) -> dict[str, Ours | Theirs]:
    """What we are measured beside."""
    sides: dict[str, Ours | Theirs] = {}
    if against != "transformers":
        sides[PLAIN] = Ours(shape, runtime, plain=True)
    if against != "plain":
        twin = portable(shape)
        if twin != shape:
            sides[TWIN] = Ours(twin, runtime)
        sides |= {EAGER: Theirs(twin, runtime, compiled=False), COMPILED: Theirs(twin, runtime, compiled=True)}
    return sides


def portable(shape: Shape) -> Shape:
    """The same without the extras that `transformers` cannot express."""
    return replace(shape, model=replace(shape.model, smear=False, value_embeddings=False, sharpness=1.0))


def peaks_of(name: str, order: list[str], peaks: list[float]) -> Iterator[float]:
    """Beside each measurement of a side, the mean of the samples right before and after it.

    Each round of `in_turn` begins with another side.

    >>> list(peaks_of("b", ["a", "b"], [1.0, 2.0, 4.0, 6.0, 10.0]))
    [3.0, 5.0]
    """
    for number in range((len(peaks) - 1) // len(order)):
        place = number * len(order) + (order.index(name) - number) % len(order)
        yield (peaks[place] + peaks[place + 1]) / 2
