"""`nanochat bench infer`: reading a prompt and writing answers, beside `transformers`' generate on the same shape."""

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from nanochat.bench.measure import in_turn, measurement, ratios, record, show
from nanochat.decoder import Decoder, PlainDecoder
from nanochat.engine import Engine, Sampling
from nanochat.errors import DeviceError
from nanochat.fast import FORMATS, FastDecoder
from nanochat.gpt import GPT, GPTConfig
from nanochat.keyed import rng
from nanochat.runtime import Runtime, detect, measure_peak, peak_memory_gb
from nanochat.scheduler import Scheduler
from nanochat.tokenizer import Tokenizer

OURS = "ours, bfloat16"  # the side that the figures are of


@dataclass(frozen=True)
class InferBench:
    """Write answers beside transformers' generate: our decoders and theirs in turn, sampling included."""

    AT_LEAST_ONE: ClassVar = ("layers", "heads", "kv_heads", "width", "vocab_size", "prompt", "tokens", "rounds")

    layers: int = 6
    """of the model, whose weights are random"""
    heads: int = 6
    """of attention"""
    kv_heads: int = 6
    """of keys and values"""
    width: int = 384
    """features of a token"""
    vocab_size: int = 32768
    """tokens it can write"""
    prompt: int = 256
    """tokens of a prompt"""
    tokens: int = 96
    """tokens of an answer"""
    batches: tuple[int, ...] = (1, 4, 16)
    """answers side by side"""
    rounds: int = 3
    """how often each side is measured"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    save: str = ""
    """a file to keep the record in"""
    json: bool = False
    """print one JSON object and nothing else"""


def bench_infer(config: InferBench) -> int:
    """Measure, print and keep; 0 when done."""
    runtime = detect(config.device)
    model = random_model(config, runtime)
    sides = our_sides(config, model, runtime) | their_side(config, model, runtime)
    lines: list[dict[str, Any]] = []
    figures: dict[str, float | None] = {}
    peak: list[float] = []
    for batch in (0, *config.batches):  # 0: reading one prompt
        work = {name: side(batch) for name, side in sides.items()}
        for run in work.values():
            run()
        seconds = in_turn(work, config.rounds, beside=lambda: measure_peak(runtime, 0.05))
        peak += seconds.pop("beside")
        done = config.tokens * batch or config.prompt
        task = f"write, {batch} side by side" if batch else f"read {config.prompt} tokens"
        for name, each in seconds.items():
            lines.append(measurement(task, name, each, tokens_per_second=round(done / statistics.median(each), 1)))
        ours, theirs = seconds.get(OURS, seconds["ours, plain"]), seconds["transformers"]
        suffix = f"_{batch}" if batch else "_prefill"
        figures[f"tokens_per_second{suffix}"] = done / statistics.median(ours)
        figures[f"ratio_vs_transformers{suffix}"] = ratios(ours, theirs)["median"]
    figures |= {"product_peak_gflops": statistics.median(peak) / 1e9, "peak_memory_gb": peak_memory_gb()}
    return show(record("infer", config, runtime, figures, lines, ["transformers"]), config.json, config.save)


def random_model(config: InferBench, runtime: Runtime) -> GPT:
    """A model of the benchmark's shape with every matrix drawn N(0, 0.05), in the runtime's number format."""
    shape = GPTConfig(
        config.vocab_size, config.layers, config.heads, config.kv_heads, config.width,
        context=config.prompt + config.tokens + 1,
    )  # fmt: skip
    model, draws = GPT(shape, runtime.dtype), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.05)
    return model.to(runtime.device, runtime.dtype)


def prompts(config: InferBench, batch: int, number: int) -> list[list[int]]:
    """`batch` prompts of tokens drawn at random, others for each number."""
    draws = [rng(number, "bench", row) for row in range(batch)]
    return [[one.randrange(256) for _ in range(config.prompt)] for one in draws]


Side = Callable[[int], Callable[[], float | None]]  # of a batch's size: the work to be timed


def our_sides(config: InferBench, model: GPT, runtime: Runtime) -> dict[str, Side]:
    """The scheduler over each decoder. It holds the prompts of its earlier rounds, so that writing alone is timed."""
    # Every id is some text and none ends an answer: so all answers are of one length.
    tokenizer = Tokenizer([divmod(number, 256) for number in range(config.vocab_size - 256)])
    engine, slots = Engine(model, tokenizer, runtime), max(config.batches)
    decoders: dict[str, Decoder] = {"ours, plain": PlainDecoder(engine, slots)}
    if runtime.device.type == "cpu":
        decoders |= {f"ours, {format}": FastDecoder(model, runtime, slots, format) for format in FORMATS[1:]}
    numbers = iter(range(1, 1_000_000))

    def side(scheduler: Scheduler, batch: int) -> Callable[[], float | None]:
        def work() -> None:
            law = Sampling(max_tokens=config.tokens if batch else 1)
            asked = prompts(config, batch, 0) if batch else prompts(config, 1, next(numbers))
            for ticket in [scheduler.submit(ids, law, row=row) for row, ids in enumerate(asked)]:
                ticket.wait()

        return work

    def of(scheduler: Scheduler) -> Side:
        return lambda batch: side(scheduler, batch)

    return {name: of(Scheduler(engine, slots, decoder=decoder)) for name, decoder in decoders.items()}


def their_side(config: InferBench, model: GPT, runtime: Runtime) -> dict[str, Side]:
    """`generate` of the same architecture. What it takes to read the prompts is taken off, as it cannot keep them."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import NanoChatConfig, NanoChatForCausalLM
    except ImportError:
        got = "none"
        raise DeviceError("transformers to compare with", got, 'install it: pip install "nanochat[eval]"') from None
    c = model.config
    shape = NanoChatConfig(
        vocab_size=c.vocab_size, hidden_size=c.n_embd, intermediate_size=4 * c.n_embd, num_hidden_layers=c.n_layer,
        num_attention_heads=c.n_head, num_key_value_heads=c.n_kv_head, max_position_embeddings=c.context,
    )  # fmt: skip
    theirs: Any = NanoChatForCausalLM(shape)
    theirs.eval().to(runtime.device, runtime.dtype)
    theirs.generation_config.eos_token_id = None

    def side(batch: int) -> Callable[[], float | None]:
        ids = torch.tensor(prompts(config, max(batch, 1), 0), device=runtime.device)

        def seconds(tokens: int) -> float:
            def work() -> None:
                theirs.generate(ids, max_new_tokens=tokens, do_sample=True, top_k=0, pad_token_id=0)

            return in_turn({"theirs": work}, 1)["theirs"][0]

        return lambda: seconds(config.tokens + 1) - seconds(1) if batch else seconds(1)

    return {"transformers": side}
