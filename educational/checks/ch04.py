"""Derivations of chapter 04 against code, in float64. Each function computes both sides and returns the error."""

import itertools
import math

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nanochat.gpt import GPT, Block, GPTConfig, Head, Linear, RMSNorm, rms_norm
from nanochat.loss import weighted_nll
from nanochat.optim import build_optimizer
from nanochat.plan import flops_per_token
from nanochat.train import Batch, train

SMALL = GPTConfig(vocab_size=50, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, context=16)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(config: GPTConfig, rows: int = 2) -> Tensor:
    """Rows of random ids."""
    return torch.randint(config.vocab_size, (rows, config.context), generator=torch.Generator().manual_seed(1))


def batch_of(ids: Tensor) -> Batch:
    """Every token with the one after it as its target."""
    return Batch(ids[:, :-1], ids[:, 1:], torch.ones(ids[:, 1:].shape), {})


def block_by_hand() -> float:
    """(4.3): a Block against x + attention(norm x), then + mlp(norm x), with the MLP and the norm in plain sums."""
    model = GPT(SMALL, torch.float64)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.copy_(0.2 * drawn(*weight.shape, seed=number))
        seen: list[tuple[Tensor, ...]] = []
        model.blocks[1].register_forward_pre_hook(lambda block, arguments: seen.append(arguments))
        after: list[Tensor] = []
        model.blocks[1].register_forward_hook(lambda block, arguments, result: after.append(result))
        model.features(tokens(SMALL))
        block, (x, *rest) = model.blocks[1], seen[0]
        assert isinstance(block, Block)
        x = x + block.attention(normed(x), *rest)
        hidden = torch.clamp(normed(x) @ block.mlp.up.weight.T, min=0)
        x = x + hidden * hidden @ block.mlp.down.weight.T
    return float((x - after[0]).abs().max())


def normed(x: Tensor) -> Tensor:
    """(4.1) as it is written."""
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def norm_forgets_length() -> float:
    """Text below (4.1): with eps 0 the norm of 3x against the norm of x, and its length against the root of C."""
    x = drawn(5, 64)
    y = rms_norm(x, 0.0)
    return max(float((rms_norm(3 * x, 0.0) - y).abs().max()), float((y.norm(dim=-1) - 8).abs().max()))


def norm_backward() -> float:
    """(4.2): the gradient that RMSNorm writes out against autograd through (4.1)."""
    x, pull = drawn(7, 24).requires_grad_(), drawn(7, 24, seed=1)
    (got,) = torch.autograd.grad(RMSNorm.apply(x, 1e-6), x, pull)
    (wanted,) = torch.autograd.grad(normed(x), x, pull)
    return float((got - wanted).abs().max())


def stream_variance() -> float:
    """(4.4): the mean squared length over all signs of eight writes against the sum of the squared lengths."""
    first, writes = drawn(16), drawn(8, 16, seed=1)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64)
    mean = (first + signs @ writes).square().sum(-1).mean()
    return abs(float(mean - first.square().sum() - writes.square().sum()))


def what_is_left() -> float:
    """(4.5): the share of the first vector after 24 orthogonal writes, before and after the norm, against formulas."""
    width, writes, size = 64, 24, 0.7
    axes = torch.eye(width, dtype=torch.float64) * math.sqrt(width)  # orthogonal, each of RMS 1
    pre = post = axes[0]
    for step in range(1, writes + 1):
        pre = pre + size * axes[step]
        post = rms_norm(post + size * axes[step], 0.0)
    shares = [float(rms_norm(x, 0.0) @ axes[0]) / width for x in (pre, post)]
    return max(
        abs(shares[0] - 1 / math.sqrt(1 + writes * size**2)),
        abs(shares[1] - (1 + size**2) ** (-writes / 2)),
    )


def initial_scale() -> float:
    """(4.6): the mean of (w . x)^2 over all sign patterns w = +-sigma, x of RMS 1 and sigma = d^-1/2, against 1."""
    x = rms_norm(drawn(10), 0.0)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=10)), dtype=torch.float64)
    return abs(float(((signs / math.sqrt(10)) @ x).square().mean()) - 1)


def first_loss() -> float:
    """(4.7): the loss of a model whose head is zero against ln V, and its features against the normed embedding's."""
    model = GPT(SMALL, torch.float64)
    model.init_weights()
    ids = tokens(SMALL)
    with torch.no_grad():
        model.head.weight.zero_()
        features = model.features(ids[:, :-1])
        loss = float(weighted_nll(features, model.head, batch_of(ids))) / ids[:, 1:].numel()
        start = normed(normed(model.embedding(ids[:, :-1])))
    return max(abs(loss - math.log(SMALL.vocab_size)), float((features - start).abs().max()))


def who_learns_first() -> float:
    """Text below (4.7): the largest gradient at step 0 of matrices that should have none; infinite if others have none.

    Where projections start at zero, nothing comes back through them.
    """
    model = GPT(SMALL, torch.float64)
    model.init_weights()
    ids = tokens(SMALL)
    weighted_nll(model.features(ids[:, :-1]), model.head, batch_of(ids)).backward()
    behind = ("query", "key", "value", "up")  # these stand before a matrix of zeros
    largest = {name: float(w.grad.abs().max()) for name, w in model.named_parameters() if w.grad is not None}
    still = [size for name, size in largest.items() if name.split(".")[-2] in behind]
    moving = [size for name, size in largest.items() if name.split(".")[-2] not in behind]
    return max(still) if min(moving) > 0 else math.inf


def softcap_gradient() -> float:
    """(4.8): autograd through Head.cap against 1 - tanh(z / 15)^2."""
    head = Head(4, 7, 15.0)
    z = (20 * drawn(200)).requires_grad_()
    (got,) = torch.autograd.grad(head.cap(z).sum(), z)
    return float((got - (1 - torch.tanh(z.detach() / 15) ** 2)).abs().max())


def parameters_by_hand() -> float:
    """(4.9): (2 + 2 K / H) d^2 + 8 d^2 a layer and 2 V d, against the model's own count, for five shapes."""
    shapes = [(1, 1, 1, 64, 10), (2, 4, 4, 64, 99), (3, 4, 2, 64, 500), (5, 6, 1, 96, 257), (4, 4, 1, 256, 3968)]
    worst = 0
    for layers, heads, kv_heads, width, vocabulary in shapes:
        config = GPTConfig(vocabulary, layers, heads, kv_heads, width)
        by_hand = layers * (2 * width**2 + 2 * width**2 * kv_heads // heads + 8 * width**2) + 2 * vocabulary * width
        worst = max(worst, abs(by_hand - sum(weight.numel() for weight in GPT(config).parameters())))
    return float(worst)


def two_forward_four_backward() -> float:
    """(4.10): operations of one matrix, counted by torch, against 2 a parameter and token forward and 4 backward."""
    matrix, x = Linear(24, 40), torch.randn(6, 24, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = matrix(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    numbers = 24 * 40 * 6
    return float(abs(forward.get_total_flops() - 2 * numbers) + abs(backward.get_total_flops() - 4 * numbers))


def counted(config: GPTConfig, rows: int = 1) -> float:
    """Operations a token of one training step, as torch counts them."""
    model = GPT(config)
    model.init_weights()
    ids = torch.zeros(rows, config.context, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        batch = Batch(ids, ids, torch.ones(rows, config.context), {})
        weighted_nll(model.features(ids), model.head, batch).backward()
    return counter.get_total_flops() / ids.numel()


def flops_by_counter() -> float:
    """(4.11): 6 N + 12 L d T against torch's count of a training step, where attention is one block (T <= 128)."""
    shapes = [GPTConfig(96, 2, 4, 4, 64, 128), GPTConfig(333, 3, 4, 1, 64, 64), GPTConfig(50, 1, 2, 2, 32, 32)]
    return max(abs(counted(config) / flops_per_token(config) - 1) for config in shapes)


def bytes_of_state() -> float:
    """(4.12): bytes of weights, gradients and moments after a step against 16 a number in tables and 12 in matrices."""
    model = GPT(SMALL)
    model.init_weights()
    optimizer = build_optimizer(model, matrix_lr=0.01, embedding_lr=0.01, head_lr=0.01)
    ids = tokens(SMALL)
    batch = batch_of(ids)
    next(iter(train(model, optimizer, iter([batch]), lambda _: 1.0, steps=1)))
    held = sum(4 * 2 * weight.numel() for weight in model.parameters())  # weights, and gradients while they are there
    for weight in model.parameters():
        held += sum(t.numel() * 4 for name, t in optimizer.state_of(weight).items() if name != "step")
    tables = model.embedding.weight.numel() + model.head.weight.numel()
    matrices = sum(weight.numel() for weight in model.parameters()) - tables
    return float(abs(held - 16 * tables - 12 * matrices))
