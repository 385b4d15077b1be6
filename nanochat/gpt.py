"""The model: a GPT, from token ids to a score for every possible next token.

The architecture is the portable one that `transformers` knows as `NanoChatForCausalLM`, and agrees with it to float
rounding; what goes beyond it, each by a field of `GPTConfig` that is off by default, was kept because it was measured
(LOG.md). B rows, T tokens, C features, H heads, K key-and-value heads, D features of a head, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nanochat import fused
from nanochat.attention import KVCache, LayerCache, attend, rotary_angles, rotate
from nanochat.errors import UsageError
from nanochat.keyed import key


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model. Everything else about it is in its weights."""

    vocab_size: int = 4096
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int = 4  # fewer than n_head: grouped-query attention; 1: multi-query attention
    n_embd: int = 256  # C, features of a token
    context: int = 512  # tokens a row in training, and the longest prompt plus answer
    rope_base: float = 100_000.0
    norm_eps: float = 1e-6
    softcap: float = 15.0
    # Extras, which `transformers` cannot express.
    smear: bool = False  # each token's features take in some of the token before it
    value_embeddings: bool = False  # the first and the last layer add to a token's values what they know of the token
    sharpness: float = 1.0  # times each score of attention, which QK-norm holds within sqrt(D)

    def __post_init__(self) -> None:
        whole = self.n_embd % self.n_head == 0 and (self.n_embd // self.n_head) % 2 == 0
        if min(self.vocab_size, self.n_layer, self.n_head, self.n_kv_head, self.n_embd, self.context) < 1 or not whole:
            raise UsageError(
                "positive sizes, and n_embd a multiple of 2 n_head",
                f"vocab_size {self.vocab_size}, n_layer {self.n_layer}, n_embd {self.n_embd}, n_head {self.n_head}, "
                f"n_kv_head {self.n_kv_head}, context {self.context}",
            )
        if self.n_head % self.n_kv_head:
            raise UsageError("n_head a multiple of n_kv_head", f"{self.n_head} and {self.n_kv_head}")

    @property
    def head_size(self) -> int:
        """D, features of a head."""
        return self.n_embd // self.n_head

    @property
    def extras(self) -> tuple[str, ...]:
        """Fields that are on and that the portable architecture does not have."""
        default = GPTConfig()
        names = ("smear", "value_embeddings", "sharpness")
        return tuple(name for name in names if getattr(self, name) != getattr(default, name))


class Linear(nn.Linear):
    """A matrix without bias, kept in float32 and used in the format of what it multiplies."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        return F.linear(x, self.weight.to(x.dtype))


class Head(Linear):
    """From features to scores: a matrix of its own, not the embedding's transpose, and a soft cap.

    softcap x tanh(z / softcap) keeps every logit within +-softcap (Gemma 2, arXiv:2408.00118, section 2). Logits are
    float32 whatever the features are: their softmax runs over thousands of terms.
    """

    def __init__(self, features: int, vocabulary: int, softcap: float) -> None:
        super().__init__(features, vocabulary)
        self.softcap = softcap

    def forward(self, x: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows V"]:
        return self.cap(super().forward(x))

    def cap(self, z: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows V"]:
        """The soft cap, in float32 or better."""
        z = z if z.dtype == torch.float64 else z.float()
        return self.softcap * torch.tanh(z / self.softcap)


class Attention(nn.Module):
    """Tokens exchange information: the only place where one position can affect another."""

    def __init__(self, config: GPTConfig, has_values: bool = False) -> None:
        super().__init__()
        width, kv_width = config.n_embd, config.n_kv_head * config.head_size
        self.config = config
        self.query, self.key, self.value = Linear(width, width), Linear(width, kv_width), Linear(width, kv_width)
        self.output = Linear(width, width)
        # Value embeddings (the ResFormer idea, arXiv:2410.17897, as a table of their own in modded-nanogpt, 2024).
        self.values = nn.Embedding(config.vocab_size, kv_width) if has_values else None

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        ids: Int[Tensor, "B T"],
        cosine: Tensor,
        sine: Tensor,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B T C"]:
        if cache is None and fused.suits(x):
            return self.in_few_passes(x, ids, cosine, sine)
        b, t, c = x.shape
        size = self.config.head_size
        # (B, T, heads x D) -> (B, heads, T, D)
        q, k, v = (m(x).view(b, t, -1, size).transpose(1, 2) for m in (self.query, self.key, self.value))
        if self.values is not None:
            v = v + self.values(ids).to(v.dtype).view(b, t, -1, size).transpose(1, 2)
        # Positions enter here, and here only. The norm after it (QK-norm, arXiv:2302.05442) bounds every score by
        # sqrt(D), so that attention cannot saturate however the matrices grow.
        q, k = (rms_norm(rotate(x, cosine, sine), self.config.norm_eps) for x in (q, k))
        if self.config.sharpness != 1:
            q = q * self.config.sharpness
        mixed = attend(q, k, v, cache=cache)
        mixed = mixed.transpose(1, 2).reshape(b, t, c)
        written: Tensor = self.output(mixed)
        return written

    def in_few_passes(
        self, x: Float[Tensor, "B T C"], ids: Int[Tensor, "B T"], cosine: Tensor, sine: Tensor
    ) -> Float[Tensor, "B T C"]:
        """The same in training on a CPU: one product for queries, keys and values, one function for what follows."""
        c = self.config
        matrix = torch.cat([m.weight.to(x.dtype) for m in (self.query, self.key, self.value)])
        more = None if self.values is None else self.values(ids).to(x.dtype)
        angles = (cosine.float().flatten(0, 2), sine.float().flatten(0, 2))
        mixed = fused.CausalAttention.apply(  # type: ignore[no-untyped-call]
            F.linear(x, matrix), more, *angles, (c.n_head, c.n_kv_head), c.norm_eps, c.sharpness
        )
        written: Tensor = self.output(mixed)
        return written


class MLP(nn.Module):
    """Each token thinks for itself: four times as wide, ReLU squared, and back (Primer, arXiv:2109.08668)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up, self.down = Linear(config.n_embd, 4 * config.n_embd), Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        if fused.suits(x):
            quick: Tensor = self.down(fused.ReLUSquared.apply(self.up(x)))  # type: ignore[no-untyped-call]
            return quick
        written: Tensor = self.down(F.relu(self.up(x)).square())
        return written


class Smear(nn.Module):
    """Each token takes in a share of the token before it: x_t + lambda sigmoid(w x_t[:24]) x_(t-1).

    To copy, a model must find where the last token stood before and read on from there; for that, a token must know
    which one came before it. Attention can learn to tell it, in one layer of its own. Here it is given, at the cost of
    25 numbers. (From the public logs of small-model speed runs, 2025.)
    """

    GATE = 24  # features that open the gate

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.share = nn.Parameter(torch.zeros(self.GATE)), nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B T C"], before: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        gate = torch.sigmoid((x[..., : self.GATE] * self.gate.to(x.dtype)[: x.shape[-1]]).sum(-1, keepdim=True))
        return x + self.share.to(x.dtype) * gate * before


class Block(nn.Module):
    """One layer: attention, then MLP, each added to the residual stream that it read through a norm."""

    def __init__(self, config: GPTConfig, has_values: bool = False) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attention, self.mlp = Attention(config, has_values), MLP(config)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        ids: Int[Tensor, "B T"],
        cosine: Tensor,
        sine: Tensor,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "B T C"]:
        x = x + self.attention(rms_norm(x, self.eps), ids, cosine, sine, cache)
        after: Tensor = x + self.mlp(rms_norm(x, self.eps))
        return after


class GPT(nn.Module):
    """Token ids in, a distribution over the next token out. Weights are float32; `dtype` is what it computes in."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.smear = Smear() if config.smear else None
        ends = (0, config.n_layer - 1) if config.value_embeddings else ()
        self.blocks = nn.ModuleList(Block(config, has_values=layer in ends) for layer in range(config.n_layer))
        self.head = Head(config.n_embd, config.vocab_size, config.softcap)
        if dtype == torch.float64:  # for proofs: then the weights must not round either
            self.double()

    def features(self, ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T C"]:
        """What the head reads, for every token. With a cache, `ids` are the next tokens of every row."""
        tokens = ids.shape[1]
        positions = torch.arange(tokens, device=ids.device)[None] if cache is None else cache.positions(tokens)
        angles = rotary_angles(positions, self.config.head_size, self.config.rope_base)[:, None]
        cosine, sine = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        # Embeddings keep the size they were trained to; the norm puts every token on the same sphere.
        x = self.embed(ids)
        if self.smear is not None:
            x = self.smear(x, self.embed_previous(ids, x, cache, positions))
        layers = [None] * len(self.blocks) if cache is None else cache.layers(positions)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, ids, cosine, sine, layer)
        if cache is not None:
            cache.lengths = cache.lengths + tokens
        return rms_norm(x, self.config.norm_eps)

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Each token's own features, of length 1."""
        return rms_norm(self.embedding(ids).to(self.dtype), self.config.norm_eps)

    def embed_previous(
        self,
        ids: Int[Tensor, "B T"],
        x: Float[Tensor, "B T C"],
        cache: KVCache | None,
        positions: Int[Tensor, "rows T"],
    ) -> Float[Tensor, "B T C"]:
        """The features of the token before each; nothing before the first."""
        if cache is None:
            return F.pad(x[:, :-1], (0, 0, 1, 0))
        return self.embed(cache.previous(ids, positions)) * (positions > 0)[..., None]

    def logits(self, features: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows V"]:
        """Scores of the next token, float32, each within +-softcap."""
        scores: Tensor = self.head(features)
        return scores

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return self.logits(self.features(ids))

    def empty_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """A cache for `batch` rows of at most `capacity` tokens, the context unless told otherwise."""
        c = self.config
        device = self.embedding.weight.device
        return KVCache(c.n_layer, batch, c.n_kv_head, capacity or c.context, c.head_size, device, self.dtype)

    @torch.no_grad()
    def init_weights(self, seed: int = 0) -> None:
        """Fresh weights. Each matrix draws from a stream named after it, so that no order of creation matters.

        Matrices that write to the residual stream start at zero and the head near it: at step 0 every block is the
        identity and the loss is ln V. The scales are those of notes on small models trained with Muon.
        """
        for name, weight in self.named_parameters():
            draws = torch.Generator().manual_seed(key(seed, "init", name))
            if name.startswith("smear."):
                fresh = torch.zeros(weight.shape)
            elif name == "embedding.weight":
                fresh = torch.randn(weight.shape, generator=draws) * 0.8
            elif name.endswith("attention.values.weight"):
                fresh = torch.randn(weight.shape, generator=draws) * 0.02
            elif name == "head.weight":
                fresh = torch.randn(weight.shape, generator=draws) * 0.001
            elif name.endswith(("attention.output.weight", "mlp.down.weight")):
                fresh = torch.zeros(weight.shape)
            else:
                spread, scale = weight.shape[-1] ** -0.5, 0.4 if name.endswith("mlp.up.weight") else 1.0
                fresh = (torch.rand(weight.shape, generator=draws) * 2 - 1) * 3**0.5 * spread * scale
            weight.copy_(fresh)


def rms_norm(x: Float[Tensor, "*rows C"], eps: float) -> Float[Tensor, "*rows C"]:
    """`x` divided by its root mean square over the last axis; no parameters (arXiv:1910.07467)."""
    if fused.suits(x):
        quick: Tensor = fused.RMSNorm.apply(x, eps)  # type: ignore[no-untyped-call]
        return quick
    if x.device.type == "cpu" and x.requires_grad:
        normed: Tensor = RMSNorm.apply(x, eps)  # type: ignore[no-untyped-call]
        return normed
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


class RMSNorm(torch.autograd.Function):
    """`rms_norm` with its gradient written out: on a CPU torch goes over the features three times as often.

    With r = 1 / sqrt(mean(x^2) + eps) and y = r x, the gradient of x is r (g - y mean(g y)).
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*rows C"], eps: float) -> Float[Tensor, "*rows C"]:
        exact = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        y: Tensor = (x * scale).to(x.dtype)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (grad,), (y, scale) = outputs, ctx.saved_tensors
        along = (grad * y).sum(dim=-1, keepdim=True, dtype=scale.dtype).div_(-y.shape[-1])
        across: Tensor = torch.addcmul(grad, y, along.to(y.dtype)).mul_(scale.to(y.dtype))
        return across, None
