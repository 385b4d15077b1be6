"""The chunked loss against the plain one, gradients included."""

from dataclasses import dataclass

import pytest
import torch

from nanochat.gpt import Head
from nanochat.loss import IGNORE, log_probabilities, weighted_nll, weighted_nll_plainly


@dataclass
class Answers:
    targets: torch.Tensor
    weights: torch.Tensor


def problem(dtype=torch.float64, vocabulary=211, rows=3, tokens=400, seed=0):
    draws = torch.Generator().manual_seed(seed)
    head = Head(16, vocabulary, 15.0).to(torch.float64 if dtype == torch.float64 else torch.float32)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=draws) * 3)
    features = torch.randn(rows, tokens, 16, generator=draws, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows, tokens), generator=draws)
    targets[torch.rand(rows, tokens, generator=draws) < 0.3] = IGNORE
    weights = torch.randn(rows, tokens, generator=draws)
    return features, head, Answers(targets, weights)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 3e-2)]
)
def test_chunks_and_the_whole_agree(dtype, tolerance):
    features, head, answers = problem(dtype)
    other = features.detach().clone().requires_grad_()
    matrix = head.weight.detach().clone()
    plain = weighted_nll_plainly(features, head, answers) / 7
    plain.backward()
    wanted = head.weight.grad.clone()
    head.weight.grad = None
    chunked = weighted_nll(other, head, answers) / 7
    chunked.backward()
    scale = features.grad.abs().max()
    assert abs(plain - chunked) <= tolerance * max(1, abs(plain.item()))
    assert (features.grad - other.grad).abs().max() <= tolerance * scale
    assert (wanted - head.weight.grad).abs().max() <= tolerance * wanted.abs().max()
    assert torch.equal(matrix, head.weight)


def test_the_formed_gradient_is_the_derivative():
    features, head, answers = problem(tokens=4, rows=1, vocabulary=11)
    answers.weights = answers.weights.double()
    assert torch.autograd.gradcheck(lambda f: weighted_nll(f, head, answers), (features,))


def test_nothing_to_learn_is_zero_and_no_nan():
    features, head, answers = problem()
    answers.targets.fill_(IGNORE)
    loss = weighted_nll(features, head, answers)
    loss.backward()
    assert loss.item() == 0
    assert features.grad.abs().max() == 0
    assert head.weight.grad.abs().max() == 0


def test_a_mean_over_micro_batches_is_the_mean_over_the_whole():
    features, head, answers = problem()
    whole = weighted_nll(features, head, answers)
    parts = [
        weighted_nll(features[i : i + 1], head, Answers(answers.targets[i : i + 1], answers.weights[i : i + 1]))
        for i in range(3)
    ]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-12)


def test_log_probabilities_are_those_of_the_softmax():
    features, head, answers = problem()
    wanted = head(features).log_softmax(-1).gather(2, answers.targets.clamp(min=0)[..., None]).squeeze(-1)
    got = log_probabilities(features, head, answers.targets)
    kept = answers.targets != IGNORE
    assert (got[kept] - wanted[kept]).abs().max() < 1e-10
    assert (got[~kept] == 0).all()
