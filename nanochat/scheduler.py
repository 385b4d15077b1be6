"""Continuous batching: one model answers many callers at once, and each answer joins and leaves between two steps.

    scheduler = Scheduler(engine, slots=16, queue=64)
    ticket = scheduler.submit(prompt_ids, Sampling(max_tokens=100), row=0)
    for piece in ticket.pieces():        # blocks; `ticket.listen(callback)` is for event loops
        print(piece.text, end="")
    scheduler.close(drain=True)

One thread owns the model and a cache of slots (Orca, Yu et al., OSDI 2022). Between two steps answers that ended make
room, waiting ones move in, and those that were cancelled are dropped. A step reads the newest token of every answer,
and beside them a share of the prompts that are still to be read, so that a long prompt stops nobody
(arXiv:2308.16369). Whatever a prompt has in common with what a slot holds or held is not read again: the turns before
in a conversation, or the prompt of several samples. The answer is the one that `Engine.stream` gives.
"""

import atexit
import queue as queues
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, Unpack

import torch

from nanochat.answer import Answer, Completion, Drawn, Piece
from nanochat.decoder import CHUNK, Decoder, Run
from nanochat.engine import SHOWN, Engine, describe, draw_tokens
from nanochat.errors import BusyError, ClosedError, UsageError
from nanochat.fast import decoder_for
from nanochat.sampling import Sampling
from nanochat.speculation import Lookup

__all__ = ["Event", "Load", "Scheduler", "Ticket", "Wishes"]

Event = Piece | Exception | None  # None: the answer has ended
Listener = Callable[[Event], None]

SHARED = 16  # a common beginning of fewer tokens is not worth a copy, nor to wait for


class Wishes(TypedDict, total=False):
    """What may be asked of an answer besides how it is drawn."""

    watched: bool  # pieces come with their entropy and with alternatives
    alternatives: int  # how many; by default 5
    scored: bool  # fill `Ticket.prompt_scores`; all of the prompt is read anew for it
    hands_over_calls: bool  # a call of a tool ends the answer (finish "call"), for the caller to run
    forced: Sequence[int]  # tokens that the answer begins with, as if they had been drawn
    client: str  # of those that wait, whose client has the fewest answers running goes first


@dataclass(frozen=True)
class Load:
    """How busy a scheduler is now, and what it has done since its start."""

    running: int
    waiting: int
    steps: int
    tokens_drawn: int
    tokens_read: int
    tokens_reused: int  # of prompts, found in a slot instead of read
    tokens_guessed: int  # of those drawn, guessed right: they took no pass of their own


class Ticket:
    """One answer that was asked for. All methods may be called from any thread.

    `completion` is there when it has ended, and None where it was cancelled or failed. `prompt_scores` is filled
    before the first piece where it was asked for: the i-th entry tells how likely token i + 1 of the prompt was after
    those before it, by the model's own distribution, with the alternatives.
    """

    def __init__(self, answer: Answer, wishes: Wishes) -> None:
        self.answer = answer
        self.shown = wishes.get("alternatives", SHOWN) if wishes.get("watched") else None
        self.scored, self.client = wishes.get("scored", False), wishes.get("client", "")
        self.prompt_scores: list[Drawn] = []
        self.num_reused = 0  # tokens of the prompt that a slot held already
        self.completion: Completion | None = None
        self.lookup = Lookup()
        self.is_cancelled = self.has_ended = False
        self.lock = threading.Lock()
        self.unheard: list[Event] = []
        self.listener: Listener | None = None

    def pieces(self) -> Generator[Piece, None, None]:
        """The answer's pieces as they come; raises what stopped it. Leaving the loop early cancels the answer."""
        arrived: queues.SimpleQueue[Event] = queues.SimpleQueue()
        self.listen(arrived.put)
        try:
            while (event := arrived.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.cancel()

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with every piece, and at last with None, or with the error that ended the answer.

        What came before is told at once, in the caller's thread; all else in the scheduler's, so it must be quick
        (for asyncio: `lambda event: loop.call_soon_threadsafe(queue.put_nowait, event)`). One that raises cancels the
        answer. A ticket has one listener.
        """
        with self.lock:
            assert self.listener is None, "somebody listens to this ticket already"
            self.listener = listener
            for event in self.unheard:
                listener(event)
            self.unheard.clear()

    def cancel(self) -> None:
        """End the answer, if it has not ended: its listener hears None. What came until then stays valid."""
        self.is_cancelled = True

    def wait(self) -> Completion:
        """The whole answer, when it has ended. Raises what stopped it, and ClosedError where it was cancelled."""
        for _ in self.pieces():
            pass
        if self.completion is None:
            raise ClosedError("an answer", "a cancelled one")
        return self.completion

    def tell(self, event: Event) -> None:
        """Let the listener know, or keep it for one that is still to come. For the scheduler."""
        with self.lock:
            self.has_ended = self.has_ended or not isinstance(event, Piece)
            if self.listener is None:
                self.unheard.append(event)
                return
            try:
                self.listener(event)
            except Exception:  # a caller that is gone must not take the others with it
                self.is_cancelled = True


@dataclass
class Slot:
    """One row of the cache: the tokens it holds, and the ticket that it works for."""

    number: int
    held: list[int] = field(default_factory=list)
    unread: deque[int] = field(default_factory=deque)  # tokens of the prompt or the answer still to be read
    guesses: list[int] = field(default_factory=list)  # read behind the newest token, and not drawn yet
    num_guessed: int = 0  # in this step
    ticket: Ticket | None = None
    last_used: int = 0

    @property
    def is_reading(self) -> bool:
        """Whether more than the newest token is to be read."""
        return self.ticket is not None and len(self.unread) > 1


class Scheduler:
    """Answers from one engine's model to many callers at once; see the module's first lines.

    `slots` answers are written side by side and `queue` more may wait. With `deterministic` a seed gives the same
    answer, to the last bit, whatever else is being answered: on the fast decoder that is always so, on the plain one it
    costs a full house in every step and every prompt is read whole. By default `decoder_for` chooses the `decoder`.
    """

    def __init__(
        self,
        engine: Engine,
        slots: int = 16,
        queue: int = 64,
        *,
        decoder: Decoder | None = None,
        deterministic: bool = False,
    ) -> None:
        if min(slots, queue) < 1:
            raise UsageError("at least one slot and one place in the queue", f"{slots} and {queue}")
        self.engine = engine
        self.decoder = decoder or decoder_for(engine, slots, deterministic)
        self.is_fixed = deterministic and not self.decoder.is_invariant
        self.slots = [Slot(number) for number in range(self.decoder.slots)]
        self.waiting: deque[Ticket] = deque()
        self.places = queue
        self.changed = threading.Condition()  # guards `waiting`, `is_closing`, `failure`
        self.is_closing = False
        self.failure: Exception | None = None
        self.steps = self.tokens_drawn = self.tokens_read = self.tokens_reused = self.tokens_guessed = 0
        self.thread = threading.Thread(target=self.run, name="nanochat-scheduler", daemon=True)
        self.thread.start()
        atexit.register(self.close, drain=False)  # a thread that Python ends amid an operation takes the process along

    # What callers use, from any thread

    def submit(
        self, prompt: Sequence[int], sampling: Sampling | None = None, *, row: int = 0, **wishes: Unpack[Wishes]
    ) -> Ticket:
        """Ask for one answer; row r's draws are named by (seed, r), as in `Engine.generate`. `Wishes` has the rest.

        Raises UsageError for a prompt that does not fit, BusyError where the queue is full, and ClosedError after
        `close` or a failure of the model.
        """
        return self.enqueue([self.ticket(prompt, sampling or Sampling(), row, **wishes)])[0]

    def samples(
        self, prompt: Sequence[int], count: int, sampling: Sampling | None = None, **wishes: Unpack[Wishes]
    ) -> list[Ticket]:
        """`count` answers to one prompt, as rows 0 to count - 1: all of them are taken, or none. It is read once.

        Only the first fills `prompt_scores`, where they are asked for.
        """
        others: Wishes = {**wishes, "scored": False}
        sampling = sampling or Sampling()
        tickets = [self.ticket(prompt, sampling, row, **(others if row else wishes)) for row in range(count)]
        return self.enqueue(tickets)

    def score(self, prompt: Sequence[int], *, alternatives: int = SHOWN, client: str = "") -> Ticket:
        """Ask for the prompt's own log-probabilities and nothing else: a ticket without pieces."""
        wishes: Wishes = {"watched": True, "alternatives": alternatives, "scored": True, "client": client}
        ticket = self.ticket(prompt, Sampling(), 0, **wishes)
        ticket.answer.finish = "length"
        return self.enqueue([ticket])[0]

    def load(self) -> Load:
        """How busy it is."""
        running = sum(slot.ticket is not None for slot in self.slots)
        waiting, drawn, read = len(self.waiting), self.tokens_drawn, self.tokens_read
        return Load(running, waiting, self.steps, drawn, read, self.tokens_reused, self.tokens_guessed)

    def close(self, drain: bool = True) -> None:
        """Take no more; finish what was taken (`drain`) or cancel it; return when the thread has ended."""
        with self.changed:
            self.is_closing = True
            if not drain:
                for ticket in [*self.waiting, *(slot.ticket for slot in self.slots if slot.ticket is not None)]:
                    ticket.cancel()
            self.changed.notify()
        atexit.unregister(self.close)
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def ticket(self, prompt: Sequence[int], sampling: Sampling, row: int, **wishes: Unpack[Wishes]) -> Ticket:
        """A ticket for a prompt that was looked at."""
        size = self.engine.model.config.vocab_size
        forced = wishes.get("forced", ())
        if foreign := [token for token in (*prompt, *forced) if not 0 <= token < size]:
            raise UsageError(f"token ids from 0 to {size - 1}", str(foreign[0]))
        if wishes.get("alternatives", SHOWN) < 0:
            raise UsageError("0 or more alternatives", str(wishes["alternatives"]))
        rules = replace(self.engine.rules, hands_over_calls=wishes.get("hands_over_calls", False))
        ticket = Ticket(Answer(rules, prompt, sampling, row), wishes)
        for piece in ticket.answer.resume(forced):
            ticket.tell(piece)
        return ticket

    def enqueue(self, tickets: list[Ticket]) -> list[Ticket]:
        """Put tickets into the queue, all or none."""
        with self.changed:
            if self.is_closing or self.failure is not None:
                raise ClosedError("a scheduler that is open", str(self.failure or "a closed one"))
            if len(self.waiting) + len(tickets) > self.places:
                got = f"{len(self.waiting)} waiting and {len(tickets)} more"
                raise BusyError(f"at most {self.places} waiting", got, "try again a little later")
            self.waiting.extend(tickets)
            self.changed.notify()
        return tickets

    # What its own thread does

    @torch.inference_mode()
    def run(self) -> None:
        """Step after step while there is work; wait while there is none."""
        try:
            while self.admit():
                self.step()
        except Exception as error:
            with self.changed:
                self.failure = error
                left = [*self.waiting, *(slot.ticket for slot in self.slots if slot.ticket is not None)]
                self.waiting.clear()
            for ticket in left:
                ticket.tell(error)
            for slot in self.slots:
                slot.ticket = None

    def admit(self) -> bool:
        """Clear away what was cancelled and let waiting tickets in. False when all is done and nothing will come."""
        for slot in self.slots:
            if slot.ticket is not None and slot.ticket.is_cancelled:
                self.leave(slot)
        with self.changed:
            while True:
                for ticket in [ticket for ticket in self.waiting if ticket.is_cancelled]:
                    self.waiting.remove(ticket)
                    ticket.tell(None)
                while (chosen := self.next_in_line()) is not None:
                    ticket, slot, source, shared = chosen
                    self.waiting.remove(ticket)
                    self.enter(ticket, slot, source, shared)
                if any(slot.ticket is not None for slot in self.slots):
                    return True
                if self.is_closing and not self.waiting:
                    return False
                self.changed.wait()  # with all slots free, nobody is waiting

    def next_in_line(self) -> tuple[Ticket, Slot, Slot, int] | None:
        """(who comes next, their slot, the slot that holds most of the prompt, tokens shared); None: nobody can.

        A prompt whose beginning is just being read waits for that.
        """
        free = [slot for slot in self.slots if slot.ticket is None]
        if not free:
            return None
        running: dict[str, int] = {}
        for slot in self.slots:
            if slot.ticket is not None:
                running[slot.ticket.client] = running.get(slot.ticket.client, 0) + 1
        oldest = min(free, key=lambda slot: slot.last_used)
        for ticket in sorted(self.waiting, key=lambda ticket: running.get(ticket.client, 0)):
            if ticket.scored or self.is_fixed:
                return ticket, oldest, oldest, 0
            # The last token is read in any case: what follows it is wanted.
            prompt = ticket.answer.prompt[:-1]
            common = {slot.number: shared(slot.held, prompt) for slot in self.slots}
            source = max(self.slots, key=lambda slot: (common[slot.number], slot.ticket is None))
            most = common[source.number]
            if any(
                shared([*slot.held, *slot.unread], prompt) >= most + SHARED for slot in self.slots if slot.is_reading
            ):
                continue
            if source.ticket is None and 2 * most >= len(source.held):
                return ticket, source, source, most
            return ticket, oldest, source, most if most >= SHARED or source is oldest else 0
        return None

    def enter(self, ticket: Ticket, slot: Slot, source: Slot, shared: int) -> None:
        """Give the slot to the ticket, with the beginning of its prompt that another slot holds."""
        if shared and source is not slot:
            self.decoder.copy(source.number, slot.number, shared)
        slot.ticket, slot.held = ticket, source.held[:shared]
        slot.unread = deque(ticket.answer.prompt[shared:])
        ticket.lookup.extend(ticket.answer.prompt)
        ticket.num_reused = shared
        self.tokens_reused += shared

    def leave(self, slot: Slot, event: Event = None) -> None:
        """Take the ticket out of its slot and tell it so. The slot keeps what it holds, for who goes on from there."""
        ticket, slot.ticket, slot.last_used = slot.ticket, None, self.steps
        slot.unread.clear()
        assert ticket is not None
        if ticket.answer.finish is not None:
            ticket.completion = ticket.answer.completion()
        ticket.tell(event)

    def step(self) -> None:
        """One pass of the model over the newest token of each answer and over a share of the unread prompts."""
        self.steps += 1
        chosen = self.shares()
        spare = max(0, self.decoder.spare - len(chosen)) // len(chosen)
        runs = [self.next_run(slot, tokens, spare) for slot, tokens in chosen]
        logits = self.decoder.read(runs)
        at, waiting = 0, []
        for run in runs:
            slot = self.slots[run.slot]
            ticket, read = slot.ticket, len(run.ids) - len(slot.guesses)
            assert ticket is not None
            if ticket.scored and run.start < len(ticket.answer.prompt):
                self.score_prompt(ticket, run, logits[at : at + run.scored])
            slot.held.extend(run.ids[:read])
            self.tokens_read += read
            if not slot.unread:
                waiting.append((slot, at + run.scored - 1 - len(slot.guesses)))
            at += run.scored
        while waiting:
            waiting = [(slot, row + 1) for slot, row in self.draw(logits, waiting)]

    def shares(self) -> list[tuple[Slot, int]]:
        """(slot, how many of its tokens the next step reads): the newest of those that write, a share for readers."""
        writers = [(slot, 1) for slot in self.slots if slot.ticket is not None and not slot.is_reading]
        readers = [slot for slot in self.slots if slot.is_reading]
        # Readers take turns at the front, so that none waits for ever.
        readers = readers[self.steps % len(readers) :] + readers[: self.steps % len(readers)] if readers else []
        left, chosen = CHUNK, []
        for count, slot in enumerate(readers):
            fair = CHUNK if self.is_fixed else max(SHARED, left // (len(readers) - count))
            tokens = min(fair, len(slot.unread), left)
            if tokens and (not self.is_fixed or tokens == min(CHUNK, len(slot.unread))):
                chosen.append((slot, tokens))
                left -= tokens
        return writers + chosen

    def next_run(self, slot: Slot, tokens: int, spare: int) -> Run:
        """The slot's next tokens to read, and behind the newest one as many guesses as there is room for."""
        ticket, ids = slot.ticket, [slot.unread.popleft() for _ in range(tokens)]
        assert ticket is not None
        answer, start = ticket.answer, len(slot.held)
        is_writing = not slot.unread and tokens == 1
        left = min(answer.room, answer.sampling.max_tokens - answer.num_drawn) - 1
        slot.guesses = ticket.lookup.guess(min(spare, left)) if is_writing else []
        slot.num_guessed = len(slot.guesses)
        scored = tokens if ticket.scored and start < len(answer.prompt) else int(not slot.unread)
        return Run(slot.number, start, ids + slot.guesses, scored + len(slot.guesses))

    def score_prompt(self, ticket: Ticket, run: Run, scores: torch.Tensor) -> None:
        """Tell how likely the prompt's own tokens were."""
        following = ticket.answer.prompt[run.start + 1 : run.start + 1 + len(run.ids)]
        if following:
            log_p = scores[: len(following)].log_softmax(dim=-1)
            ids = torch.tensor(following, device=log_p.device)
            ticket.prompt_scores += describe(self.engine.tokenizer, ids, log_p, ticket.shown)

    def draw(self, logits: torch.Tensor, waiting: Sequence[tuple[Slot, int]]) -> list[tuple[Slot, int]]:
        """Draw each slot's next token from its row of scores. Those that drew their guess, and so can draw again."""
        asked = [(slot, row, slot.ticket) for slot, row in waiting if slot.ticket is not None]
        for slot, _, ticket in asked:
            if ticket.answer.finish is not None:  # the prompt fills the context, or was only to be scored
                self.leave(slot)
        drawing = [(slot, row, ticket) for slot, row, ticket in asked if slot.ticket is ticket]
        plain = [(slot, row, ticket) for slot, row, ticket in drawing if ticket.shown is None]
        watched = [(slot, row, ticket) for slot, row, ticket in drawing if ticket.shown is not None]
        drawn = {slot.number: self.draw_watched(logits[row : row + 1], ticket) for slot, row, ticket in watched}
        if plain:
            laws = [ticket.answer.sampling for _, _, ticket in plain]
            uniforms = [ticket.answer.uniforms.random() for _, _, ticket in plain]
            tokens = self.decoder.draw(logits, [row for _, row, _ in plain], laws, uniforms)
            drawn |= {slot.number: token for (slot, _, _), token in zip(plain, tokens, strict=True)}
        return [(slot, row) for slot, row, ticket in drawing if self.take(slot, ticket, drawn[slot.number])]

    def draw_watched(self, logits: torch.Tensor, ticket: Ticket) -> Drawn:
        """The next token of an answer whose caller wants to see what else it could have been."""
        tokens = draw_tokens(logits, ticket.answer.sampling, [ticket.answer.uniforms.random()])
        return describe(self.engine.tokenizer, *tokens, ticket.shown)[0]

    def take(self, slot: Slot, ticket: Ticket, drawn: Drawn) -> bool:
        """Add a drawn token to its answer, with what a tool says to it. Whether it was a right guess."""
        self.tokens_drawn += 1
        answer, lookup, guesses = ticket.answer, ticket.lookup, slot.guesses
        for piece in answer.take(drawn):
            ticket.tell(piece)
        if answer.finish is not None:
            self.leave(slot)
            return False
        new = answer.next_ids(len(answer.pending))
        lookup.extend(new)
        if guesses[:1] == new:
            slot.held.append(guesses.pop(0))
            self.tokens_guessed += 1
            return True
        if slot.num_guessed:
            lookup.learn(slot.num_guessed, slot.num_guessed - len(guesses))
        slot.unread.extend(new)
        return False


def shared(held: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return next(
        (at for at, (a, b) in enumerate(zip(held, prompt, strict=False)) if a != b), min(len(held), len(prompt))
    )
