"""One answer while it is written: its tokens and text, its calls of tools, and how it ends. No tensors here.

How an answer ends:

    "stop"       with `<|assistant_end|>` (in plain text, a prompt without `<|assistant_start|>`, also with `<|bos|>`),
                 or at a stop string
    "length"     at `max_tokens` drawn tokens, at the end of the context, or with a call beyond `max_calls` or too close
                 to the context's end to be answered; with `cut_circles` also when its last LOOP tokens are some phrase
                 three times or more
    "call"       with `<|call_end|>` where calls are handed over to whoever asked, instead of run here
    "malformed"  with a special token that has no place there, such as `<|user_start|>`, or `<|call_end|>` without a
                 call. Such tokens are not masked out: what is drawn from must be what the loss of reinforcement
                 learning sees, and a trained model learns not to write them.

The token that ends an answer is one of its ids.
"""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nanochat.errors import UsageError
from nanochat.keyed import rng
from nanochat.sampling import Sampling
from nanochat.tokenizer import Tokenizer
from nanochat.tools import Tool, run_call

Finish = Literal["stop", "length", "call", "malformed"]
Kind = Literal["text", "call", "output"]
LOOP = 48  # tokens; phrases of up to a third of it count as circles
Alternatives = tuple[tuple[int, str, float], ...]  # id, text, probability


@dataclass(frozen=True)
class Completion:
    """A finished answer: its tokens, ln p of each as it was drawn, and how it ended.

    Tokens with `sampled` False were put in by a tool, and have logprob 0. `text` is what the answer says: no calls, no
    outputs, and nothing from a stop string on.
    """

    ids: list[int]
    logprobs: list[float]
    sampled: list[bool]
    finish: Finish
    text: str


@dataclass(frozen=True)
class Drawn:
    """A token as it was drawn. Entropy (in nats) and alternatives are of the distribution that logprob is from."""

    id: int
    logprob: float = 0.0
    entropy: float = 0.0
    alternatives: Alternatives = ()


@dataclass(frozen=True)
class Piece:
    """One token of an answer as it comes.

    `text` is what can be shown by now: bytes of an unfinished character, and what may become a stop string, come with
    a later piece. A special token writes nothing itself but releases what was held back before it. `kind` says what
    the text belongs to. `finish` is set on the last piece.
    """

    id: int
    text: str
    logprob: float
    entropy: float
    alternatives: Alternatives
    sampled: bool
    kind: Kind
    finish: Finish | None = None


@dataclass(frozen=True)
class Rules:
    """What holds for all answers of an engine."""

    tokenizer: Tokenizer
    context: int
    tools: Mapping[str, Tool]
    max_calls: int
    hands_over_calls: bool = False  # a call ends the answer, and is answered from outside

    @cached_property
    def names(self) -> dict[int, str]:
        """Special tokens' names by id."""
        return {token: name for name, token in self.tokenizer.specials.items()}


class Answer:
    """One row while it is written: what it has said, what the model has yet to read, and whether it has ended."""

    def __init__(self, rules: Rules, prompt: Sequence[int], sampling: Sampling, row: int) -> None:
        self.rules, self.sampling, self.prompt = rules, sampling, tuple(prompt)
        if not 0 < len(self.prompt) <= rules.context:
            got, remedy = f"{len(self.prompt)} in row {row}", "shorten it, or drop its oldest turns"
            raise UsageError(f"a prompt of 1 to {rules.context} tokens", got, remedy)
        self.uniforms = rng(sampling.seed, "sample", row)
        self.is_plain = rules.tokenizer.specials.get("<|assistant_start|>") not in self.prompt
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.sampled: list[bool] = []
        self.texts: list[str] = []
        self.pending: list[int] = []  # part of the answer, but the model has not read them yet
        self.kind: Kind = "text"
        self.call: list[int] = []  # ids since <|call_start|>
        self.num_calls = self.num_drawn = 0
        self.flow = TextFlow(sampling.stop)
        self.finish: Finish | None = None if self.room else "length"

    @property
    def room(self) -> int:
        """Tokens that the context still has for this row."""
        return self.rules.context - len(self.prompt) - len(self.ids)

    @property
    def needs_token(self) -> bool:
        """Whether the model has read all there is."""
        return self.finish is None and not self.pending

    def next_ids(self, count: int) -> list[int]:
        """The next `count` ids for the model to read; anything for a row that has ended."""
        if self.finish is not None:
            return [0] * count
        chunk, self.pending = self.pending[:count], self.pending[count:]
        return chunk

    def take(self, drawn: Drawn) -> list[Piece]:
        """Add a drawn token, and what a tool answers to it."""
        closes_call = self.kind == "call" and self.rules.names.get(drawn.id) == "<|call_end|>"
        pieces = [self.add(drawn, sampled=True)]
        if closes_call and self.finish is None:
            pieces += [self.add(Drawn(token), sampled=False) for token in self.output()]
        return pieces

    def resume(self, ids: Sequence[int]) -> list[Piece]:
        """Begin with `ids`, as if they had been drawn, and with what tools say to them; the pieces that tell of it.

        The model reads them with the prompt, and the completion has only what follows them.
        """
        pieces: list[Piece] = []
        for token in ids:
            if self.finish is None:
                pieces += self.take(Drawn(token))
        self.prompt += tuple(self.ids)
        for told in (self.ids, self.logprobs, self.sampled, self.texts, self.pending):
            told.clear()
        return pieces

    def add(self, drawn: Drawn, sampled: bool) -> Piece:
        """Record one token; the piece that tells of it."""
        self.ids.append(drawn.id)
        self.logprobs.append(drawn.logprob)
        self.sampled.append(sampled)
        self.pending.append(drawn.id)
        self.num_drawn += sampled
        kind, name = self.kind, self.rules.names.get(drawn.id)
        if name is not None:
            text = self.flow.end()
            self.turn(name, sampled)
        else:
            text = self.flow.push(self.rules.tokenizer.token_bytes(drawn.id))
            if self.flow.stopped:
                self.finish = "stop"
            if kind == "call":
                self.call.append(drawn.id)
        is_over = self.num_drawn >= self.sampling.max_tokens or not self.room or (sampled and self.is_circling)
        if self.finish is None and is_over:
            self.finish = "length"
        if self.finish is not None:
            text += self.flow.end()
        if kind == "text":
            self.texts.append(text)
        return Piece(drawn.id, text, drawn.logprob, drawn.entropy, drawn.alternatives, sampled, kind, self.finish)

    @property
    def is_circling(self) -> bool:
        """Whether the last LOOP tokens are one phrase again and again, and that is to be cut."""
        last = self.ids[-LOOP:] if self.sampling.cut_circles else []
        return len(last) == LOOP and any(last[size:] == last[:-size] for size in range(1, LOOP // 3 + 1))

    def turn(self, name: str, sampled: bool) -> None:
        """What a special token changes. Outputs come from tools alone: a drawn output marker is out of place."""
        match name, self.kind, sampled:
            case "<|call_start|>", "text", True:
                self.kind, self.call = "call", []
            case "<|call_end|>", "call", True:
                self.kind, self.num_calls = "text", self.num_calls + 1
                if self.rules.hands_over_calls:
                    self.finish = "call"
                elif self.num_calls > self.rules.max_calls or self.room_for_output < 1:
                    self.finish = "length"
            case "<|output_start|>", "text", False:
                self.kind = "output"
            case "<|output_end|>", "output", False:
                self.kind = "text"
            case "<|assistant_end|>", "text", True:
                self.finish = "stop"
            case "<|bos|>", "text", True if self.is_plain:
                self.finish = "stop"
            case _:
                self.finish = "malformed"
        self.flow = TextFlow(self.sampling.stop if self.kind == "text" else ())

    @property
    def room_for_output(self) -> int:
        """Tokens that a tool's answer may take: with its two markers half of what the context has left.

        So there is always room to answer with it, and even to repeat all of it.
        """
        return self.room // 2 - 2

    def output(self) -> list[int]:
        """The ids of a tool's answer to the call that has just ended, markers included; cut at a whole character."""
        tokenizer, room = self.rules.tokenizer, self.room_for_output
        called = tokenizer.decode_bytes(self.call).decode("utf-8", "replace")
        found = tokenizer.encode(run_call(self.rules.tools, called))
        kept = found if len(found) <= room else whole_characters(tokenizer, found[:room])
        return [tokenizer.special("<|output_start|>"), *kept, tokenizer.special("<|output_end|>")]

    def completion(self) -> Completion:
        """The finished answer."""
        assert self.finish is not None, "the answer is still being written"
        return Completion(self.ids, self.logprobs, self.sampled, self.finish, "".join(self.texts))


class TextFlow:
    """Bytes in, text out as soon as it is certain: whole characters, and no part of a stop string.

    What comes out, joined, is the bytes' decoding with U+FFFD for what is no UTF-8, up to the first stop string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops, self.stopped, self.held = stops, False, ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes, final: bool = False) -> str:
        """The text that `data` makes certain."""
        if self.stopped:
            return ""
        text = self.held + self.decoder.decode(data, final)
        if not self.stops:
            return text
        self.held = ""
        if found := [at for stop in self.stops if (at := text.find(stop)) >= 0]:
            self.stopped = True
            return text[: min(found)]
        kept = 0 if final else max(overlap(text, stop) for stop in self.stops)
        self.held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def end(self) -> str:
        """What was held back, when nothing can follow it."""
        return self.push(b"", final=True)


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, short of the whole of `stop`."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)


def whole_characters(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """`ids` without the last tokens where they hold only a part of a character."""
    kept = list(ids)
    while kept:
        try:
            tokenizer.decode_bytes(kept).decode("utf-8")
            break
        except UnicodeDecodeError:
            kept.pop()
    return kept
