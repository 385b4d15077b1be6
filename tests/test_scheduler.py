"""The scheduler against the engine: whoever comes, leaves and waits beside it, an answer is the engine's own."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from nanochat.decoder import PlainDecoder, Run
from nanochat.engine import Engine, Piece, Sampling
from nanochat.errors import BusyError, ClosedError, UsageError
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.scheduler import Event, Scheduler
from nanochat.tools import Calculator
from tests.scripted import CALL, CALLED, START, TOKENIZER, Scripted, said, saying
from tests.test_engine import full_logits, quiet, random_model

PROMPTS = [[START, *text.encode()] for text in ("a", "How do I boil an egg?", "Tell me about bread", "x" * 90)]
RUNTIME = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Gate:
    """A model that waits before each pass until it is let through: so that a test decides who meets whom."""

    def __init__(self, model: GPT | Scripted) -> None:
        self.model, self.config, self.open = model, model.config, threading.Event()
        self.logits, self.empty_cache = model.logits, model.empty_cache
        self.read: list[tuple[int, ...]] = []

    def features(self, ids: Tensor, cache: object = None) -> Tensor:
        assert self.open.wait(60)
        self.read.append(tuple(ids.shape))
        return self.model.features(ids, cache)  # type: ignore[arg-type]


def asking(model: object, **settings: object) -> Scheduler:
    engine = Engine(model, TOKENIZER, RUNTIME, {"calculator": Calculator()})  # type: ignore[arg-type]
    return Scheduler(engine, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("kv_heads", "has_extras"), [(4, False), (1, True)], ids=["plain", "extras"])
def test_answers_are_those_of_the_engine(kv_heads: int, has_extras: bool, deterministic: bool) -> None:
    """Twelve answers in three slots, of different laws and lengths: they come and go beside each other."""
    model = random_model(kv_heads, torch.float64, has_extras=has_extras)
    engine = Engine(model, TOKENIZER, RUNTIME)
    laws = [
        Sampling(max_tokens=40, seed=1),
        Sampling(temperature=0, max_tokens=25),
        Sampling(temperature=0.7, top_k=9, top_p=0.9, max_tokens=9, seed=2, logprobs_of="model"),
    ]
    scheduler = asking(model, slots=3, deterministic=deterministic)
    tickets = [scheduler.submit(PROMPTS[row % 4], laws[row % 3], row=row) for row in range(12)]
    found = [ticket.wait() for ticket in tickets]
    scheduler.close()
    for row, answer in enumerate(found):
        (expected,) = engine.generate([PROMPTS[row % 4]], laws[row % 3], rows=[row])
        assert (answer.ids, answer.finish, answer.text) == (expected.ids, expected.finish, expected.text)
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-9)
    assert len({tuple(answer.ids) for answer in found}) == 12


def test_watched_pieces_are_those_that_the_engine_streams() -> None:
    model = random_model()
    sampling = Sampling(max_tokens=20, seed=5, stop=("e",))
    scheduler = asking(model, slots=2)
    ticket = scheduler.submit(PROMPTS[1], sampling, row=3, watched=True)
    found = list(ticket.pieces())
    scheduler.close()
    expected = list(Engine(model, TOKENIZER, RUNTIME).stream(PROMPTS[1], sampling, row=3))
    assert [(p.id, p.text, p.finish) for p in found] == [(p.id, p.text, p.finish) for p in expected]
    assert [p.entropy for p in found] == pytest.approx([p.entropy for p in expected])
    assert [[a[0] for a in p.alternatives] for p in found] == [[a[0] for a in p.alternatives] for p in expected]


def test_a_turn_reads_only_what_is_new() -> None:
    """The next prompt begins with the last one and its answer, as in a conversation."""
    model = quiet(random_model())
    scheduler = asking(model, slots=2)
    first = scheduler.submit(PROMPTS[1], Sampling(max_tokens=30)).wait()
    longer = [*PROMPTS[1], *first.ids, *PROMPTS[2]]
    ticket = scheduler.submit(longer, Sampling(max_tokens=20))
    answer = ticket.wait()
    scheduler.close()
    # The last token of an answer is not read unless somebody goes on from it.
    assert ticket.num_reused == len(PROMPTS[1]) + len(first.ids) - 1
    assert scheduler.load().tokens_read == len(longer) - 1 + 20
    assert answer.ids == Engine(model, TOKENIZER, RUNTIME).generate([longer], Sampling(max_tokens=20))[0].ids


def test_samples_of_one_prompt_read_it_once() -> None:
    gate = Gate(quiet(random_model()))
    scheduler = asking(gate, slots=4)
    tickets = scheduler.samples(PROMPTS[3], 4, Sampling(max_tokens=5))
    gate.open.set()
    found = [ticket.wait() for ticket in tickets]
    scheduler.close()
    assert [ticket.num_reused for ticket in tickets] == [0, *[len(PROMPTS[3]) - 1] * 3]
    expected = Engine(gate.model, TOKENIZER, RUNTIME).generate([PROMPTS[3]] * 4, Sampling(max_tokens=5))
    assert [a.ids for a in found] == [b.ids for b in expected]


def test_a_prompt_is_scored_as_one_pass_scores_it() -> None:
    model = random_model()
    scheduler = asking(model, slots=2)
    beside = scheduler.submit(PROMPTS[2], Sampling(max_tokens=30))
    long = (PROMPTS[3] + PROMPTS[1] + PROMPTS[2])[:150]
    scheduler.submit(long).wait()  # what is held already is read anew to be scored
    ticket = scheduler.score(long, alternatives=3)
    assert (ticket.wait().ids, list(beside.pieces()) != []) == ([], True)
    scheduler.close()
    log_p = full_logits(model, long).log_softmax(dim=-1)[:-1]
    expected = log_p.gather(1, torch.tensor(long[1:])[:, None]).squeeze(1)
    assert [score.id for score in ticket.prompt_scores] == long[1:]
    assert [score.logprob for score in ticket.prompt_scores] == pytest.approx(expected.tolist(), abs=1e-9)
    best = log_p.topk(3).indices.tolist()
    assert [[token for token, _, _ in score.alternatives] for score in ticket.prompt_scores] == best


def test_a_prompt_that_fills_the_context_is_scored_and_gets_no_piece() -> None:
    scheduler = asking(random_model(context=40), slots=1)
    ticket = scheduler.submit(list(range(40)), scored=True)
    assert (ticket.wait().finish, len(ticket.prompt_scores)) == ("length", 39)
    scheduler.close()


def test_tools_answer_or_calls_are_handed_over() -> None:
    script = said(CALL, "calculator 6*7", CALLED, "So 42.")
    scheduler = asking(saying(script), slots=2)
    answered = scheduler.submit([0, START]).wait()
    handed = scheduler.submit([0, START], hands_over_calls=True).wait()
    scheduler.close()
    assert (answered.finish, answered.text) == ("stop", "So 42.")
    assert "42" in TOKENIZER.decode(answered.ids).removesuffix("So 42.")
    assert (handed.finish, handed.ids) == ("call", said(CALL, "calculator 6*7", CALLED))


def test_a_full_queue_refuses_and_takes_none_of_several() -> None:
    gate = Gate(random_model())
    scheduler = asking(gate, slots=1, queue=3)
    running = scheduler.submit(PROMPTS[0])
    while scheduler.load().running == 0:
        pass
    scheduler.submit(PROMPTS[0])
    with pytest.raises(BusyError, match="at most 3 waiting; got 1 waiting and 3 more"):
        scheduler.samples(PROMPTS[0], 3)
    assert scheduler.load().waiting == 1
    gate.open.set()
    assert running.wait().finish
    scheduler.close()


def test_cancelled_answers_make_room() -> None:
    """One that runs, one that waits, and one whose caller stops listening: the last one goes on to its end."""
    gate = Gate(quiet(random_model()))
    gate.open.set()
    scheduler = asking(gate, slots=1)
    running, waiting = scheduler.submit(PROMPTS[3]), scheduler.submit(PROMPTS[0])
    leaving, last = scheduler.submit(PROMPTS[2]), scheduler.submit(PROMPTS[1], Sampling(max_tokens=8))
    waiting.cancel()
    came = [piece for piece, _ in zip(running.pieces(), range(2), strict=False)]
    running.cancel()
    assert len(came) == 2
    for _ in leaving.pieces():
        break
    assert len(last.wait().ids) == 8
    assert waiting.has_ended
    with pytest.raises(ClosedError, match="cancelled"):
        waiting.wait()
    scheduler.close()
    assert running.completion is None
    assert leaving.completion is None


def test_a_listener_hears_every_piece_once_and_then_the_end() -> None:
    scheduler = asking(quiet(random_model()), slots=2)
    heard: list[Event] = []
    ended = threading.Event()

    def listen(event: Event) -> None:
        heard.append(event)
        if event is None:
            ended.set()

    ticket = scheduler.submit(PROMPTS[0], Sampling(max_tokens=30))
    while not ticket.unheard:
        pass
    ticket.listen(listen)
    assert ended.wait(60)
    scheduler.close()
    assert ticket.completion is not None
    assert [event.id for event in heard if isinstance(event, Piece)] == ticket.completion.ids
    assert heard[-1] is None
    assert len(heard) == 31


def test_a_listener_that_fails_takes_nobody_with_it() -> None:
    def gone(event: Event) -> None:
        raise RuntimeError("the loop is closed")

    gate = Gate(quiet(random_model()))
    scheduler = asking(gate, slots=2)
    lost, other = scheduler.submit(PROMPTS[0]), scheduler.submit(PROMPTS[1], Sampling(max_tokens=5))
    lost.listen(gone)
    gate.open.set()
    assert len(other.wait().ids) == 5
    scheduler.close()
    assert lost.completion is None


@pytest.mark.parametrize("drain", [True, False])
def test_closing_finishes_what_was_taken_or_drops_it(drain: bool) -> None:
    gate = Gate(quiet(random_model()))
    scheduler = asking(gate, slots=1)
    tickets = [scheduler.submit(PROMPTS[0], Sampling(max_tokens=5)) for _ in range(3)]
    closing = threading.Thread(target=scheduler.close, args=(drain,))
    closing.start()
    while not scheduler.is_closing:
        pass
    with pytest.raises(ClosedError):
        scheduler.submit(PROMPTS[0])
    gate.open.set()
    closing.join(60)
    assert not scheduler.thread.is_alive()
    assert [ticket.completion is not None for ticket in tickets] == [drain] * 3
    assert [len(list(ticket.pieces())) for ticket in tickets[1:]] == [5 * drain] * 2


LEAVING = """
import sys, time, torch
from nanochat.engine import Engine, Sampling
from nanochat.decoder import PlainDecoder
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from tests.scripted import START, TOKENIZER
from tests.test_engine import random_model
engine = Engine(random_model(), TOKENIZER, Runtime(torch.device("cpu"), torch.float32, threads=1))
scheduler = Scheduler(engine, 2, 99, decoder=PlainDecoder(engine, 2))
tickets = [scheduler.submit([START, 65], Sampling(max_tokens=300, seed=n), watched=True) for n in range(90)]
while scheduler.load().tokens_drawn < 3:
    time.sleep(0.01)
sys.exit(3)
"""


def test_a_process_may_end_while_answers_are_written() -> None:
    """Without the scheduler's leave-taking such a process ends by `abort`, more often than not: so twice."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (3, "")


def test_a_failing_model_fails_every_answer_and_closes() -> None:
    def says(known: list[int]) -> int:
        raise ArithmeticError("out of order")

    scheduler = asking(Scripted(says), slots=1)
    tickets = []
    for _ in range(2):
        try:
            tickets.append(scheduler.submit([0, START]))
        except ClosedError:
            break
    for ticket in tickets:
        with pytest.raises(ArithmeticError):
            ticket.wait()
    scheduler.thread.join(60)
    with pytest.raises(ClosedError, match="out of order"):
        scheduler.submit([0, START])
    scheduler.close()


def test_a_long_prompt_stops_nobody() -> None:
    """While 2,000 tokens are read, the other answer gets a token in every step."""
    gate = Gate(quiet(random_model(context=2100)))
    scheduler = asking(gate, slots=2)
    short = scheduler.submit(PROMPTS[0], Sampling(max_tokens=12))
    long = scheduler.submit(list(range(250)) * 8, Sampling(max_tokens=1))
    gate.open.set()
    short.wait()
    assert not long.has_ended
    long.wait()
    scheduler.close()


def test_a_client_with_many_requests_does_not_keep_others_waiting() -> None:
    gate = Gate(quiet(random_model()))
    scheduler = asking(gate, slots=2)
    order: list[str] = []
    law = Sampling(max_tokens=6)
    tickets = [(f"greedy {n}", scheduler.submit(PROMPTS[0], law, client="greedy")) for n in range(5)]
    tickets += [("modest", scheduler.submit(PROMPTS[0], law, client="modest"))]
    for name, ticket in tickets:
        ticket.listen(lambda event, name=name: order.append(name) if event is None else None)  # type: ignore[misc]
    gate.open.set()
    scheduler.close()
    assert order.index("modest") <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fixed_slots_give_the_same_bits_in_any_company(dtype: torch.dtype) -> None:
    """Log-probabilities to the last bit: alone, in a full house, and in another slot."""
    shape = GPTConfig(vocab_size=267, n_layer=2, n_head=4, n_kv_head=2, n_embd=64, context=160)
    model = GPT(shape, dtype)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2)
    engine = Engine(quiet(model), TOKENIZER, Runtime(torch.device("cpu"), dtype))
    law = Sampling(max_tokens=30, seed=9)
    found = []
    for before, after in ((0, 0), (3, 4), (6, 1)):
        scheduler = Scheduler(engine, decoder=PlainDecoder(engine, 8, is_fixed=True), deterministic=True)
        for row in range(before):
            scheduler.submit(PROMPTS[row % 4], Sampling(max_tokens=50), row=100 + row)
        ticket = scheduler.submit(PROMPTS[1], law, row=7)
        for row in range(after):
            scheduler.submit(PROMPTS[row % 4], Sampling(max_tokens=50), row=200 + row)
        answer = ticket.wait()
        scheduler.close(drain=False)
        found.append((answer.ids, answer.logprobs))
    assert found[0] == found[1] == found[2]


def test_requests_that_cannot_be_answered_are_refused_at_once() -> None:
    scheduler = asking(random_model(), slots=1)
    with pytest.raises(UsageError, match="token ids from 0 to 266; got 267"):
        scheduler.submit([START, 267])
    with pytest.raises(UsageError, match="a prompt of 1 to 160 tokens"):
        scheduler.submit([])
    with pytest.raises(UsageError, match="0 or more alternatives"):
        scheduler.submit([START], alternatives=-1)
    scheduler.close()
    with pytest.raises(UsageError, match="at least one slot"):
        asking(random_model(), slots=0)


@pytest.mark.parametrize("is_fixed", [False, True])
def test_a_slot_goes_on_from_any_token_that_it_holds(is_fixed: bool) -> None:
    """Read, take back, copy, read on: the scores are those of one pass over what the slot then holds."""
    model = random_model(2, has_extras=True)
    decoder = PlainDecoder(Engine(model, TOKENIZER, RUNTIME), slots=3, chunk=16, is_fixed=is_fixed)
    ids = torch.randint(0, 256, (80,), generator=torch.Generator().manual_seed(0)).tolist()

    def check(slot: int, kept: Sequence[int], new: Sequence[int], scored: int) -> None:
        with torch.no_grad():
            found = decoder.read([Run(slot, len(kept), new, scored)])
        whole = full_logits(model, [*kept, *new])
        torch.testing.assert_close(found.double(), whole[len(whole) - scored :], atol=1e-9, rtol=0)

    check(1, [], ids[:40], 3)
    check(1, ids[:40], ids[70:71], 1)
    decoder.copy(1, 0, 30)
    check(0, ids[:30], ids[50:60], 10)
    check(1, ids[:20], ids[60:79], 2)
    check(0, [*ids[:30], *ids[50:60]], ids[:1], 1)
