"""The optimizers: AdamW for vectors and tables, Muon for matrices, and what the learning rate does over a run.

Both keep their state in float32 whatever the model computes in. `peak_lr` of a group is what the schedule multiplies;
`lr` is only ever the product.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nanochat import fused, native

Group = dict[str, Any]
Triple = tuple[float, float, float]

# Odd quintics a x + b x^3 + c x^5, applied in this order, that drive singular values in (0, 1] towards 1: each is the
# best for the interval that the one before leaves. Polar Express, arXiv:2505.16932, algorithm 1, five steps.
POLAR_EXPRESS: tuple[Triple, ...] = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
# The same quintic five times: Keller Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024.
NEWTON_SCHULZ: tuple[Triple, ...] = ((3.4445, -4.7750, 2.0315),) * 5


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101, algorithm 2): the decay is scaled by the learning rate."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        keep_peaks(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, weight.grad, group)

    def update(self, weight: Tensor, grad: Tensor, group: Group) -> None:
        """One parameter's step: m and v are running means of g and g^2, corrected for having started at zero."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        if native.available(weight, grad):
            fused.adamw(weight, grad, state, step, group)
            return
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        mean = state["mean"].lerp_(grad, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        scale = square.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        weight.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))


class Muon(torch.optim.Optimizer):
    """Momentum, then the nearest orthogonal matrix: every direction of a matrix's update is given the same length.

    Keller Jordan 2024 (see NEWTON_SCHULZ). The order matters: the momentum averages gradients, and the average is
    orthogonalised; the other way round, the average of orthogonal matrices is not one. Steepest descent where the
    length of a step is its spectral norm: arXiv:2409.20325.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        coefficients: Sequence[Triple] = POLAR_EXPRESS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        keep_peaks(self)
        self.coefficients, self.dtype = tuple(coefficients), dtype
        if any(weight.ndim != 2 for group in self.param_groups for weight in group["params"]):
            raise AssertionError("Muon is for matrices: send vectors to AdamW")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                directions = torch.stack([self.average(weight, group["momentum"]) for weight in weights])
                updates = orthogonalise(directions, self.coefficients, self.dtype)
                # An orthogonal matrix with more rows than columns has entries that much larger to give an output of
                # the same size.
                rate = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
                for weight, update in zip(weights, updates, strict=True):
                    descend(weight, update, rate, group["lr"] * group["weight_decay"])

    def average(self, weight: Tensor, momentum: float) -> Tensor:
        """The running mean of the gradient, looked at one step ahead (Nesterov)."""
        state, grad = self.state[weight], weight.grad
        assert grad is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        if native.available(weight):
            return fused.average(grad, state["momentum"], momentum, self.dtype)
        buffer: Tensor = state["momentum"].lerp_(grad, 1 - momentum)
        ahead: Tensor = grad.lerp(buffer, momentum)
        return ahead


def descend(weight: Tensor, update: Tensor, rate: float, decay: float) -> None:
    """Take `decay` of the weight away, and `rate` times the update."""
    if native.available(weight):
        fused.descend(weight, update, rate, decay)
        return
    weight.mul_(1 - decay)
    weight.add_(update, alpha=-rate)


def orthogonalise(
    matrices: Float[Tensor, "*batch rows columns"],
    coefficients: Sequence[Triple] = POLAR_EXPRESS,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*batch rows columns"]:
    """U V^T of each U S V^T, nearly: singular values end close to 1, directions stay.

    An odd polynomial of a matrix acts on its singular values alone, so no decomposition is needed, only products:
    X <- a X + (b A + c A^2) X with A = X X^T.
    """
    x: Tensor = matrices.to(dtype).reshape(-1, *matrices.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    if tall:  # the smaller of X X^T and X^T X is cheaper
        x = native.transposed(x)
    # The Frobenius norm bounds the largest singular value; 2 % of slack keeps bfloat16 rounding below 1 as well.
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    steps, wide = list(coefficients), x.shape[-1] > 2 * x.shape[-2]
    while steps:
        x = two_steps(x, steps.pop(0), steps.pop(0)) if wide and len(steps) > 1 else one_step(x, steps.pop(0))
    if tall:
        x = native.transposed(x)
    return x.reshape(matrices.shape).to(matrices.dtype)


def one_step(x: Float[Tensor, "n rows columns"], step: Triple) -> Float[Tensor, "n rows columns"]:
    """a X + (b A + c A^2) X. `baddbmm(S, A, B, beta=b, alpha=c)` is b S + c A B, rounded once."""
    a, b, c = step
    gram = x @ x.mT
    polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    return torch.baddbmm(x, polynomial, x, beta=a)


def two_steps(x: Float[Tensor, "n rows columns"], first: Triple, second: Triple) -> Float[Tensor, "n rows columns"]:
    """The same twice, with less work where X is wide: with P = a + b A + c A^2, the next A is the small P A P.

    Not more than two at a time: in bfloat16 what five make of small singular values is noise (LOG.md, 2026-11-22).
    """
    gram = x @ x.mT
    (a, b, c), (a2, b2, c2) = first, second
    polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
    gram = polynomial @ gram @ polynomial
    both = torch.baddbmm(polynomial, torch.baddbmm(gram, gram, gram, beta=b2, alpha=c2), polynomial, beta=a2)
    return both @ x


class Together:
    """Several optimizers that step as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[Group]:
        """The groups of all of them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def state_of(self, weight: Tensor) -> dict[str, Tensor]:
        """The optimizer state of one parameter, to be saved or filled; empty before its first step."""
        owner = next(o for o in self.optimizers for group in o.param_groups for p in group["params"] if p is weight)
        state: dict[str, Tensor] = owner.state[weight]
        return state

    def step(self) -> None:
        """Update every parameter."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        """Drop every gradient."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


def build_optimizer(
    model: nn.Module,
    *,
    matrix_lr: float,
    embedding_lr: float,
    head_lr: float,
    matrix_decay: float = 0.0,
    momentum: float = 0.95,
    dtype: torch.dtype = torch.float32,
) -> Together:
    """Muon for the matrices inside the blocks, AdamW for the embedding table and the head.

    Tables of values are embeddings too; what is left, the few numbers of the extras, goes to AdamW as well. An
    embedding's gradient touches only the rows of tokens that were seen, and a head's rows are one word each: neither
    is a map between two spaces of features, which is what orthogonalising assumes. Betas and eps: nanochat's public
    logs for small models (mid-2026).
    """
    named = dict(model.named_parameters())
    tables = {"embedding.weight": embedding_lr, "head.weight": head_lr}
    values = [weight for name, weight in named.items() if name.endswith("attention.values.weight")]
    few = [weight for weight in named.values() if weight.ndim < 2]
    apart = {named[name] for name in tables} | set(values) | set(few)
    matrices = [weight for weight in named.values() if weight not in apart]
    groups = [{"params": [named[name]], "lr": lr} for name, lr in tables.items()]
    groups += [{"params": some, "lr": lr} for some, lr in ((values, embedding_lr / 2), (few, embedding_lr / 8)) if some]
    return Together(
        AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0),
        Muon(matrices, lr=matrix_lr, momentum=momentum, weight_decay=matrix_decay, dtype=dtype),
    )


def keep_peaks(optimizer: torch.optim.Optimizer) -> None:
    """Remember each group's learning rate as its `peak_lr`: loading a state or a schedule overwrites `lr`."""
    for group in optimizer.param_groups:
        group.setdefault("peak_lr", group["lr"])


def trapezoid(steps: int, warmup: int, warmdown: int, final: float = 0.0) -> Callable[[int], float]:
    """Factor of the learning rate by step: up over `warmup` steps, flat, down over the last `warmdown` to `final`.

    >>> [round(trapezoid(6, 2, 2)(step), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 1.0, 0.67, 0.33]
    """

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / max(1, warmup))
        falling = min(1.0, (steps - step) / max(1, warmdown + 1)) if warmdown else 1.0
        return min(rising, final + (1 - final) * falling)

    return factor
