"""From an answer's pieces to OpenAI's forms: whole answers and the chunks of a stream.

A chat's message, and each chunk's delta, also has a field `nanochat` for what OpenAI's form has no place for. In a
delta it tells of one token:

    {"kind": "text" | "call" | "output", "id": 512, "text": " flour", "logprob": -0.11, "sampled": true,
     "entropy": 0.42, "alternatives": [{"id": 512, "text": " flour", "p": 0.9}, ...]}       these two where asked for

and in the last delta of an answer, as in a message, of the whole: {"finish", "provenance", "seed", "stage",
"num_dropped"}: how it ended in our words, and whether a recipe in it was found or invented. A message has its `parts`,
calls with what the tools answered, besides.
"""

import codecs
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nanochat.answer import Alternatives, Piece
from nanochat.serve.conversation import Turn, content_parts
from nanochat.serve.protocol import PARAMETER, ChatRequest
from nanochat.tokenizer import Tokenizer, read_call

FINISH = {"stop": "stop", "length": "length", "call": "tool_calls", "malformed": "stop", None: "length"}
LEAST = -9999.0  # ln p of what is next to impossible, as OpenAI writes it


@dataclass
class ChatChoice:
    """One answer to a conversation: its turn, and what of it has been told."""

    request: ChatRequest
    index: int
    turn: Turn
    id: str  # of the request, so that calls have names of their own
    calls: list[dict[str, Any]] = field(default_factory=list)
    written: str = ""  # of the call that is being written

    def take(self, piece: Piece) -> dict[str, Any]:
        """The choice of the chunk that tells of a piece."""
        self.turn.pieces.append(piece)
        delta: dict[str, Any] = {}
        if piece.kind == "text" and piece.text:
            delta["content"] = piece.text
        if (call := self.take_call(piece)) is not None:
            delta["tool_calls"] = [{"index": len(self.calls) - 1, **call}]
        delta["nanochat"] = self.told(piece)
        return {"index": self.index, "delta": delta, "logprobs": self.logprobs([piece]), "finish_reason": None}

    def take_call(self, piece: Piece) -> dict[str, Any] | None:
        """The call that this piece completes."""
        if piece.kind != "call":
            return None
        self.written += piece.text
        tokenizer = self.turn.speaker.engine.tokenizer
        if piece.id != tokenizer.special("<|call_end|>"):
            return None
        call, self.written = read_call(self.written), ""
        if call is None:
            return None
        name = self.request.parameters.get(call.tool, PARAMETER)
        function = {"name": call.tool, "arguments": json.dumps({name: call.argument}, ensure_ascii=False)}
        self.calls.append({"id": f"call_{self.id}_{self.index}_{len(self.calls)}", "type": "function",
                           "function": function})  # fmt: skip
        return self.calls[-1]

    def told(self, piece: Piece) -> dict[str, Any]:
        """A token in the field `nanochat`."""
        found: dict[str, Any] = {"kind": piece.kind, "id": piece.id, "text": piece.text, "sampled": piece.sampled}
        if piece.sampled:
            found["logprob"] = round(piece.logprob, 6)
            if self.request.alternatives:
                chosen = piece.alternatives[: self.request.alternatives]
                found["entropy"] = round(piece.entropy, 6)
                found["alternatives"] = [{"id": token, "text": text, "p": round(p, 6)} for token, text, p in chosen]
        return found

    def logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        """Log-probabilities of the tokens that are the answer's text, in OpenAI's form; None where not asked for."""
        if self.request.logprobs is None:
            return None
        tokenizer, shown = self.turn.speaker.engine.tokenizer, self.request.logprobs
        return {
            "content": [
                {**token(tokenizer, piece.id, piece.logprob), "top_logprobs": [
                    token(tokenizer, other, math.log(p)) for other, _, p in piece.alternatives[:shown]
                ]}
                for piece in pieces
                if piece.kind == "text" and piece.sampled and tokenizer.token_bytes(piece.id)
            ],
            "refusal": None,
        }  # fmt: skip

    @property
    def finish_reason(self) -> str:
        """How it ended, in OpenAI's words."""
        finish = self.turn.finish
        return "stop" if finish == "call" and not self.calls else FINISH[finish]

    def summary(self) -> dict[str, Any]:
        """The whole answer in the field `nanochat`."""
        turn = self.turn
        return {
            "finish": turn.finish,
            "provenance": turn.provenance,
            "seed": turn.sampling.seed,
            "stage": turn.speaker.stage,
            "num_dropped": turn.num_dropped,
        }

    def last_chunk(self) -> dict[str, Any]:
        """The choice of the chunk that ends this answer."""
        delta = {"nanochat": self.summary()}
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": self.finish_reason}

    def whole(self) -> dict[str, Any]:
        """The choice of an answer that is given at once."""
        content = "".join(piece.text for piece in self.turn.pieces if piece.kind == "text")
        told = {**self.summary(), "parts": content_parts(self.turn.reply)}
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "nanochat": told}
        if self.calls:
            message["tool_calls"] = self.calls
        return {
            "index": self.index,
            "message": message,
            "logprobs": self.logprobs(self.turn.pieces),
            "finish_reason": self.finish_reason,
        }


def token(tokenizer: Tokenizer, number: int, logprob: float) -> dict[str, Any]:
    """A token with its log-probability, as a chat's `logprobs` list it."""
    data = tokenizer.token_bytes(number)
    return {"token": spelled(tokenizer, number), "logprob": max(logprob, LEAST), "bytes": list(data) if data else None}


def spelled(tokenizer: Tokenizer, number: int) -> str:
    """A token as text, each as another: bytes that are no whole character as OpenAI writes them, "bytes:\\xe2"."""
    data = tokenizer.token_bytes(number)
    if not data:
        return tokenizer.decode([number])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


@dataclass
class TextChoice:
    """One continuation of a text: what of the prompt is repeated, and what follows."""

    tokenizer: Tokenizer
    index: int
    shown: int | None  # alternatives beside each token; None: no log-probabilities
    ids: list[int] = field(default_factory=list)
    scores: list[tuple[float, Alternatives] | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finish: str | None = None
    offsets: list[int] = field(default_factory=list)  # characters of the text before each token
    length: int = 0  # of all of them
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def echo(self, prompt: Sequence[int], scores: Sequence[tuple[float, Alternatives]]) -> None:
        """The prompt, with what the model thought of each token after those before it; nothing of the first."""
        specials = set(self.tokenizer.specials.values())
        for number in prompt:
            self.add(number)
        self.scores += [None, *scores]
        self.texts += [""] * len(prompt)
        starts = [self.tokenizer.decode([one for one in prompt if one not in specials])]
        self.texts[-1] = starts[0]

    def take(self, piece: Piece) -> str:
        """A piece; what it adds to the text. Calls and outputs, where a prompt has led to such, are not part of it."""
        self.add(piece.id)
        self.scores.append((piece.logprob, piece.alternatives))
        self.texts.append(piece.text if piece.kind == "text" else "")
        self.finish = piece.finish or self.finish
        return self.texts[-1]

    def add(self, number: int) -> None:
        """A token, and where in the text it begins."""
        self.ids.append(number)
        self.offsets.append(self.length)
        self.length += len(self.decoder.decode(self.tokenizer.token_bytes(number)))

    def logprobs(self, start: int = 0) -> dict[str, Any] | None:
        """Log-probabilities from the token at `start` on, in the form of completions; None where not asked for.

        The chosen token is always among the likeliest ones, and first where it is the likeliest.
        """
        if self.shown is None:
            return None
        names = [spelled(self.tokenizer, number) for number in self.ids[start:]]
        tops: list[dict[str, float] | None] = []
        for number, score in zip(self.ids[start:], self.scores[start:], strict=True):
            if score is None:
                tops.append(None)
                continue
            others = {spelled(self.tokenizer, one): math.log(p) for one, _, p in score[1][: self.shown]}
            tops.append({**others, spelled(self.tokenizer, number): max(score[0], LEAST)})
        logprobs = [None if score is None else max(score[0], LEAST) for score in self.scores[start:]]
        return {
            "tokens": names,
            "token_logprobs": logprobs,
            "top_logprobs": tops,
            "text_offset": self.offsets[start:],
        }

    def choice(self, text: str, start: int = 0, is_last: bool = True) -> dict[str, Any]:
        """A choice that tells of the tokens from `start` on."""
        reason = FINISH.get(self.finish) if is_last else None
        return {"index": self.index, "text": text, "logprobs": self.logprobs(start), "finish_reason": reason}

    def whole(self) -> dict[str, Any]:
        """The choice of an answer that is given at once."""
        return self.choice("".join(self.texts))


def usage(prompt: int, drawn: int, reused: int) -> dict[str, Any]:
    """Tokens that were read, and that the model drew; what tools put in is neither."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": drawn,
        "total_tokens": prompt + drawn,
        "prompt_tokens_details": {"cached_tokens": reused},
    }


def sse(data: object) -> str:
    """One event of a stream."""
    return f"data: {compact(data)}\n\n"


def compact(data: object) -> str:
    """JSON without spaces."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
