"""Kernels against the plain lines that they stand in for: values, gradients, whole steps."""

import shutil
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat import fused, native
from nanochat.gpt import GPT, GPTConfig, rms_norm
from nanochat.loss import IGNORE, weighted_nll
from nanochat.optim import build_optimizer
from nanochat.train import Batch, train

pytestmark = pytest.mark.skipif(native.find_compiler() is None, reason="needs a C compiler")

# Relative to the largest entry. In float32 only the order of sums differs; bfloat16 keeps 8 bits, and the plain lines
# round after each operation where a kernel rounds once.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])

GROUPED = GPTConfig(200, 3, 4, 2, 64, 150, sharpness=1.3)
SHAPES = pytest.mark.parametrize(
    "config",
    [
        GPTConfig(200, 2, 3, 3, 96, 300),
        GROUPED,
        GPTConfig(200, 3, 4, 1, 64, 128, smear=True, value_embeddings=True, sharpness=1.5),
        GPTConfig(200, 2, 1, 1, 10, 7),  # no multiple of any vector's length
    ],
    ids=["own key heads", "grouped", "extras", "odd"],
)


def off(got: Tensor, wanted: Tensor) -> float:
    got, wanted = got.detach().float(), wanted.detach().float()
    return float((got - wanted).abs().max() / wanted.abs().max())


def drawn(config: GPTConfig, dtype: torch.dtype, seed: int = 0) -> tuple[GPT, Batch]:
    """A model none of whose matrices is zero, and a batch for it, some of whose targets are ignored."""
    draws, model = torch.Generator().manual_seed(seed), GPT(config, dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2 if weight.ndim else torch.tensor(0.3))
    ids = torch.randint(config.vocab_size, (2, config.context + 1), generator=draws)
    targets = ids[:, 1:].clone()
    targets[0, :3] = IGNORE
    return model, Batch(ids[:, :-1], targets, torch.randn(targets.shape, generator=draws), {})


def gradients(config: GPTConfig, dtype: torch.dtype, on: bool, seed: int = 0) -> dict[str, Tensor]:
    model, batch = drawn(config, dtype, seed)
    with native.kernels(on):
        loss = weighted_nll(model.features(batch.inputs), model.head, batch) / batch.inputs.numel()
        loss.backward()
    return {"loss": loss.detach()} | {name: weight.grad for name, weight in model.named_parameters()}


@SHAPES
def test_a_step_by_kernels_is_the_plain_one_in_float32(config):
    plain, quick = (gradients(config, torch.float32, on) for on in (False, True))
    assert plain.keys() == quick.keys() and not any(torch.equal(plain[name], quick[name]) for name in ("head.weight",))
    assert {name: off(quick[name], plain[name]) for name in plain if off(quick[name], plain[name]) > 2e-5} == {}


@SHAPES
def test_in_bfloat16_kernels_are_no_further_from_float32_than_plain_lines(config):
    exact, plain, quick = (
        gradients(config, dtype, on)
        for dtype, on in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True))
    )

    def distance(other: dict[str, Tensor]) -> float:
        return max(float((other[name] - exact[name]).norm() / exact[name].norm()) for name in exact)

    assert 1e-4 < distance(quick) < max(1.3 * distance(plain), 0.02)


@DTYPES
def test_relu_squared(dtype):
    x = torch.linspace(-3, 3, 5001).to(dtype)
    grad = torch.randn(5001, generator=torch.Generator().manual_seed(0)).to(dtype)
    first, second = (x.clone().requires_grad_() for _ in range(2))
    wanted, got = F.relu(first).square(), fused.ReLUSquared.apply(second)
    assert torch.equal(wanted, got)  # one rounding each
    wanted.backward(grad)
    got.backward(grad)
    assert off(second.grad, first.grad) <= TOLERANCE[dtype] / 2


@DTYPES
def test_rms_norm(dtype):
    x = torch.randn(3, 5, 37, generator=torch.Generator().manual_seed(0)).to(dtype)
    grad = torch.randn(3, 37, 5, generator=torch.Generator().manual_seed(1)).to(dtype).mT  # not contiguous
    first, second = (x.clone().requires_grad_() for _ in range(2))
    wanted = F.rms_norm(first, (37,), eps=1e-6)
    with native.kernels():
        got = rms_norm(second, 1e-6)
    wanted.backward(grad)
    got.backward(grad)
    assert off(got, wanted) <= TOLERANCE[dtype] and off(second.grad, first.grad) <= TOLERANCE[dtype]


@DTYPES
def test_transposed(dtype):
    x = torch.arange(2 * 96 * 64).view(2, 96, 64).to(dtype)
    with native.kernels():
        got = [native.transposed(y) for y in (x, x[0], x[:, :50], x.double())]
    assert all(torch.equal(y, z.mT) and y.is_contiguous() for y, z in zip(got, (x, x[0], x[:, :50], x), strict=True))


def test_optimizers_by_kernels_take_the_plain_step():
    ends = []
    for on in (False, True):
        model, batch = drawn(GROUPED, torch.float32)
        optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.01, matrix_decay=0.1)
        optimizer.param_groups[0]["weight_decay"] = 0.1
        for _ in range(3):
            weighted_nll(model.features(batch.inputs), model.head, batch).backward()
            before = model.head.weight._version
            with native.kernels(on):
                optimizer.step()
            assert model.head.weight._version > before  # or autograd would take old values for new ones
            optimizer.zero_grad()
        ends.append({name: weight.detach() for name, weight in model.named_parameters()})
    assert max(off(ends[1][name], ends[0][name]) for name in ends[0]) < 1e-3
    moved = drawn(GROUPED, torch.float32)[0]
    assert min(off(weight, ends[0][name]) for name, weight in moved.named_parameters()) > 1e-2


def losses(on: bool, dtype: torch.dtype = torch.bfloat16, steps: int = 12) -> list[float]:
    model, batch = drawn(GROUPED, dtype)
    model.init_weights()
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.01, dtype=dtype)

    def forever() -> Iterator[Batch]:
        while True:
            yield Batch(batch.inputs, batch.targets, torch.ones_like(batch.weights), {})

    with native.kernels(on):
        return [step.loss for step in train(model, optimizer, forever(), lambda step: 1.0, steps=steps, accumulate=2)]


def test_training_goes_the_same_way():
    plain, quick = losses(False), losses(True)
    assert plain[-1] < plain[0] - 1
    assert quick == pytest.approx(plain, abs=0.05) and quick != plain


def test_the_same_bits_come_out_again_also_in_deterministic_mode():
    first = losses(True)
    assert losses(True) == first
    try:
        torch.use_deterministic_algorithms(True)  # then new tensors hold NaN, and what was not written would show
        assert losses(True) == first
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_is_not_finite_stays_so():
    features = torch.randn(1, 40, 16, dtype=torch.bfloat16)
    features[0, 7, 3] = torch.nan
    model = GPT(GPTConfig(200, 1, 2, 1, 16, 40))
    model.init_weights()
    targets = torch.zeros(1, 40, dtype=torch.long)
    with native.kernels():
        loss = weighted_nll(features.requires_grad_(), model.head, Batch(targets, targets, torch.ones(1, 40), {}))
    assert loss.isnan()


def test_outside_only_plain_lines_run():
    x = torch.ones(2, 4, requires_grad=True)
    assert not fused.suits(x)
    with native.kernels():
        assert fused.suits(x) and not fused.suits(x.detach()) and not fused.suits(x.double())
        with native.kernels(False):
            assert not fused.suits(x)
    assert not fused.suits(x)


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path
    native.library.cache_clear()


def test_without_a_compiler_plain_lines_run_and_it_is_said(monkeypatch, fresh_library):
    cpu = torch.device("cpu")
    monkeypatch.setenv("CC", "no-such-compiler")
    assert native.lacking(cpu, torch.float32).startswith("expected a compiler for native.c; got none; install")
    with native.kernels():
        assert not fused.suits(torch.ones(2, requires_grad=True))
    assert losses(True) == losses(False)
    native.library.cache_clear()
    monkeypatch.setenv("CC", shutil.which("false") or "false")
    assert native.lacking(cpu, torch.float32).startswith("expected a compiler that takes native.c; got /")
    assert native.lacking(torch.device("cuda"), torch.float32) == native.lacking(cpu, torch.float64) == ""


def test_compiled_once_and_kept(monkeypatch, fresh_library):
    assert native.lacking(torch.device("cpu"), torch.float32) == ""
    first, second = sorted((fresh_library / "compiled").iterdir())  # one for each format
    made = [path.stat().st_mtime_ns for path in (first, second)]
    native.library.cache_clear()
    assert native.lacking(torch.device("cpu"), torch.float32) == ""
    assert [path.stat().st_mtime_ns for path in (first, second)] == made
    native.library.cache_clear()
    for kept in (first, second):
        kept.unlink()  # never written over: this process still has it in memory, and would die of that as it ends
        kept.write_bytes(b"half a file")  # another program's, or a full disk's
    assert native.lacking(torch.device("cpu"), torch.float32) == ""
