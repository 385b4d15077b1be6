"""What a run costs on machines that are not at hand: memory of a process, messages of a step, time, money.

Everything here is arithmetic on what makers and sellers state; nothing of it was measured on such a machine.
"""

from dataclasses import dataclass

from nanochat.gpt import GPTConfig
from nanochat.plan import Plan, count_parameters, memory_bytes

MFU = 0.4  # share of a GPU's stated peak that a run is planned to reach: an assumption, not a measurement
GPUS_PER_MACHINE = 8


@dataclass(frozen=True)
class GPU:
    """One GPU, as stated: dense bf16 products by the maker's data sheet, links each way, a price to rent it."""

    peak: float  # FLOP/s
    memory_gb: float
    link: float  # bytes a second to the other GPUs of its machine: NVLink
    network: float  # bytes a second to other machines: its own InfiniBand adapter
    price: float  # dollars an hour


# NVIDIA's data sheets: A100 SXM (2020), H100 SXM (2022), H200 SXM (2023), HGX B200 (2024); adapters: 200, 400 Gb/s.
# Prices are what specialised clouds asked in early 2026, rounded; they move: `--price`.
GPUS = {
    "a100": GPU(312e12, 80, 300e9, 25e9, 1.5),
    "h100": GPU(989e12, 80, 450e9, 50e9, 3.0),
    "h200": GPU(989e12, 141, 450e9, 50e9, 4.0),
    "b200": GPU(2250e12, 180, 900e9, 50e9, 5.0),
}


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's weights: what they are kept in, and what they are gathered in to compute with."""

    kept: float
    layers: float  # gathered, of all layers
    outside: float  # gathered, of tables and head
    matrices: float  # kept, of those that Muon updates


def sizes(model: GPTConfig, product_bytes: int = 2) -> Sizes:
    """Matrices of a layer are gathered in the format that they multiply in; a layer with a table, as it is kept."""
    counts = count_parameters(model)
    matrices = counts["attention"] + counts["mlp"]
    outside = counts["embedding"] + counts["head"]
    tables = counts.get("values", 0)
    plain = matrices * (1 - min(2, model.n_layer) / model.n_layer) if tables else matrices
    layers = product_bytes * plain + 4 * (matrices - plain + tables)
    return Sizes(4 * sum(counts.values()), layers, 4 * outside, 4 * matrices)


def process_bytes(chosen: Plan, world: int, parallel: str) -> float:
    """Memory of one process: weights, gradients and two moments, or its share of them, and what it computes with."""
    own = sizes(chosen.model)
    layer = own.layers / chosen.model.n_layer
    if world == 1 or parallel == "ddp":
        held = 4 * own.kept
    elif parallel == "zero":
        # Between micro-batches gradients wait whole, so that they need be sent only once.
        waiting = own.kept if chosen.accumulate > 1 else 2 * layer
        held = 4 * own.kept / world + own.layers + own.outside + waiting
    else:
        held = 4 * own.kept / world + 2 * (own.outside + 2 * layer)
    return held + memory_bytes(chosen.model, chosen.rows) - 4 * own.kept


def sent_bytes(model: GPTConfig, world: int, parallel: str, accumulate: int = 1, product_bytes: int = 2) -> float:
    """What each process sends in a step, by ring: (6.16) of the book.

    An all-reduce of G bytes is 2 G (n - 1) / n; a gather and a reduce-scatter are half of that each.
    """
    own, others = sizes(model, product_bytes), (world - 1) / world
    if parallel == "ddp":
        return 2 * others * own.kept
    to_owners_and_back = 2 * others * own.matrices / world
    if parallel == "zero":
        return others * (own.layers + own.outside + own.kept) + to_owners_and_back
    return accumulate * others * (2 * own.layers + own.outside + own.kept) + to_owners_and_back


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take."""

    memory_gb: float  # of one process
    sent_gb: float  # by each process, a step
    sending_seconds: float  # a step
    seconds: float
    dollars: float


def estimate(chosen: Plan, gpu: GPU, world: int, parallel: str, price: float = 0.0) -> Estimate:
    """Products at `MFU` of the stated peak, then messages at the stated speed of the link that is the bottleneck.

    As if nothing were sent while something is computed, though DDP and FSDP2 do that: an upper bound.
    """
    sent = sent_bytes(chosen.model, world, parallel, chosen.accumulate) if world > 1 else 0.0
    sending = sent / (gpu.link if world <= GPUS_PER_MACHINE else gpu.network)
    seconds = chosen.seconds(MFU * gpu.peak * world) + chosen.steps * sending
    dollars = seconds / 3600 * world * (price or gpu.price)
    return Estimate(process_bytes(chosen, world, parallel) / 1e9, sent / 1e9, sending, seconds, dollars)
