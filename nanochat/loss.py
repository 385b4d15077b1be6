"""The one loss: a weighted sum of negative log-likelihoods, without ever holding all logits.

At 16,384 tokens and 32,768 words the logits are two gigabytes, and training would hold them three times over. But a
logit is needed only until its token's loss and gradient are known. So the head and the loss are one operation that
goes through the tokens in chunks, and forms the gradients of features and head on the way forward.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nanochat import native
from nanochat.attention import rounded

IGNORE = -1  # a target that teaches nothing: padding, prompts, tool output
CHUNK = 512  # tokens at once: 512 x 4,096 logits are 8 MB, which a processor's cache holds


class Targets(Protocol):
    """What the loss needs of a batch: the next tokens, IGNORE where there is none to learn, and their weights."""

    @property
    def targets(self) -> Int[Tensor, "B T"]: ...
    @property
    def weights(self) -> Float[Tensor, "B T"]: ...


class HeadLike(Protocol):
    """What the loss needs of a head: a matrix and the cap on its products."""

    weight: Any
    softcap: float

    def __call__(self, x: Tensor) -> Tensor: ...


def weighted_nll(features: Float[Tensor, "B T C"], head: HeadLike, batch: Targets) -> Float[Tensor, ""]:
    """Sum over tokens of weight x -ln p(target), in float32; gradients flow to `features` and `head.weight`."""
    targets, weights, rows = batch.targets.flatten(), batch.weights.flatten(), features.flatten(0, 1)
    # Ignored targets are left out before the head, not multiplied by zero after it: in a chat batch they are most.
    if bool((targets == IGNORE).any()):
        kept, counts = chosen(targets)
        rows, targets, weights = rows[kept], targets[kept], weights[kept] * counts
    loss: Tensor = ChunkedNLL.apply(rows, head.weight, targets, weights, head.softcap)  # type: ignore[no-untyped-call]
    return loss


def chosen(targets: Int[Tensor, " N"]) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"]]:
    """(places of the targets that are not IGNORE, 1 for each): then the first again, with 0, up to a round number."""
    kept = (targets != IGNORE).nonzero().squeeze(1)
    missing = rounded(len(kept)) - len(kept)
    counts = torch.ones(len(kept) + missing, device=targets.device)
    counts[len(kept) :] = 0
    return torch.cat((kept, kept[:1].expand(missing))), counts


def weighted_nll_plainly(features: Float[Tensor, "B T C"], head: HeadLike, batch: Targets) -> Float[Tensor, ""]:
    """What `weighted_nll` computes, with all logits at once: the page to read, and its oracle."""
    nll = F.cross_entropy(head(features).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="none")
    return (nll * batch.weights.flatten()).sum()


class ChunkedNLL(torch.autograd.Function):
    """Sum of weight x nll over N tokens. The gradient of a logit z, capped to c tanh(z / c), is

    weight x (softmax - one_hot(target)) x (1 - tanh(z / c)^2)

    With s = sigmoid(2 z / c), tanh(z / c) = 2 s - 1: a softmax does not see the shift, and the slope is 4 s (1 - s).
    On a CPU a sigmoid takes an eighth of the time of a tanh. The cap bounds logits to +-c, so that no probability
    can be rounded to zero before its logarithm is taken.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Float[Tensor, "N C"],
        weight: Float[Tensor, "V C"],
        targets: Int[Tensor, " N"],
        weights: Float[Tensor, " N"],
        softcap: float,
    ) -> Float[Tensor, ""]:
        if any(ctx.needs_input_grad) and native.available(features):
            return in_few_passes(ctx, features, weight.to(features.dtype), targets, weights, softcap)
        exact = torch.float64 if features.dtype == torch.float64 else torch.float32
        matrix = weight.to(features.dtype)
        total = torch.zeros((), dtype=exact, device=features.device)
        needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        feature_grads, matrix_grad = [], torch.zeros_like(weight) if needed else None
        for part, target, scale in zip(features.split(CHUNK), targets.split(CHUNK), weights.split(CHUNK), strict=True):
            scale = scale.to(exact)[:, None]
            sigmoid = (part @ matrix.T).to(exact).mul_(2 / softcap).sigmoid_()
            p = torch.softmax(2 * softcap * sigmoid, dim=-1)
            total -= (p.gather(1, target[:, None]).log() * scale).sum()
            if matrix_grad is not None:
                p.scatter_add_(1, target[:, None], -torch.ones_like(scale))
                slope = p.mul_(sigmoid.addcmul_(sigmoid, sigmoid, value=-1)).mul_(4 * scale).to(features.dtype)
                feature_grads.append(slope @ matrix)
                matrix_grad += slope.T @ part
        if matrix_grad is not None:
            ctx.save_for_backward(torch.cat(feature_grads), matrix_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        feature_grad, matrix_grad = ctx.saved_tensors
        scale = outputs[0]
        return feature_grad * scale.to(feature_grad.dtype), matrix_grad * scale.to(matrix_grad.dtype), None, None, None


def in_few_passes(
    ctx: Any,
    features: Float[Tensor, "N C"],
    matrix: Float[Tensor, "V C"],
    targets: Int[Tensor, " N"],
    weights: Float[Tensor, " N"],
    softcap: float,
) -> Float[Tensor, ""]:
    """`ChunkedNLL.forward` with one kernel between the products, which turns logits into their gradients."""
    dtype, losses = features.dtype, torch.empty(len(features))
    feature_grad, matrix_grad = torch.empty_like(features), torch.zeros(matrix.shape)
    weights = weights.float()
    for start in range(0, len(features), CHUNK):
        part = slice(start, start + CHUNK)
        rows = features[part]
        slope = rows @ matrix.T
        sizes = (len(rows), len(matrix))
        native.run(dtype, "capped_nll", slope, targets[part], weights[part], losses[part], *sizes, softcap)
        torch.mm(slope, matrix, out=feature_grad[part])
        native.run(dtype, "accumulate", matrix_grad, slope.T @ rows, matrix.numel())
    ctx.save_for_backward(feature_grad, matrix_grad)
    return losses.double().sum().float()


@torch.no_grad()
def log_probabilities(
    features: Float[Tensor, "B T C"], head: HeadLike, targets: Int[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """ln p(target) of every token, 0 where the target is IGNORE; in chunks, without gradients."""
    rows, flat = features.flatten(0, 1), targets.flatten()
    kept = (flat != IGNORE).nonzero().squeeze(1)
    found = []
    for part, target in zip(rows[kept].split(CHUNK), flat[kept].split(CHUNK), strict=True):
        logits = head(part)
        found.append(logits.gather(1, target[:, None]).squeeze(1) - logits.logsumexp(dim=-1))
    exact = torch.float64 if features.dtype == torch.float64 else torch.float32
    result = torch.zeros(flat.shape, dtype=exact, device=flat.device)
    result[kept] = torch.cat(found)
    return result.view(targets.shape)
