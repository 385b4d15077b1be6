"""A request at work: which answers to ask the scheduler for, and how to tell the client of what comes."""

import dataclasses
import logging
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import Any

from nanochat.answer import Alternatives, Piece
from nanochat.errors import ClosedError, NanochatError, UsageError
from nanochat.scheduler import Wishes
from nanochat.serve.conversation import PLAIN_TOKENS, Speaker, Turn, fitted
from nanochat.serve.flight import Flight, Order
from nanochat.serve.models import Served
from nanochat.serve.protocol import ChatRequest, CompletionRequest, Request
from nanochat.serve.replies import ChatChoice, TextChoice, sse, usage
from nanochat.serve.schema import ApiError
from nanochat.tokenizer import Message, check

LOG = logging.getLogger("nanochat.serve")
SAMPLES_APART = 1_000_000  # rows between the n answers to one question: a conversation has fewer turns


class Job:
    """A request at work: what to order, and how to tell of what comes."""

    request: Request
    served: Served
    client: str
    kind: str

    @cached_property
    def id(self) -> str:
        """The answer's own name."""
        return secrets.token_hex(12)

    @cached_property
    def head(self) -> dict[str, Any]:
        """What every chunk begins with."""
        return {"created": int(time.time()), "model": self.served.id,
                "system_fingerprint": self.served.source.fingerprint}  # fmt: skip

    def orders(self) -> list[Order]:
        """The answers to ask for."""
        raise NotImplementedError

    def take(self, flight: Flight, number: int, piece: Piece | None) -> dict[str, Any] | None:
        """The chunk that tells of a piece, or of an answer's end; None where there is nothing to tell."""
        raise NotImplementedError

    def whole(self, flight: Flight) -> dict[str, Any]:
        """All answers at once."""
        raise NotImplementedError

    def usage(self, flight: Flight) -> dict[str, Any]:
        """Tokens read and drawn. A prompt counts once, however many answers it has."""
        prompts = {id(order.prompt): len(order.prompt) for order in flight.orders}
        drawn = sum(ticket.answer.num_drawn for ticket in flight.tickets)
        reused = min((ticket.num_reused for ticket in flight.tickets), default=0)
        return usage(sum(prompts.values()), drawn, reused)

    async def stream(self, flight: Flight) -> AsyncIterator[str]:
        """Events, as many at a time as there are."""
        try:
            async for batch in flight:
                events = []
                for number, event in batch:
                    if isinstance(event, Exception):
                        raise event
                    chunk = self.take(flight, number, event)
                    if chunk is not None:
                        events.append(sse(chunk))
                yield "".join(events) or ": still here\n\n"
            if flight.is_late:
                late = [self.take(flight, number, None) for number in range(len(flight.orders))]
                yield "".join(sse(chunk) for chunk in late if chunk is not None)
            if self.request.include_usage:
                yield sse({**self.chunk([]), "usage": self.usage(flight)})
        except Exception as error:
            yield sse(as_api_error(error).body)
        yield "data: [DONE]\n\n"

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk around its choices."""
        raise NotImplementedError


class ChatJob(Job):
    """A conversation's next answers."""

    def __init__(self, request: ChatRequest, served: Served, turn: Turn, client: str) -> None:
        self.request: ChatRequest = request
        self.served, self.client = served, client
        self.choices = [
            ChatChoice(request, n, dataclasses.replace(turn, row=turn.row + n * SAMPLES_APART, pieces=[]), self.id)
            for n in range(request.n)
        ]
        self.is_over = [False] * request.n

    def orders(self) -> list[Order]:
        shown = max(self.request.logprobs or 0, self.request.alternatives)
        wishes = Wishes(client=self.client, hands_over_calls=self.request.hands_over_calls)
        if shown:
            wishes |= Wishes(watched=True, alternatives=shown)
        if self.request.forced:
            wishes |= Wishes(forced=self.request.forced)
        turns = [choice.turn for choice in self.choices]
        return [Order(turn.ids, turn.sampling, turn.row, wishes) for turn in turns]

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        more = {"usage": None} if self.request.include_usage else {}
        return {"id": f"chatcmpl-{self.id}", "object": "chat.completion.chunk", **self.head, "choices": choices, **more}

    def take(self, flight: Flight, number: int, piece: Piece | None) -> dict[str, Any] | None:
        choice = self.choices[number]
        if piece is None:
            if self.is_over[number]:
                return None
            self.is_over[number] = True
            return self.chunk([choice.last_chunk()])
        told = choice.take(piece)
        if len(choice.turn.pieces) == 1:
            told["delta"] = {"role": "assistant", "content": "", **told["delta"]}
        return self.chunk([told])

    def whole(self, flight: Flight) -> dict[str, Any]:
        choices = [choice.whole() for choice in self.choices]
        return {"id": f"chatcmpl-{self.id}", "object": "chat.completion", **self.head, "choices": choices,
                "usage": self.usage(flight)}  # fmt: skip


class TextJob(Job):
    """Texts' continuations."""

    def __init__(self, request: CompletionRequest, served: Served, prompts: Sequence[list[int]], client: str) -> None:
        self.request: CompletionRequest = request
        self.served, self.prompts, self.client = served, prompts, client
        tokenizer = served.speaker.engine.tokenizer
        self.choices = [TextChoice(tokenizer, n, request.logprobs) for n in range(len(prompts) * request.n)]
        self.is_over = [False] * len(self.choices)

    def orders(self) -> list[Order]:
        request, found = self.request, []
        scored = request.echo and request.logprobs is not None
        wishes = Wishes(client=self.client)
        if request.logprobs or scored:
            wishes |= Wishes(watched=True, alternatives=request.logprobs or 0)
        for prompt in self.prompts:
            for n in range(request.n):
                own = Wishes(scored=True) if scored else Wishes()
                found.append(
                    Order(prompt, request.sampling, n * SAMPLES_APART, wishes | own, only_scored=request.only_scored)
                )
        return found

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        more = {"usage": None} if self.request.include_usage else {}
        return {"id": f"cmpl-{self.id}", "object": "text_completion", **self.head, "choices": choices, **more}

    def take(self, flight: Flight, number: int, piece: Piece | None) -> dict[str, Any] | None:
        choice, start, text = self.choices[number], len(self.choices[number].ids), ""
        if piece is None and self.is_over[number]:
            return None
        if start == 0 and self.request.echo:
            text = self.echo(flight, number)
        if piece is None:
            self.is_over[number] = True
            choice.finish = choice.finish or "length"
            return self.chunk([choice.choice(text, start, is_last=True)])
        return self.chunk([choice.choice(text + choice.take(piece), start, is_last=False)])

    def echo(self, flight: Flight, number: int) -> str:
        """Repeat the prompt; its text."""
        scores: list[tuple[float, Alternatives]] = [(0.0, ())] * (len(flight.orders[number].prompt) - 1)
        if self.request.logprobs is not None and number < len(flight.tickets):
            scores = [(drawn.logprob, drawn.alternatives) for drawn in flight.tickets[number].prompt_scores]
        choice = self.choices[number]
        choice.echo(flight.orders[number].prompt, scores)
        return "".join(choice.texts)

    def whole(self, flight: Flight) -> dict[str, Any]:
        choices = [choice.whole() for choice in self.choices]
        return {"id": f"cmpl-{self.id}", "object": "text_completion", **self.head, "choices": choices,
                "usage": self.usage(flight)}  # fmt: skip


def next_turn(speaker: Speaker, request: ChatRequest) -> Turn:
    """The turn that a chat request asks for: the one that the terminal's chat would take at this place."""
    conversation = request.conversation
    check(conversation)
    asked = [said for said in conversation if said.role == "user"]
    try:
        ids, kept = fitted(speaker, conversation)
    except UsageError as error:
        raise too_long(error) from error
    sampling = request.sampling
    if not speaker.takes_turns and not request.says_max_tokens:
        sampling = dataclasses.replace(sampling, max_tokens=min(sampling.max_tokens, PLAIN_TOKENS))
    earlier: list[Message] = [said for said in kept if said is not asked[-1]] if speaker.takes_turns else []
    dropped = len(conversation) - len(kept)
    return Turn(speaker, asked[-1].text, ids, earlier, dropped, sampling, len(asked) - 1)


def ids_of(speaker: Speaker, prompts: Sequence[str] | Sequence[list[int]]) -> list[list[int]]:
    """Texts as ids behind <|bos|>; ids as they are. Raises ApiError for a text that is far too long."""
    tokenizer, found = speaker.engine.tokenizer, []
    for prompt in prompts:
        if isinstance(prompt, str):
            if (size := len(prompt.encode())) > speaker.most_bytes:
                raise too_long(UsageError(f"a prompt of at most {speaker.most_bytes} bytes", str(size), "shorten it"))
            found.append([tokenizer.special("<|bos|>"), *tokenizer.encode(prompt)])
        else:
            found.append(list(prompt))
    return found


def too_long(error: UsageError) -> ApiError:
    """A prompt that the context has no room for, or with ids that the vocabulary lacks."""
    code = "context_length_exceeded" if "token ids" not in error.expected else "invalid_value"
    return ApiError(400, str(error), None, code)


def as_api_error(error: Exception) -> ApiError:
    """Any error as one that can be told to a client: of ours what it says, of others only that the log has it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ClosedError):
        return ApiError(503, "the model is closing, or has failed", code="closing", headers={"Retry-After": "10"})
    if isinstance(error, NanochatError):
        return ApiError(400, str(error), None, "invalid_value")
    log_failure(error)
    return ApiError(500, "the server has failed at this; its log says where", code="internal_error")


def log_failure(error: Exception) -> None:
    """An error of our own: where it happened, and not what it says, which might repeat what somebody wrote."""
    where = " < ".join(
        f"{frame.filename}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__))
    )
    LOG.error("%s at %s", type(error).__name__, where)
