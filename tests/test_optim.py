"""The optimizers against torch's and against a singular value decomposition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import NEWTON_SCHULZ, POLAR_EXPRESS, AdamW, Muon, build_optimizer, orthogonalise, trapezoid


def spread_matrix(rows: int, columns: int, seed: int = 0, decay: float = 1.0) -> torch.Tensor:
    """A matrix whose singular values fall from 1 to 10^-decay."""
    draws = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=draws), full_matrices=False)
    return u @ torch.diag(10 ** -torch.linspace(0, decay, min(rows, columns))) @ v


@pytest.mark.parametrize("coefficients", [POLAR_EXPRESS, NEWTON_SCHULZ], ids=["polar express", "newton-schulz"])
@pytest.mark.parametrize("shape", [(64, 64), (128, 32), (32, 128), (192, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalisation_is_near_that_of_an_svd(coefficients, shape, dtype):
    matrix = spread_matrix(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    got = orthogonalise(matrix, coefficients, dtype)
    values = torch.linalg.svdvals(got)
    assert torch.nn.functional.cosine_similarity(got.flatten(), (u @ v).flatten(), dim=0) >= 0.97
    assert values.min() >= 0.6
    assert values.max() <= 1.2
    assert got.dtype == matrix.dtype


def test_a_batch_is_each_matrix_alone_and_scale_does_not_matter():
    matrices = torch.stack([spread_matrix(32, 64, seed) for seed in range(3)])
    together = orthogonalise(matrices, dtype=torch.float64)
    for matrix, got in zip(matrices, together, strict=True):
        assert (orthogonalise(1e3 * matrix, dtype=torch.float64) - got).abs().max() < 1e-5
    assert orthogonalise(torch.zeros(4, 4)).abs().max() == 0


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (64, 64)])
def test_muon_steps_as_torchs(shape):
    """torch computes in bfloat16 and leaves no slack in the norm, hence a tolerance of one part in fifty."""
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=draws)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, weight_decay=0.1, coefficients=NEWTON_SCHULZ)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(10):
        ours.grad = torch.randn(shape, generator=draws)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_muon_averages_first_and_orthogonalises_then():
    """The other order, a common mistake, gives another matrix; and so does leaving out Nesterov's look ahead."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    muon = Muon([weight], lr=1.0, momentum=0.9, dtype=torch.float64)
    first, second = (torch.randn(16, 16, generator=draws) for _ in range(2))
    steps = []
    for grad in (first, second):
        weight.grad = grad.clone()
        before = weight.detach().clone()
        muon.step()
        steps.append(before - weight.detach())
    buffer = 0.9 * (0.1 * first) + 0.1 * second
    right = orthogonalise(0.1 * second + 0.9 * buffer, dtype=torch.float64)
    no_nesterov = orthogonalise(buffer, dtype=torch.float64)
    wrong_order = 0.9 * 0.1 * orthogonalise(first) + 0.1 * orthogonalise(second)
    assert (steps[1] - right).abs().max() < 1e-5
    assert (steps[1] - no_nesterov).abs().max() > 1e-3
    assert (steps[1] - wrong_order).abs().max() > 1e-3


def test_muon_is_for_matrices():
    with pytest.raises(AssertionError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_steps_as_torchs(decay):
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(7, 5, generator=draws, dtype=torch.float64)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = AdamW([ours], lr=0.01, betas=(0.8, 0.95), eps=1e-10, weight_decay=decay)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-10, weight_decay=decay)
    for _ in range(30):
        ours.grad = torch.randn(7, 5, generator=draws, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    assert (ours - theirs).abs().max() < 1e-12


def test_adams_first_step_is_the_sign_of_the_gradient():
    weight = torch.nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([1e-3, -5.0, 40.0])
    AdamW([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.allclose(weight.detach(), torch.tensor([-0.1, 0.1, -0.1]), atol=1e-5)


def test_every_weight_has_one_optimizer_and_matrices_of_blocks_have_muon():
    model = GPT(GPTConfig(vocab_size=64, n_layer=2, n_head=2, n_kv_head=1, n_embd=32))
    both = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.004)
    weights = [id(weight) for group in both.param_groups for weight in group["params"]]
    muon = both.optimizers[1]
    assert sorted(weights) == sorted(id(weight) for weight in model.parameters())
    assert {id(w) for g in muon.param_groups for w in g["params"]} == {id(w) for w in model.blocks.parameters()}
    assert [group["peak_lr"] for group in both.param_groups] == [0.2, 0.004, 0.02]


def test_extras_have_groups_of_their_own():
    """Tables of values go slower than the embedding, the few numbers slower still, and none of them to Muon."""
    shape = GPTConfig(vocab_size=64, n_layer=3, n_head=2, n_kv_head=1, n_embd=32, smear=True, value_embeddings=True)
    model = GPT(shape)
    both = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.004)
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = [[names.pop(id(weight)) for weight in group["params"]] for group in both.param_groups]
    assert not names
    assert groups[:2] == [["embedding.weight"], ["head.weight"]]
    assert groups[2] == ["blocks.0.attention.values.weight", "blocks.2.attention.values.weight"]
    assert sorted(groups[3]) == ["smear.gate", "smear.share"]
    assert [group["peak_lr"] for group in both.param_groups] == pytest.approx([0.2, 0.004, 0.1, 0.025, 0.02])
    assert {id(w) for group in both.optimizers[1].param_groups for w in group["params"]} == {
        id(w) for name, w in model.named_parameters() if name.startswith("blocks.") and "values" not in name
    }


def test_every_weight_moves_with_extras():
    model = GPT(
        GPTConfig(vocab_size=16, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, smear=True, value_embeddings=True)
    )
    model.init_weights(0)
    both = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.004)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    ids = torch.arange(64).view(4, 16) % 16
    for _ in range(3):  # the head is near zero, outputs are zero, and a gate has no gradient while its share is none
        both.zero_grad()
        torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        both.step()
    assert {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])} == set()


@given(st.integers(1, 300), st.integers(0, 40), st.integers(0, 300))
def test_the_schedule_rises_stays_and_falls_without_reaching_zero_early(steps, warmup, warmdown):
    warmup, warmdown = min(warmup, steps), min(warmdown, steps)
    factors = [trapezoid(steps, warmup, warmdown)(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_the_schedule_at_its_corners():
    assert [trapezoid(6, 2, 2)(step) for step in range(6)] == pytest.approx([0.5, 1, 1, 1, 2 / 3, 1 / 3])
    assert trapezoid(10, 0, 5, final=0.1)(9) == pytest.approx(0.1 + 0.9 / 6)
