"""A conversation with a model, whatever shows it: its turns, room for new ones, and where a recipe is from."""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from nanochat.checkpoint import load_model
from nanochat.data import Recipe
from nanochat.engine import Engine, Finish, Piece, Sampling
from nanochat.errors import UsageError
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from nanochat.tasks import limit_for, tools_for
from nanochat.tokenizer import (
    Call,
    Message,
    Output,
    Part,
    Text,
    check,
    conversation_to_json,
    message,
    prompt,
    read_reply,
    render,
)
from nanochat.tools import NO_RECIPE, Calculator, words

Loader = Callable[[], "Speaker"]
Provenance = Literal["found", "invented"] | None

FAMILIAR = 0.8  # of its words make a recipe one that was found earlier
PLAIN_TOKENS = 64  # by which plain text is continued: it has no answer's end
BESIDE = " beside the system's"
CHEAP = 10_000  # bytes that are encoded in no time
ANSWER_SHARE = 5  # a prompt leaves at least one in so many tokens of the context to the answer
LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)
HEADING = re.compile(r"^(?:ingredients|steps|directions|method):?\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Speaker:
    """A model that is ready to talk, and the stage that it comes from; with a scheduler it answers by that."""

    engine: Engine
    stage: str
    scheduler: Scheduler | None = None

    @property
    def takes_turns(self) -> bool:
        """Whether the model knows conversations. A pretrained one does not: it goes on from the text it is given."""
        return self.stage != "pretrain"

    def stream(self, ids: Sequence[int], sampling: Sampling, row: int) -> Generator[Piece, None, None]:
        """An answer, piece by piece; close it to stop early."""
        if self.scheduler is None:
            return self.engine.stream(ids, sampling, row)
        return self.scheduler.submit(ids, sampling, row=row, watched=True).pieces()

    @property
    def longest_prompt(self) -> int:
        """Tokens of a prompt that leave room for an answer."""
        context = self.engine.model.config.context
        return context - context // ANSWER_SHARE

    @cached_property
    def most_bytes(self) -> int:
        """A longer text fits into no context, whatever its tokens are: it need not be encoded to know that."""
        tokenizer, config = self.engine.tokenizer, self.engine.model.config
        longest = max(len(tokenizer.token_bytes(token)) for token in range(config.vocab_size))
        return max(config.context * longest, CHEAP)


def load_speaker(folder: Path, runtime: Runtime, kitchen: Sequence[Recipe]) -> Speaker:
    """The newest model of a stage's folder, with its tools; without `find` where `kitchen` is empty."""
    model, tokenizer, _ = load_model(folder, runtime)
    tools = tools_for(kitchen, limit_for(model.config.context)) if kitchen else {"calculator": Calculator()}
    # It will not be trained: weights in the format that products are computed in need no conversion in every step.
    return Speaker(Engine(model.to(runtime.dtype), tokenizer, runtime, tools), folder.name)


@dataclass
class Turn:
    """One question and its answer. Iterate over it for the answer's pieces as they come; it remembers them."""

    speaker: Speaker
    question: str
    ids: Sequence[int]  # what the model is given
    earlier: Sequence[Message]  # the messages that are in it besides the question
    num_dropped: int  # messages that had to be left out to make room
    sampling: Sampling
    row: int
    pieces: list[Piece] = field(default_factory=list)

    def __iter__(self) -> Iterator[Piece]:
        self.pieces.clear()
        stream = self.speaker.stream(self.ids, self.sampling, self.row)
        try:
            for piece in stream:
                self.pieces.append(piece)
                yield piece
        finally:
            stream.close()

    @property
    def reply(self) -> Message:
        """The answer so far; without the special token that ended it, if it was out of place."""
        if not self.speaker.takes_turns:
            return message("assistant", "".join(piece.text for piece in self.pieces))
        ids = [piece.id for piece in self.pieces if piece.finish != "malformed"]
        return read_reply(self.speaker.engine.tokenizer, ids)

    @property
    def finish(self) -> Finish | None:
        """How the answer ended; None where it was stopped from outside."""
        return self.pieces[-1].finish if self.pieces else "length"

    @property
    def provenance(self) -> Provenance:
        """Whether a recipe in the answer was found or invented."""
        return provenance(self.reply, self.earlier)


class Session:
    """A conversation: what was said, and how the next answer is drawn."""

    def __init__(self, speaker: Speaker, sampling: Sampling, system: str = "") -> None:
        self.speaker, self.sampling, self.system = speaker, sampling, system
        self.messages: list[Message] = []
        self.num_asked = 0

    def ask(self, question: str) -> Turn:
        """The next turn, not yet answered. Raises UsageError for a question that is too long, and ChatError for none.

        Turn n draws as row n: the same seed and the same questions give the same conversation.
        """
        earlier = self.messages if self.speaker.takes_turns else []
        first = [message("system", self.system)] if self.system else []
        ids, kept = fitted(self.speaker, [*first, *earlier, message("user", question)])
        sampling = self.sampling
        if not self.speaker.takes_turns:
            sampling = replace(sampling, max_tokens=min(sampling.max_tokens, PLAIN_TOKENS))
        kept = kept[len(first) : -1]
        turn = Turn(self.speaker, question, ids, kept, len(earlier) - len(kept), sampling, self.num_asked)
        self.num_asked += 1
        return turn

    def keep(self, turn: Turn) -> None:
        """Make an answered turn a part of the conversation, and forget what it had no room for."""
        self.messages = [*turn.earlier, message("user", turn.question), turn.reply]

    def reset(self) -> None:
        """Forget what was said, but for the system's message."""
        self.messages = []


def fitted(speaker: Speaker, conversation: Sequence[Message]) -> tuple[list[int], list[Message]]:
    """(the prompt, the messages that are in it): the oldest questions and their answers are left out first.

    The last message is the user's, or an assistant's that ends with a tool's output, to be gone on with. Raises
    UsageError where not even the last question fits, and ChatError for what is no conversation.
    """
    if speaker.takes_turns:
        check(conversation)
    first = int(conversation[0].role == "system")
    last = len(conversation) - 1 - (conversation[-1].role == "assistant")
    kept = [*conversation[:first], *conversation[last:]]
    wanted = f"a message that fits{BESIDE * first} into {speaker.longest_prompt} tokens"
    if (size := len(conversation[last].text.encode(errors="replace"))) > speaker.most_bytes:
        raise UsageError(wanted, f"{size} bytes", "shorten it")
    ids = prompt_ids(speaker, kept)
    if len(ids) > speaker.longest_prompt:
        raise UsageError(wanted, f"{len(ids)}", "shorten it")
    for start in range(last - 2, first - 1, -2):  # from the newest back, so that a long past costs nothing
        longer = [*conversation[:first], *conversation[start:]]
        if len(more := prompt_ids(speaker, longer)) > speaker.longest_prompt:
            break
        ids, kept = more, longer
    return ids, kept


def prompt_ids(speaker: Speaker, conversation: Sequence[Message]) -> list[int]:
    """What the model is given to continue: a conversation, or plain text where it knows no conversations."""
    tokenizer, last = speaker.engine.tokenizer, conversation[-1]
    if not speaker.takes_turns:
        asked = next(said for said in reversed(conversation) if said.role == "user")
        return [tokenizer.special("<|bos|>"), *tokenizer.encode(asked.text)]
    if last.role == "assistant" and any(isinstance(part, Output) for part in last.parts[-1:]):
        return render(tokenizer, conversation).ids[:-1]  # all but the end of the turn
    return prompt(tokenizer, conversation)


def provenance(reply: Message, earlier: Sequence[Message] = ()) -> Provenance:
    """Whether the recipe in `reply` was found in the Cookbook or invented; None where there is none.

    Found: it says again, scaled perhaps, what a call of `find` brought in this reply or an `earlier` message, so that
    most of its words stand there. To have looked is not enough: a young model looks one dish up and invents another.
    """
    texts = ((place, part.text) for place, part in enumerate(reply.parts) if isinstance(part, Text))
    place, recipe = next(((place, text) for place, text in texts if looks_like_recipe(text)), (0, ""))
    if not recipe:
        return None
    found = [*found_texts(reply.parts[:place]), *(text for said in earlier for text in found_texts(said.parts))]
    known = {word for text in found for word in words(text)}
    spoken = [word for word in words(recipe) if not word.isdigit()]
    return "found" if spoken and sum(word in known for word in spoken) >= FAMILIAR * len(spoken) else "invented"


def looks_like_recipe(text: str) -> bool:
    """Whether a text has two list lines or more, or a heading that recipes have."""
    return len(LIST_LINE.findall(text)) >= 2 or HEADING.search(text) is not None


def found_texts(parts: Sequence[Part]) -> list[str]:
    """What successful calls of `find` brought."""
    outputs = [after.text for call, after in pairwise(parts) if is_call(call, "find") and isinstance(after, Output)]
    return [text for text in outputs if text != NO_RECIPE and not text.startswith("error:")]


def is_call(part: Part, tool: str) -> bool:
    """Whether a part calls this tool."""
    return isinstance(part, Call) and part.tool == tool


def turn_to_json(turn: Turn) -> dict[str, Any]:
    """The turn as `json` can write it."""
    reply = turn.reply
    return {
        "reply": reply.text,
        "parts": content_parts(reply),
        "finish": turn.finish,
        "tokens": [
            {"id": piece.id, "text": piece.text, "kind": piece.kind, "sampled": piece.sampled, "logprob": piece.logprob}
            for piece in turn.pieces
        ],
        "tool_calls": [
            {"tool": part.tool, "argument": part.argument, "output": after.text if isinstance(after, Output) else None}
            for part, after in pairwise([*reply.parts, None])
            if isinstance(part, Call)
        ],
        "found": turn.provenance == "found",
        "provenance": turn.provenance,
        "stage": turn.speaker.stage,
        "seed": turn.sampling.seed,
    }


def content_parts(reply: Message) -> list[dict[str, str]]:
    """The reply's parts, each an object with its type."""
    content = conversation_to_json([reply])[0]["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
