"""Derivations of chapter 06 against code, in float64. Each function computes both sides and returns the error."""

import itertools
import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from nanochat.data.packing import rows
from nanochat.data.shards import Record, TokenStore
from nanochat.evaluate.bits import Held, document_nats
from nanochat.evaluate.figures import NORMAL, mean, proportion, wilson
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import IGNORE, weighted_nll
from nanochat.plan import flops_per_token, num_multiplied
from nanochat.runtime import Runtime
from nanochat.train import Batch


def small_model(seed: int = 0, vocab_size: int = 7, context: int = 8) -> GPT:
    """A model in float64 with every weight drawn large, so that nothing is zero by chance."""
    config = GPTConfig(vocab_size, n_layer=1, n_head=2, n_kv_head=1, n_embd=8, context=context)
    model = GPT(config, torch.float64).double()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.4)
    return model


def gradients(model: GPT, loss: Tensor) -> Tensor:
    """All gradients of `loss` as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)])


def drawn_batch(rows_: int = 6, tokens: int = 8) -> Batch:
    """Random tokens, a third of the targets ignored, unevenly over the rows."""
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(7, (rows_, tokens + 1), generator=draws)
    targets = torch.where(torch.rand(rows_, tokens, generator=draws) < 0.35, IGNORE, ids[:, 1:])
    targets[0, 1:] = IGNORE
    return Batch(ids[:, :-1], targets, torch.ones(rows_, tokens, dtype=torch.float64), {})


def micro_batches_are_one() -> float:
    """(6.3): the gradient of a step cut into three uneven micro-batches, each over the step's tokens, against whole."""
    model, batch = small_model(), drawn_batch()
    learned = int((batch.targets != IGNORE).sum())
    whole = gradients(model, weighted_nll(model.features(batch.inputs), model.head, batch) / learned)
    parts = torch.zeros_like(whole)
    for some in (slice(0, 1), slice(1, 3), slice(3, 6)):
        part = Batch(batch.inputs[some], batch.targets[some], batch.weights[some], {})
        parts += gradients(model, weighted_nll(model.features(part.inputs), model.head, part) / learned)
    return float((whole - parts).abs().max())


def crop_waste() -> float:
    """(6.2): tokens of documents = tokens placed without BOS + cropped, over the first rows of a packer, exactly."""
    lengths = [5, 90, 3, 41, 17, 66, 8, 130, 29, 2, 55, 71]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    store = TokenStore(
        np.arange(1, offsets[-1] + 1, dtype=np.uint32), offsets, Record("", "", 0, 0, 0, "uint32", "", "")
    )
    worst = 0.0
    for row in rows([store], bos=0, context=31, seed=3):
        if row.cursor["epoch"]:
            return worst
        waiting = sum(lengths[document] - start for document, start in row.cursor["waiting"])
        unread = sum(lengths) - sum(lengths[n] for n in shuffled(store, row.cursor))
        opened = row.cursor["placed"] - (sum(lengths) - waiting - unread - row.cursor["cropped"])
        worst = max(worst, abs(opened - count_bos(store, row.cursor["rows"])))
    return worst


def shuffled(store: TokenStore, cursor: dict) -> list[int]:
    """The documents that a packer has read up to a cursor."""
    from nanochat.data.packing import Packer

    return Packer([store], [1.0], cursor["seed"]).order[: cursor["position"]]


def count_bos(store: TokenStore, number: int) -> int:
    """BOS tokens in the first so many rows."""
    found = itertools.islice(rows([store], bos=0, context=31, seed=3), number)
    return sum(int((row.ids == 0).sum()) for row in found)


def minhash_agrees_as_often_as_jaccard() -> float:
    """(6.1): over all orders of 7 shingles, how often two sets have the same smallest one, against their Jaccard."""
    one, two = {0, 1, 2, 3}, {2, 3, 4}
    orders = list(itertools.permutations(range(7)))
    same = sum(min(one, key=order.__getitem__) == min(two, key=order.__getitem__) for order in orders)
    return abs(Fraction(same, len(orders)) - Fraction(len(one & two), len(one | two)))


def bits_of_knowing_nothing() -> float:
    """(6.5): bits per byte of a model with equal logits, through `document_nats`, against log2 V / bytes a token."""
    model = small_model()
    with torch.no_grad():
        model.head.weight.zero_()
    ids, num_bytes = ((0, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 1), (0, 6, 6, 1)), (31, 9)
    nats = document_nats(model, Held(ids, num_bytes), Runtime(torch.device("cpu"), torch.float64))
    tokens = sum(len(document) - 1 for document in ids)
    measured = nats.sum() / math.log(2) / sum(num_bytes)
    return abs(measured - math.log2(7) / (sum(num_bytes) / tokens))


def windows_are_the_definition() -> float:
    """(6.4): `document_nats` of long documents against the chain rule token by token, each within its window."""
    model = small_model(context=6)
    draws = torch.Generator().manual_seed(2)
    documents = [(0, *torch.randint(1, 7, (length,), generator=draws).tolist()) for length in (3, 6, 7, 23)]
    held = Held(tuple(documents), tuple(len(ids) for ids in documents))
    nats = document_nats(model, held, Runtime(torch.device("cpu"), torch.float64), batch=2)
    worst = 0.0
    for ids, found in zip(documents, nats, strict=True):
        total = 0.0
        for place in range(1, len(ids)):
            # Windows start at 0, 3, 6, ...: the first that reaches a place is the one that scores it.
            start = 0 if place <= 6 else (place - 6 + 2) // 3 * 3
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:place]]))[0, -1]
            total -= float(logits.log_softmax(-1)[ids[place]])
        worst = max(worst, abs(total - found))
    return worst


def answers(model: GPT, prompt: list[int], end: int, longest: int) -> list[tuple[list[int], Tensor]]:
    """Every answer of up to `longest` tokens (it stops at `end`), with its log-probability as a tensor."""
    found: list[tuple[list[int], Tensor]] = []

    def grow(said: list[int], log_p: Tensor) -> None:
        if said and (said[-1] == end or len(said) == longest):
            found.append((said, log_p))
            return
        logits = model(torch.tensor([prompt + said]))[0, -1].log_softmax(-1)
        for token in range(model.config.vocab_size):
            grow([*said, token], log_p + logits[token])

    grow([], torch.zeros((), dtype=torch.float64))
    return found


def earned(said: list[int]) -> float:
    """A reward for the check: the share of 2s, and nothing without the end."""
    return said.count(2) / len(said) if said[-1] == 3 else 0.0


def policy_gradient() -> float:
    """(6.7): slopes of the expected reward over all answers, by finite differences, against E[R grad ln p]."""
    model = small_model(vocab_size=4)
    weights = list(model.parameters())

    def expected() -> float:
        with torch.no_grad():
            return float(sum(log_p.exp() * earned(said) for said, log_p in answers(model, [0, 1], end=3, longest=3)))

    found = answers(model, [0, 1], end=3, longest=3)
    exact = gradients(model, sum(log_p.exp().detach() * earned(said) * log_p for said, log_p in found))
    worst, h = 0.0, 1e-5
    for seed in range(5):
        direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        sizes = [weight.numel() for weight in weights]
        parts = [part.view_as(w) for w, part in zip(weights, direction.split(sizes), strict=True)]
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for weight, part in zip(weights, parts, strict=True):
                    weight += sign * h * part
            ends.append(expected())
        with torch.no_grad():
            for weight, part in zip(weights, parts, strict=True):
                weight += h * part
        worst = max(worst, abs((ends[0] - ends[1]) / (2 * h) - float(exact @ direction)))
    return worst


def baseline_is_free() -> float:
    """(6.8): E[b grad ln p] = 0 for a constant b, over all answers."""
    model = small_model(vocab_size=4)
    found = answers(model, [0, 1], end=3, longest=3)
    return float(gradients(model, sum(0.7 * log_p.exp().detach() * log_p for _, log_p in found)).abs().max())


def group_mean_shrinks() -> float:
    """(6.9): the expected gradient of groups of two answers against (1 - 1/2) of the true one, over all pairs."""
    model = small_model(vocab_size=3)
    found = answers(model, [0], end=2, longest=2)
    rewards = [said.count(1) / len(said) for said, _ in found]
    terms = torch.zeros((), dtype=torch.float64)
    for (i, (_, log_p)), (j, (_, log_q)) in itertools.product(enumerate(found), repeat=2):
        average, both = (rewards[i] + rewards[j]) / 2, (log_p + log_q).exp().detach()
        terms = terms + both * ((rewards[i] - average) * log_p + (rewards[j] - average) * log_q) / 2
    true = gradients(model, sum(log_p.exp() * reward for (_, log_p), reward in zip(found, rewards, strict=True)))
    return float((gradients(model, terms) - true / 2).abs().max())


def equal_rewards_teach_nothing() -> float:
    """The gradient of a batch whose answers all earned the same, weighted by the group's advantage."""
    model, batch = small_model(), drawn_batch()
    rewards = torch.full((6, 1), 0.6, dtype=torch.float64)
    weights = (rewards - rewards.mean()) * (batch.targets != IGNORE)
    return float(
        gradients(
            model,
            weighted_nll(model.features(batch.inputs), model.head, Batch(batch.inputs, batch.targets, weights, {})),
        )
        .abs()
        .max()
    )


def mask_is_conditional_likelihood() -> float:
    """(6.6): the loss of a masked conversation against -ln p(answer | question) by the chain rule."""
    model, question, answer = small_model(), [0, 4, 2, 6], [5, 5, 1, 3]
    ids = torch.tensor([question + answer])
    targets = torch.where(torch.arange(8)[None] >= len(question), ids, IGNORE)[:, 1:]
    batch = Batch(ids[:, :-1], targets, torch.ones(1, 7, dtype=torch.float64), {})
    with torch.no_grad():
        got = float(weighted_nll(model.features(batch.inputs), model.head, batch))
        said, total = list(question), 0.0
        for token in answer:
            total -= float(model(torch.tensor([said]))[0, -1].log_softmax(-1)[token])
            said.append(token)
    return abs(got - total)


def dpo_starts_at_ln_2() -> float:
    """(6.11): the loss of a policy that is its own reference is ln 2, and its gradient beta / 2 (grad l - grad w)."""
    model, beta = small_model(vocab_size=4), 0.3
    found = answers(model, [0, 1], end=3, longest=3)
    (_, good), (_, bad) = found[5], found[11]
    margin = beta * ((good - good.detach()) - (bad - bad.detach()))
    loss = -torch.nn.functional.logsigmoid(margin)
    error = abs(float(loss.detach()) - math.log(2))
    wanted = gradients(model, beta / 2 * (bad - good))
    (_, good), (_, bad) = answers(model, [0, 1], end=3, longest=3)[5], answers(model, [0, 1], end=3, longest=3)[11]
    margin = beta * ((good - good.detach()) - (bad - bad.detach()))
    got = gradients(model, -torch.nn.functional.logsigmoid(margin))
    return max(error, float((got - wanted).abs().max()))


def best_policy_of_a_reward() -> float:
    """(6.10): no law over 5 answers has a larger E[r] - beta KL than reference x exp(r / beta), by gradient = 0."""
    reward = torch.tensor([0.3, 1.0, -0.5, 0.0, 0.7], dtype=torch.float64)
    reference = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15], dtype=torch.float64)
    beta = 0.4
    best = (reference.log() + reward / beta).log_softmax(0).requires_grad_()
    p = best.softmax(0)
    value = (p * reward).sum() - beta * (p * (p / reference).log()).sum()
    (slope,) = torch.autograd.grad(value, best)
    # And the value there is beta ln Z, as the derivation says.
    z = (reference * (reward / beta).exp()).sum()
    return max(float(slope.abs().max()), abs(float(value.detach() - beta * z.log())))


def chance_is_zero() -> float:
    """(6.14): expected centred accuracy of guessing among 2, 4 and 10, and the mean of three by hand."""
    guessing = sum(abs((1 / k - 1 / k) / (1 - 1 / k)) for k in (2, 4, 10))
    by_hand = (Fraction(6, 10) - Fraction(1, 2)) / (1 - Fraction(1, 2)), (Fraction(1, 4) - Fraction(1, 4)), 1
    total = sum(by_hand) / 3
    return guessing + abs(float(total) - 0.4)


def wilson_solves_its_equation() -> float:
    """(6.12): both ends of the interval as roots of (share - p)^2 = z^2 p (1 - p) / n."""
    worst = 0.0
    for successes, n in ((1, 10), (3, 24), (35, 50), (766, 1000)):
        for p in wilson(successes / n, n):
            worst = max(worst, abs((successes / n - p) ** 2 - NORMAL**2 * p * (1 - p) / n))
        figure = proportion("", "", successes, n)
        worst = max(worst, float(not figure.low < successes / n < figure.high))
    return worst


def a_step_that_bf16_does_not_see() -> float:
    """(6.15): the largest x for which 1 + x is 1 in bfloat16, by halving, against 2^-8."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        same = bool(torch.tensor(1.0 + middle, dtype=torch.float64).bfloat16() == 1)
        low, high = (middle, high) if same else (low, middle)
    return abs(low - 2**-8)


def ring(parts: list[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """A ring all-reduce of one array for each process: (what each ends up with, the numbers that each has sent)."""
    n = len(parts)
    chunks = [np.array_split(part.copy(), n) for part in parts]
    sent = [0] * n
    for step in range(n - 1):  # sums travel: process r passes on chunk r - step
        moving = [(r, (r - step) % n, chunks[r][(r - step) % n].copy()) for r in range(n)]
        for r, which, data in moving:
            chunks[(r + 1) % n][which] += data
            sent[r] += data.size
    for step in range(n - 1):  # finished chunks travel
        moving = [(r, (r + 1 - step) % n, chunks[r][(r + 1 - step) % n].copy()) for r in range(n)]
        for r, which, data in moving:
            chunks[(r + 1) % n][which] = data
            sent[r] += data.size
    return [np.concatenate(own) for own in chunks], sent


def ring_sums_and_counts() -> float:
    """(6.16): a ring of 2 to 7 processes gives every one the sum, and each sends 2 (n - 1) / n of the array."""
    worst = 0.0
    for n in range(2, 8):
        parts = [np.random.default_rng(r).normal(size=420) for r in range(n)]
        sums, sent = ring(parts)
        worst = max(worst, *(float(np.abs(own - sum(parts)).max()) for own in sums))
        worst = max(worst, *(abs(count - 2 * (n - 1) / n * 420) for count in sent))
    return worst


def best_size_for_compute() -> float:
    """(6.18): the closed form of the best N at C = 6 N D against a search, for Hoffmann's law."""
    error, a, b, alpha, beta = 1.69, 406.4, 410.7, 0.34, 0.28
    worst = 0.0
    for compute in (1e16, 1e20, 5.76e23):
        closed = (alpha * a / (beta * b) * (compute / 6) ** beta) ** (1 / (alpha + beta))
        grid = np.log(closed) + np.linspace(-1, 1, 200_001)
        size = np.exp(grid)
        loss = error + a / size**alpha + b / (compute / 6 / size) ** beta
        worst = max(worst, abs(float(grid[np.argmin(loss)]) - math.log(closed)))
    return worst


def flops_by_counting() -> float:
    """(6.17): 6 N + 12 L d T against torch's counter of products, forward and backward, for a small model."""
    from torch.utils.flop_counter import FlopCounterMode

    config = GPTConfig(50, n_layer=2, n_head=4, n_kv_head=1, n_embd=64, context=32)
    model = GPT(config)
    torch.nn.init.normal_(model.head.weight)
    ids = torch.randint(50, (3, 32), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model.logits(model.features(ids)).sum().backward()
    products = 6.0 * num_multiplied(config)
    # The counter may or may not see the attention kernel's own products: without them it must find 6 N exactly.
    found = counter.get_flop_counts()["Global"]
    linear = sum(count for name, count in found.items() if name.__name__.startswith(("mm", "addmm")))
    assert flops_per_token(config) == products + 12.0 * 2 * 64 * 32
    return abs(linear / ids.numel() / products - 1)


def paired_spread() -> float:
    """(6.13): the variance of a difference on the same questions, by all pairs of outcomes, against the formula."""
    both, first, second, neither = 0.6, 0.12, 0.08, 0.2
    values = [(0, both + neither), (1, first), (-1, second)]
    average = sum(v * p for v, p in values)
    variance = sum((v - average) ** 2 * p for v, p in values)
    return abs(variance - (first + second - (first - second) ** 2))


def student_is_wider() -> float:
    """The t interval of `mean` for three values against the textbook's 4.303 standard errors."""
    figure = mean("", "", [1.0, 2.0, 4.0], "")
    spread = float(np.std([1.0, 2.0, 4.0], ddof=1)) / math.sqrt(3)
    return abs((figure.high - figure.value) / spread - 4.302652729911275)
