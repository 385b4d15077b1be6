"""The one dial: from a depth to everything that a pretraining run needs to know, before anything runs."""

from dataclasses import dataclass, replace

from nanochat.errors import UsageError
from nanochat.gpt import GPTConfig, Smear

# The rates below were found at this many tokens a step, at depths 2 and 4 (LOG.md, 2026-11-22); others follow by the
# square root (arXiv:2405.14578).
REFERENCE_BATCH = 4096
REFERENCE_WIDTH = 256
MICRO_BATCH = 8192  # tokens of a micro-batch, unless told otherwise: enough to keep the matrix products busy


@dataclass(frozen=True)
class Plan:
    """What a run will be."""

    model: GPTConfig
    parameters: dict[str, int]  # by part of the model
    flops_per_token: float  # forward and backward
    tokens_per_step: int
    rows: int  # of a micro-batch, on each process
    accumulate: int  # micro-batches a step, on each process
    steps: int
    warmup: int
    warmdown: int
    matrix_lr: float
    embedding_lr: float
    head_lr: float
    matrix_decay: float
    memory_gb: float  # estimate, of one process while it trains

    @property
    def tokens(self) -> int:
        """Tokens that the run reads."""
        return self.steps * self.tokens_per_step

    @property
    def flops(self) -> float:
        """Floating-point operations of the whole run."""
        return self.tokens * self.flops_per_token

    def seconds(self, flops_per_second: float) -> float:
        """Time on a machine that does so many."""
        return self.flops / flops_per_second


def plan(
    depth: int,
    *,
    vocab_size: int = 4096,
    context: int = 512,
    kv_heads: int = 1,
    tokens_per_step: int = 0,
    rows: int = 0,
    steps: int = 0,
    tokens_per_parameter: float = 10.0,
    smear: bool = False,
    value_embeddings: bool = False,
    sharpness: float = 1.0,
    world: int = 1,
) -> Plan:
    """What the depth dial decides; a value given beside it wins, 0 leaves it to the dial.

    Width 64 x depth, in heads of 64 below depth 8 and of 128 from there (64 features of width a layer, as nanochat;
    heads that a depth of 2 can still be cut into). Tokens: `tokens_per_parameter` x those parameters that multiply
    (arXiv:2203.15556 found 20; small models trained with Muon want about half).
    """
    if depth < 1 or world < 1:
        raise UsageError("a depth and a world size of at least 1", f"{depth} and {world}")
    portable = shape(depth, vocab_size, context, kv_heads)
    model = replace(portable, smear=smear, value_embeddings=value_embeddings, sharpness=sharpness)
    parameters = count_parameters(model)
    multiplied = num_multiplied(model)
    target = tokens_per_parameter * multiplied
    batch = tokens_per_step or default_batch(target)
    rows = rows or max(1, min(batch // world, MICRO_BATCH) // context)
    micro = rows * context * world
    if not tokens_per_step:
        batch = micro * max(1, round(batch / micro))
    if batch % micro:
        got = f"{batch} and {rows} x {context} x {world}"
        remedy = f"use --tokens-per-step {micro * max(1, round(batch / micro))}"
        raise UsageError("tokens_per_step a multiple of rows x context x processes", got, remedy)
    steps = steps or max(1, round(target / batch))
    width_factor = (REFERENCE_WIDTH / model.n_embd) ** 0.5
    batch_factor = (batch / REFERENCE_BATCH) ** 0.5
    return Plan(
        model=model,
        parameters=parameters,
        flops_per_token=flops_per_token(model),
        tokens_per_step=batch,
        rows=rows,
        accumulate=batch // (rows * context * world),
        steps=steps,
        warmup=min(20, steps // 20),
        warmdown=round(0.6 * steps),
        matrix_lr=0.04 * batch_factor,
        embedding_lr=0.4 * width_factor * batch_factor,
        head_lr=0.01 * width_factor * batch_factor,
        matrix_decay=0.05,
        memory_gb=memory_bytes(model, rows) / 1e9,
    )


def shape(depth: int, vocab_size: int, context: int, kv_heads: int) -> GPTConfig:
    """The model of this depth; `kv_heads` 0 means as many as query heads."""
    head_size = 64 if depth < 8 else 128
    heads = -(-64 * depth // head_size)
    return GPTConfig(
        vocab_size=vocab_size,
        n_layer=depth,
        n_head=heads,
        n_kv_head=min(kv_heads, heads) or heads,
        n_embd=heads * head_size,
        context=context,
    )


def count_parameters(model: GPTConfig) -> dict[str, int]:
    """Parameters by part.

    >>> count_parameters(GPTConfig(vocab_size=10, n_layer=1, n_head=2, n_kv_head=1, n_embd=4))
    {'embedding': 40, 'attention': 48, 'mlp': 128, 'head': 40}
    """
    width, kv_width = model.n_embd, model.n_kv_head * model.head_size
    extras = {
        "values": min(2, model.n_layer) * model.vocab_size * kv_width * model.value_embeddings,
        "smear": (Smear.GATE + 1) * model.smear,
    }
    return {
        "embedding": model.vocab_size * width,
        "attention": model.n_layer * (2 * width * width + 2 * width * kv_width),
        "mlp": model.n_layer * 8 * width * width,
        "head": model.vocab_size * width,
        **{name: number for name, number in extras.items() if number},
    }


def num_multiplied(model: GPTConfig) -> int:
    """Parameters that stand in matrix products, each once a token; tables are only looked up."""
    parameters = count_parameters(model)
    return parameters["attention"] + parameters["mlp"] + parameters["head"]


def flops_per_token(model: GPTConfig) -> float:
    """FLOPs to train on one token: 6 a parameter that multiplies, and 12 L d T of attention.

    2 forward and 4 backward a parameter (arXiv:2001.08361, section 2.1). Attention counts the whole T x T square, as
    PaLM's utilisation does (arXiv:2204.02311, appendix B), though a causal kernel may skip half.
    """
    return 6.0 * num_multiplied(model) + 12.0 * model.n_layer * model.n_embd * model.context


def default_batch(tokens: float) -> int:
    """Tokens a step for a run over so many: 2^19 (D / 2e9)^0.383, a power of two (nanochat's dial, mid-2026)."""
    exact: float = 2**19 * (tokens / 2e9) ** 0.383
    return max(2048, 1 << round(exact).bit_length() - 1)


def memory_bytes(model: GPTConfig, rows: int) -> float:
    """Memory of one training process: an estimate, within a third of what is measured at laptop sizes.

    Weights, gradients and at most two moments in float32; per token and layer some 24 numbers of width C in
    bfloat16 that the backward pass reads again; the chunked loss; the interpreter and torch themselves.
    """
    weights = 16.0 * sum(count_parameters(model).values())
    activations = 48.0 * rows * model.context * model.n_layer * model.n_embd
    loss = 512 * model.vocab_size * 16.0
    return weights + activations + loss + 0.45e9
