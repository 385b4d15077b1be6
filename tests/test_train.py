"""The one loop: a golden curve, micro-batches, steps with nothing to learn, numbers that are not finite."""

from itertools import islice

import pytest
import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.keyed import key
from nanochat.loss import IGNORE
from nanochat.optim import build_optimizer, trapezoid
from nanochat.train import Batch, train

CONFIG = GPTConfig(vocab_size=61, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, context=24)
# Twenty steps of the small run below, in float64 on one thread: no refactoring may move them.
GOLDEN = [
    4.109929117, 4.050138265, 4.042780466, 3.811355278, 3.823132944, 3.609014544, 3.494800248, 3.298298019,
    3.024862847, 3.047421323, 2.538234483, 2.712685210, 2.637496688, 2.709841147, 2.201603415, 2.336480866,
    2.377052621, 2.301979883, 2.332384415, 2.012684299,
]  # fmt: skip


def parts(dtype=torch.float64):
    model = GPT(CONFIG, dtype).to(torch.float64 if dtype == torch.float64 else torch.float32)
    model.init_weights(1)
    return model, build_optimizer(model, matrix_lr=0.02, embedding_lr=0.1, head_lr=0.01, matrix_decay=0.1, dtype=dtype)


def batches(rows=4, start=0):
    """Sequences that a model can learn: each token is the one before plus a step that the row keeps."""
    at = start
    while True:
        draws = torch.Generator().manual_seed(key("toy", at))
        first, step = (torch.randint(0, 61, (rows, 1), generator=draws) for _ in range(2))
        ids = (first + (1 + step % 3) * torch.arange(25)) % 61
        at += 1
        yield Batch(ids[:, :-1], ids[:, 1:].clone(), torch.ones(rows, 24), {"next": at})


def losses(steps=20, start=0, **more):
    model, optimizer = parts()
    run = train(model, optimizer, batches(start=start), trapezoid(20, 2, 10), steps=steps, **more)
    return [step.loss for step in run], model, optimizer


def test_a_golden_curve_that_no_refactoring_may_move():
    got, _, _ = losses()
    assert got == pytest.approx(GOLDEN, abs=1e-6)
    assert got[-1] < got[0] - 0.5


def test_cutting_a_step_into_micro_batches_changes_nothing():
    wholes = list(islice(batches(rows=8), 5))
    halves = [
        Batch(b.inputs[i : i + 4], b.targets[i : i + 4], b.weights[i : i + 4], b.cursor) for b in wholes for i in (0, 4)
    ]
    # Uneven micro-batches are what a mean of means gets wrong.
    for batch in (*wholes, *halves):
        batch.targets[:3, 5:] = IGNORE
    results = []
    for stream, accumulate in ((wholes, 1), (halves, 2)):
        # The masks of a whole and of its halves must be the same ones.
        model, optimizer = parts()
        results.append(
            [s.loss for s in train(model, optimizer, iter(stream), lambda _: 1.0, steps=5, accumulate=accumulate)]
        )
    assert results[0] == pytest.approx(results[1], abs=1e-9)


def test_the_first_step_reports_what_it_did():
    model, optimizer = parts()
    step = next(train(model, optimizer, batches(), lambda _: 0.5, steps=3))
    assert (step.index, step.tokens, step.learned, step.lr, step.skipped) == (0, 96, 96, 0.5, "")
    assert step.loss == pytest.approx(torch.log(torch.tensor(61.0)).item(), abs=1e-3)
    assert step.cursor == {"next": 1}
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.005, 0.01]


@pytest.mark.parametrize("what", ["targets", "weights"])
def test_a_step_with_nothing_to_learn_changes_nothing_and_says_so(what):
    model, optimizer = parts()
    before = [weight.detach().clone() for weight in model.parameters()]
    batch = next(batches())
    getattr(batch, what).fill_(IGNORE if what == "targets" else 0)
    step = next(train(model, optimizer, iter([batch]), lambda _: 1.0, steps=1))
    assert step.skipped == "nothing to learn"
    assert step.loss == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_step_that_is_not_finite_changes_nothing_and_says_so():
    model, optimizer = parts()
    stream = list(islice(batches(), 2))
    stream[0].weights[0, 0] = float("inf")
    before = [weight.detach().clone() for weight in model.parameters()]
    run = train(model, optimizer, iter(stream), lambda _: 1.0, steps=2)
    step = next(run)
    assert step.skipped == "not finite"
    assert step.norms.keys() == dict(model.named_parameters()).keys()
    weight, gradient = step.norms["head.weight"]
    assert weight == pytest.approx(float(before[list(step.norms).index("head.weight")].norm()))
    assert not gradient < float("inf")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    step = next(run)
    assert (step.skipped, step.norms) == ("", {})
    assert not torch.equal(before[0], next(iter(model.parameters())))


def test_a_row_that_teaches_nothing_is_no_nan():
    """The most reported bug of its kind: a chat row whose targets are all masked, 0 divided by 0."""
    model, optimizer = parts()
    batch = next(batches())
    batch.targets[0] = IGNORE
    step = next(train(model, optimizer, iter([batch]), lambda _: 1.0, steps=1))
    assert step.learned == 72
    assert step.loss == pytest.approx(4.11, abs=0.01)


def test_the_loop_ends_where_its_batches_do():
    model, optimizer = parts()
    assert len(list(train(model, optimizer, islice(batches(), 3), lambda _: 1.0, steps=10))) == 3


def test_resuming_in_the_middle_gives_the_same_numbers():
    whole, model, _ = losses()
    first, early, optimizer = losses(steps=8)
    second = [s.loss for s in train(early, optimizer, batches(start=8), trapezoid(20, 2, 10), steps=20, start=8)]
    assert first + second == whole
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), early.parameters(), strict=True))
