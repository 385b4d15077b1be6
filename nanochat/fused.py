"""What training does between two matrix products, in as few walks over memory as it takes, gradients written out.

Each function stands in for a few lines of `gpt.py`, which are the page to read and what tests hold it to. The kernels
are in `native.c`. Axes as in `attention.py`; G = H / K query heads share a head of keys and values.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nanochat import native

BLOCK = 128  # queries at once: what they see beyond themselves is computed and thrown away


def suits(x: Tensor) -> bool:
    """Whether the functions of this module can work on `x`; they are for training, where gradients are wanted."""
    return x.requires_grad and native.available(x)


class RMSNorm(torch.autograd.Function):
    """`gpt.rms_norm`. With r = 1 / sqrt(mean(x^2) + eps) and y = r x, the gradient of x is r (g - y mean(g y))."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*rows C"], eps: float) -> Float[Tensor, "*rows C"]:
        x = x.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
        native.run(x.dtype, "rms_norm", x, y, scale, scale.numel(), x.shape[-1], eps)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        dx = torch.empty_like(y)
        native.run(y.dtype, "rms_norm_backward", outputs[0].contiguous(), y, scale, dx, scale.numel(), y.shape[-1])
        return dx, None


class ReLUSquared(torch.autograd.Function):
    """max(x, 0)^2, whose gradient is 2 max(x, 0) g."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows C"]:
        x = x.contiguous()
        y = torch.empty_like(x)
        native.run(x.dtype, "relu_squared", x, y, x.numel())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        native.run(x.dtype, "relu_squared_backward", outputs[0].contiguous(), x, dx, x.numel())
        return dx


class CausalAttention(torch.autograd.Function):
    """From the product with the query, key and value matrices to the weighted mean of values, before the output matrix.

    RoPE, QK-norm, the factor `sharpness`, `more` added to the values, and `attend` without a cache. With scores S,
    P = softmax(f S) and O = P V, gradients are dV = P^T dO, dS = f P (dP - sum(P dP)) with dP = dO V^T, dQ = dS K and
    dK = dS^T Q. The G queries of a token that share a key head stand below one another as rows of one product; a block
    of queries goes against all keys up to its end.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Float[Tensor, "B T heads_D"],
        more: Float[Tensor, "B T K_D"] | None,
        cosine: Float[Tensor, "T half"],
        sine: Float[Tensor, "T half"],
        heads: tuple[int, int],
        eps: float,
        sharpness: float,
    ) -> Float[Tensor, "B T C"]:
        (b, t, _), (h, kv), d = qkv.shape, heads, 2 * cosine.shape[1]
        groups, dtype = h // kv, qkv.dtype
        q, k, v = (qkv.new_empty(b * kv, rows, d) for rows in (t * groups, t, t))
        scale = qkv.new_empty(b * t, h + kv, dtype=torch.float32)
        sizes = (b, t, h, kv, d)
        native.run(dtype, "heads", qkv.contiguous(), more, q, k, v, scale, cosine, sine, *sizes, eps, sharpness)
        mixed, probabilities = torch.empty_like(q), []
        for start in range(0, t, BLOCK):
            end = min(start + BLOCK, t)
            rows = slice(start * groups, end * groups)
            p = q[:, rows] @ k[:, :end].mT
            places = (b * kv, p.shape[1], end, start, groups)
            native.run(dtype, "causal_softmax", p, *places, d**-0.5, sharpness * d**0.5)
            mixed[:, rows].baddbmm_(p, v[:, :end], beta=0)
            probabilities.append(p)
        ctx.save_for_backward(q, k, v, scale, cosine, sine, *probabilities)
        ctx.sizes, ctx.sharpness, ctx.more = sizes, sharpness, more is not None
        return mixed.view(b, kv, t, groups * d).transpose(1, 2).reshape(b, t, h * d)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, scale, cosine, sine, *probabilities = ctx.saved_tensors
        b, t, h, kv, d = ctx.sizes
        groups, dtype = h // kv, q.dtype
        grad = outputs[0].view(b, t, kv, groups * d).transpose(1, 2).reshape(b * kv, t * groups, d)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        # From the last block, whose queries see all keys, to the first: it fills what the others add to.
        for start in reversed(range(0, t, BLOCK)):
            end = min(start + BLOCK, t)
            rows, p = slice(start * groups, end * groups), probabilities[start // BLOCK]
            ds = grad[:, rows] @ v[:, :end].mT
            native.run(dtype, "causal_softmax_backward", p, ds, b * kv, p.shape[1], end, start, groups, d**-0.5)
            dq[:, rows].baddbmm_(ds, k[:, :end], beta=0)
            beta = int(end < t)
            dk[:, :end].baddbmm_(ds.mT, q[:, rows], beta=beta)
            dv[:, :end].baddbmm_(p.mT, grad[:, rows], beta=beta)
        dqkv = q.new_empty(b, t, (h + 2 * kv) * d)
        native.run(dtype, "heads_backward", dq, dk, dv, q, k, scale, dqkv, cosine, sine, *ctx.sizes, ctx.sharpness)
        more = dv.view(b, kv, t, d).transpose(1, 2).reshape(b, t, kv * d) if ctx.more else None
        return dqkv, more, None, None, None, None, None
