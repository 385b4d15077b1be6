"""The answers to one request while they are written: handed to the scheduler, collected, and given up together."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from nanochat.answer import Piece
from nanochat.engine import Sampling
from nanochat.errors import BusyError, ClosedError
from nanochat.scheduler import Event, Scheduler, Ticket, Wishes
from nanochat.serve.meters import Meters
from nanochat.serve.schema import ApiError

AT_ONCE = 16  # answers of one request in the scheduler, so that a large request leaves room for others
PATIENCE = 15.0  # seconds without a word after which a stream shows that it is alive


@dataclass(frozen=True)
class Order:
    """One answer that is asked for. Without pieces wanted (`only_scored`), just the prompt's log-probabilities."""

    prompt: Sequence[int]
    sampling: Sampling
    row: int
    wishes: Wishes = field(default_factory=Wishes)
    only_scored: bool = False

    def hand_to(self, scheduler: Scheduler) -> Ticket:
        """Ask for it."""
        if self.only_scored:
            shown = self.wishes.get("alternatives", 0)
            return scheduler.score(self.prompt, alternatives=shown, client=self.wishes.get("client", ""))
        return scheduler.submit(self.prompt, self.sampling, row=self.row, **self.wishes)


class Inbox:
    """Things that other threads put in and a coroutine takes out, many at a time."""

    def __init__(self) -> None:
        self.loop, self.arrived = asyncio.get_running_loop(), asyncio.Event()
        self.items: deque[tuple[int, Event]] = deque()
        self.is_called = False

    def put(self, item: tuple[int, Event]) -> None:
        """From any thread. The loop is woken once, however much comes before it looks."""
        self.items.append(item)
        if not self.is_called:
            self.is_called = True
            self.loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """In the loop: there is something to take. What is put from here on calls again."""
        self.is_called = False
        self.arrived.set()

    async def take(self, seconds: float) -> list[tuple[int, Event]]:
        """All that has arrived; waits for something, and gives nothing where none comes in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.arrived.wait()
        except TimeoutError:
            return []
        self.arrived.clear()
        return [self.items.popleft() for _ in range(len(self.items))]


class Flight:
    """All answers of one request. `async for` over it gives lists of (number of the order, its next event).

    An empty list says that it still waits. `with flight:` starts it and, however the block is left, cancels what is
    not done: a client that is gone costs nothing any more.
    """

    def __init__(self, scheduler: Scheduler, orders: Sequence[Order], seconds: float, meters: Meters) -> None:
        self.scheduler, self.orders, self.meters = scheduler, orders, meters
        self.tickets: list[Ticket] = []
        self.inbox = Inbox()
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.num_running = 0
        self.is_late = False

    def __enter__(self) -> "Flight":
        try:
            self.start()
        except ApiError:
            self.cancel()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    @property
    def left(self) -> float:
        """Seconds that it may still take."""
        return max(0.0, self.deadline - time.monotonic())

    def start(self) -> None:
        """Hand over as much as is taken now. Raises ApiError where that is nothing."""
        while len(self.tickets) < len(self.orders) and self.num_running < AT_ONCE:
            number = len(self.tickets)
            try:
                ticket = self.orders[number].hand_to(self.scheduler)
            except ClosedError as error:
                raise ApiError(503, "the model is closing, or has failed", code="closing",
                               headers={"Retry-After": "10"}) from error  # fmt: skip
            except BusyError as error:
                if self.num_running:
                    return  # the rest when one of these has ended
                self.meters.refused.inc()
                raise ApiError(429, "expected room in the queue; got too many requests; try again a little later",
                               code="rate_limit_exceeded", headers={"Retry-After": "1"}) from error  # fmt: skip
            self.tickets.append(ticket)
            self.num_running += 1
            ticket.listen(lambda event, number=number: self.inbox.put((number, event)))  # type: ignore[misc]

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, Event]]]:
        ended, heard = 0, [0.0] * len(self.orders)
        while ended < len(self.orders):
            batch = await self.inbox.take(min(PATIENCE, self.left))
            for number, event in batch:
                if isinstance(event, Piece):
                    heard[number] = self.note(number, event, heard[number])
                else:
                    ended, self.num_running = ended + 1, self.num_running - 1
            yield batch
            if self.is_late:
                continue  # what was cancelled still says that it has ended
            if not self.left:
                self.is_late = True
                self.cancel()
                ended += len(self.orders) - len(self.tickets)
            else:
                self.start()

    def note(self, number: int, piece: Piece, heard: float) -> float:
        """Count a piece, and how long it took; the time it came."""
        now = time.monotonic()
        if not heard:
            self.meters.first_token.observe(now - self.began)
        elif piece.sampled:
            self.meters.between_tokens.observe(now - heard)
        self.meters.tokens.labels("drawn" if piece.sampled else "by tools").inc()
        if piece.finish:
            self.meters.answers.labels(piece.finish).inc()
        return now

    def cancel(self) -> None:
        """Give up what is not done."""
        for ticket in self.tickets:
            if not (ticket.has_ended or ticket.is_cancelled):
                self.meters.answers.labels("cancelled").inc()
                ticket.cancel()
