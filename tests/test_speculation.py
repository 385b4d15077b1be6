"""Guesses by look-up: what they are, that they are right where an answer copies, and that they change no answer."""

import math
from collections.abc import Iterator

import pytest
import torch

from nanochat.decoder import PlainDecoder
from nanochat.engine import Engine, Sampling
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from nanochat.speculation import PAUSE, Lookup
from tests.scripted import CALL, CALLED, END, START, TOKENIZER, Scripted, said, saying
from tests.test_engine import full_logits, random_model

RUNTIME = Runtime(torch.device("cpu"), torch.float64)
RECIPE = "Beat two eggs, stir in 3 cups of flour and a pinch of salt, then fry each side for 2 minutes."


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def guessing(model: object, spare: int = 12) -> Scheduler:
    engine = Engine(model, TOKENIZER, RUNTIME)  # type: ignore[arg-type]
    decoder = PlainDecoder(engine, 2)
    decoder.spare = spare
    return Scheduler(engine, 2, decoder=decoder)


def test_guesses_are_what_followed_the_last_time() -> None:
    row = Lookup()
    row.extend([1, 2, 3, 4, 1, 2, 3, 5, 6])
    assert row.guess(8) == []
    row.extend([1, 2, 3])
    assert row.guess(8) == [5, 6, 1, 2]
    assert row.guess(1) == [5]
    row.learn(4, 4)
    assert row.guess(8) == [5, 6, 1, 2, 3]
    for _ in range(3):
        row.learn(4, 0)
    assert row.guess(8) == []
    row.extend([9] * PAUSE)
    assert row.guess(8) != []


def test_an_answer_that_copies_takes_few_passes() -> None:
    script = said(RECIPE)
    scheduler = guessing(saying(script))
    answer = scheduler.submit([0, *script, START]).wait()
    scheduler.close()
    load = scheduler.load()
    assert (answer.text, answer.finish) == (RECIPE, "stop")
    assert load.tokens_guessed >= 0.8 * len(script)
    assert load.steps <= 0.3 * len(script)


def test_wrong_guesses_change_nothing() -> None:
    """The prompt tempts: the answer leaves it every few tokens, calls a tool in between and ends while guesses wait."""
    script = said("Beat two eggs, stir in 4 cups of flour ", CALL, "calculator 1+1", CALLED, "and a pinch of salt.")
    scheduler = guessing(saying(script))
    prompt = [0, *said(RECIPE, START)]
    answer = scheduler.submit(prompt).wait()
    (expected,) = Engine(saying(script), TOKENIZER, RUNTIME).generate([prompt])
    limited = scheduler.submit(prompt, Sampling(max_tokens=17)).wait()
    scheduler.close()
    assert answer == expected
    assert answer.ids[-1] == END
    assert (limited.ids, limited.finish) == (expected.ids[:17], "length")
    assert scheduler.load().tokens_guessed > 0


def test_answers_with_guesses_are_the_answers_without() -> None:
    """On a real model that says things again and again, to the end of the context."""
    model = random_model(2, has_extras=True)
    of_all = model.logits

    def logits(features: torch.Tensor) -> torch.Tensor:
        """Only a, b and c."""
        scores = of_all(features).clone()
        scores[..., [*range(97), *range(100, 267)]] = -30.0
        return scores

    model.logits = logits  # type: ignore[method-assign]
    prompt = [START, *b"abcabcabcabcabcabc"]
    engine = Engine(model, TOKENIZER, RUNTIME)
    for law in (Sampling(temperature=0), Sampling(temperature=0.3, seed=2)):
        scheduler = guessing(model)
        found = [ticket.wait() for ticket in scheduler.samples(prompt, 2, law)]
        scheduler.close()
        for row, answer in enumerate(found):
            (expected,) = engine.generate([prompt], law, rows=[row])
            assert answer.ids == expected.ids
            assert [round(value, 7) for value in answer.logprobs] == [round(value, 7) for value in expected.logprobs]
        assert scheduler.load().tokens_guessed >= 5


def test_guessed_tokens_come_as_often_as_the_softmax_says() -> None:
    """Pearson's chi-square over a token that follows a guessed one: its scores came from the same pass."""
    model, draws = random_model(dtype=torch.float32), torch.Generator().manual_seed(0)
    tempting = [[START, *b"xyz", first, 80, *b"xyz"] for first in torch.randperm(256, generator=draws)[:64].tolist()]
    chance = [full_logits(model, prompt)[-1].div(0.5).softmax(-1)[prompt[4]].item() for prompt in tempting]
    prompt = tempting[chance.index(max(chance))]
    count, first = 2000, prompt[4]
    scheduler = guessing(model)
    seen = torch.zeros(267)
    for start in range(0, count, 50):
        laws = [Sampling(temperature=0.5, max_tokens=2, seed=start + n) for n in range(50)]
        for ids in [ticket.wait().ids for ticket in [scheduler.submit(prompt, law) for law in laws]]:
            if ids[0] == first:
                seen[ids[1]] += 1
    scheduler.close()
    # Whatever followed the guessed token was drawn from the row of scores behind it.
    assert scheduler.load().tokens_guessed >= seen.sum() >= 100
    expected = full_logits(model, [*prompt, first])[-1].div(0.5).softmax(-1) * seen.sum()
    common = expected >= 5
    freedom = int(common.sum())
    rest = (seen[~common].sum() - expected[~common].sum()) ** 2 / expected[~common].sum()
    statistic = (((seen - expected)[common] ** 2 / expected[common]).sum() + rest).item()
    assert freedom >= 4
    # The value that chance exceeds once in a thousand (Wilson and Hilferty 1931).
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def test_rows_that_need_the_pass_leave_no_room_for_guesses() -> None:
    model = Scripted(lambda known: 65 + len(known) % 3)
    scheduler = guessing(model, spare=2)
    tickets = [scheduler.submit([0, START, *b"ABCABC"], Sampling(max_tokens=20)) for _ in range(2)]
    assert all(len(ticket.wait().ids) == 20 for ticket in tickets)
    scheduler.close()
