"""Guesses by look-up: what they are, that they are right where an answer copies, and that they change no answer."""

import math

import torch

from nanochat.decoder import PlainDecoder
from nanochat.engine import Engine, Sampling
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from nanochat.speculation import PAUSE, Lookup
from tests.scripted import CALL, CALLED, END, START, TOKENIZER, Scripted, said, saying
from tests.test_engine import full_logits, quiet, random_model

RUNTIME = Runtime(torch.device("cpu"), torch.float64)
RECIPE = "Beat two eggs, stir in 3 cups of flour and a pinch of salt, then fry each side for 2 minutes."


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
    model = quiet(random_model(2, has_extras=True))
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
        assert scheduler.load().tokens_guessed > 10


def test_guessed_tokens_come_as_often_as_the_softmax_says() -> None:
    """Pearson's chi-square over the second token of an answer whose prompt makes a guess for it.

    The token is drawn after a guessed one: its scores were computed before the first was drawn.
    """
    model = random_model()
    first = int(full_logits(model, PAIR).argmax())
    prompt = [START, *b"xyz", first, 80, *b"xyz"]
    p_first = full_logits(model, prompt)[-1].softmax(-1)
    expected = full_logits(model, [*prompt, first])[-1].softmax(-1)
    scheduler = guessing(model, spare=12)
    count, seen, guessed = 3000, torch.zeros(267), 0
    for seed in range(0, count, 60):
        tickets = [scheduler.submit(prompt, Sampling(max_tokens=2, seed=seed + n)) for n in range(60)]
        for ticket in tickets:
            ids = ticket.wait().ids
            if ids[0] == first and len(ids) == 2:
                seen[ids[1]] += 1
    guessed = scheduler.load().tokens_guessed
    scheduler.close()
    total = seen.sum()
    assert guessed >= total > 100 or p_first[first] < 0.05
    expected = expected * total
    common = expected >= 5
    freedom = int(common.sum())
    rest = (seen[~common].sum() - expected[~common].sum()) ** 2 / expected[~common].sum()
    statistic = (((seen - expected)[common] ** 2 / expected[common]).sum() + rest).item()
    assert freedom >= 5
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


PAIR = [START, *b"xyz"]


def test_rows_that_need_the_pass_leave_no_room_for_guesses() -> None:
    model = Scripted(lambda known: 65 + len(known) % 3)
    scheduler = guessing(model, spare=2)
    tickets = [scheduler.submit([0, START, *b"ABCABC"], Sampling(max_tokens=20)) for _ in range(2)]
    assert all(len(ticket.wait().ids) == 20 for ticket in tickets)
    scheduler.close()
