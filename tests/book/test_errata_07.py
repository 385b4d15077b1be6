"""What the original guide's chapter on optimization has wrong, and the right values: Muon."""

import pytest
import torch
from torch import Tensor

from nanochat.optim import NEWTON_SCHULZ, POLAR_EXPRESS, Muon, orthogonalise

ROWS, COLUMNS = 256, 64


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cut_and_padded(matrix: Tensor) -> Tensor:
    """The original's way with a tall matrix: its upper square orthogonalised, zeros below."""
    square = orthogonalise(matrix[:COLUMNS], NEWTON_SCHULZ)
    return torch.cat((square, torch.zeros(ROWS - COLUMNS, COLUMNS)))


def cosine_to_nearest_orthogonal(step: Tensor, matrix: Tensor) -> float:
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return float(torch.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0))


@pytest.mark.parametrize("seed", range(3))
def test_every_row_of_a_tall_matrix_is_updated(seed):
    matrix = drawn(ROWS, COLUMNS, seed=seed)
    assert int((cut_and_padded(matrix).norm(dim=1) == 0).sum()) == ROWS - COLUMNS
    assert bool((orthogonalise(matrix).norm(dim=1) > 0).all())


@pytest.mark.parametrize("seed", range(3))
def test_five_steps_come_near_the_orthogonal_matrix_and_a_cut_square_does_not(seed):
    matrix = drawn(ROWS, COLUMNS, seed=seed)
    assert cosine_to_nearest_orthogonal(cut_and_padded(matrix), matrix) == pytest.approx(0.42, abs=0.02)
    assert cosine_to_nearest_orthogonal(orthogonalise(matrix, NEWTON_SCHULZ), matrix) == pytest.approx(0.985, abs=0.01)
    assert cosine_to_nearest_orthogonal(orthogonalise(matrix, POLAR_EXPRESS), matrix) > 0.99


def test_cutting_after_orthogonalising_gives_the_figure_that_was_reported():
    """A quarter of U V^T has half of its length: 0.98 x 0.5."""
    matrix = drawn(ROWS, COLUMNS, seed=0)
    late = orthogonalise(matrix, NEWTON_SCHULZ)
    late[COLUMNS:] = 0
    assert cosine_to_nearest_orthogonal(late, matrix) == pytest.approx(0.49, abs=0.01)


def test_stretches_after_jordans_five_steps():
    stretches = torch.linalg.svdvals(orthogonalise(drawn(ROWS, COLUMNS, seed=0), NEWTON_SCHULZ))
    assert float(stretches.min()) == pytest.approx(0.68, abs=0.01)
    assert float(stretches.max()) == pytest.approx(1.13, abs=0.01)


def test_momentum_comes_first_so_that_noise_does_not_shorten_the_step():
    truth, weight = drawn(64, 64, seed=0), torch.nn.Parameter(torch.zeros(64, 64))
    muon, late = Muon([weight], lr=1.0), torch.zeros(64, 64)
    for step in range(40):
        grad = truth + 3 * drawn(64, 64, seed=100 + step)
        before, weight.grad = weight.detach().clone(), grad
        muon.step()
        late.lerp_(orthogonalise(grad), 0.05)
    ours = torch.linalg.svdvals(before - weight.detach())
    assert ours.median() > 0.8
    assert torch.linalg.svdvals(late).median() < 0.4


def test_muon_looks_ahead():
    """Nesterov: of the newest gradient the step holds (1 - mu)(1 + mu), of the one before (1 - mu) mu^2."""
    weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    muon = Muon([weight])
    for grad in (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])):
        weight.grad = grad.double()
        ahead = muon.average(weight, 0.9)
    assert torch.allclose(ahead.diag(), torch.tensor([0.1 * 0.9**2, 0.1 * 1.9], dtype=torch.float64))
