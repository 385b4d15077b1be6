"""Both sides of chapter 1's equations, in float64 or in exact fractions."""

import itertools
import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = Tensor  # how often the column's token came after the row's


def random_law(*shape: int, seed: int = 0) -> Tensor:
    """Probabilities over the last axis, in float64, the same every time."""
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=draws, dtype=torch.float64).add(0.1).log().softmax(-1)


def counted() -> Pairs:
    """Pairs of a text of 500 draws from 7 tokens, each pair counted once more than it came."""
    ids = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(1))
    ids = (ids * ids) % 7  # not all tokens equally often
    pairs = torch.ones(7, 7, dtype=torch.float64)
    pairs.index_put_((ids[:-1], ids[1:]), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    return pairs


def the_chain_of_conditionals() -> float:
    """A joint law of 4 tokens out of 3 against the product of its conditional laws; and those products' sum, with 1."""
    joint = random_law(3**4).view(3, 3, 3, 3)
    worst, total = 0.0, 0.0
    for text in itertools.product(range(3), repeat=4):
        product = 1.0
        for t in range(4):
            # The law of token t given those before it: sum out what comes after.
            product *= float(joint[text[: t + 1]].sum() / joint[text[:t]].sum())
        worst = max(worst, abs(product / float(joint[text]) - 1))
        total += product
    return max(worst, abs(total - 1))


def counting_is_the_best_bigram() -> float:
    """What any of 200 other tables costs more than the counts, against a mean of divergences, none of them below 0."""
    pairs = counted()
    share, law = pairs.sum(1) / pairs.sum(), pairs / pairs.sum(1, keepdim=True)
    best, errors = float(-(pairs * law.log()).sum() / pairs.sum()), []
    for seed in range(200):
        other = (law.log() + 0.1 * torch.randn(7, 7, generator=torch.Generator().manual_seed(seed))).softmax(-1)
        more = float(-(pairs * other.log()).sum() / pairs.sum()) - best
        divergences = (law * (law / other).log()).sum(1)
        errors.append(max(abs(more - float((share * divergences).sum())), float(-divergences.min())))
    return max(0.0, *errors)


def a_code_of_the_surprise() -> float:
    """Bits by which a code misses (1.4), over all texts of 6 tokens out of 3, where no code may begin another one."""
    first, law = random_law(3), random_law(3, 3, seed=1)
    rows = [[Fraction(float(p)).limit_denominator(1000) for p in row[:-1]] for row in [first, *law]]
    rows = [[*row, 1 - sum(row)] for row in rows]
    codes, worst = set(), 0.0
    for text in itertools.product(range(3), repeat=6):
        low, width, row = Fraction(0), Fraction(1), rows[0]
        for token in text:
            low, width, row = low + width * sum(row[:token]), width * row[token], rows[1 + token]
        surprise = math.log2(width.denominator) - math.log2(width.numerator)
        length = math.ceil(surprise) + 1
        number = math.ceil(low * 2**length)
        code = f"{number:0{length}b}"
        # Whatever bits follow, the number stays inside the text's interval: so no code begins another one.
        inside = low <= Fraction(number, 2**length) and Fraction(number + 1, 2**length) <= low + width
        worst = max(worst, 0.0 if inside else 1.0, surprise - length, length - surprise - 2)
        codes.add(code)
    beginnings = sum(code[:k] in codes for code in codes for k in range(1, len(code)))
    return max(worst, float(beginnings), float(3**6 - len(codes)))


def guessing_costs_ln_v() -> float:
    """The cross-entropy of equal logits, whatever they are and whatever comes, against ln V."""
    errors = []
    for size in (2, 17, 256, 3968):
        logits = torch.full((5, size), 3.7, dtype=torch.float64)
        targets = torch.arange(5) % size
        errors.append(abs(float(F.cross_entropy(logits, targets)) - math.log(size)))
    return max(errors)


def the_gradient_of_a_bigram() -> float:
    """(1.5) against autograd."""
    pairs = counted()
    scores = torch.randn(7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    (-(pairs * scores.log_softmax(-1)).sum() / pairs.sum()).backward()
    totals = pairs.sum(1, keepdim=True)
    ours = totals / pairs.sum() * (scores.detach().softmax(-1) - pairs / totals)
    assert scores.grad is not None
    return float((ours - scores.grad).abs().max() / scores.grad.abs().max())


def descent_arrives_at_the_counts() -> float:
    """The table that gradient descent finds from zeros, against the counted one."""
    pairs = counted()
    scores = torch.zeros(7, 7, dtype=torch.float64, requires_grad=True)
    for _ in range(4000):
        loss = -(pairs * scores.log_softmax(-1)).sum() / pairs.sum()
        (slope,) = torch.autograd.grad(loss, scores)
        scores = (scores - 7.0 * slope).detach().requires_grad_()
    return float((scores.detach().softmax(-1) - pairs / pairs.sum(1, keepdim=True)).abs().max())
