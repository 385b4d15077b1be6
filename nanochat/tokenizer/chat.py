"""Conversations as token ids, with a mask that says which of them the assistant is to learn, and back again.

A chat model continues text like any other. What makes it a chat is the form of that text: special tokens mark where
each turn begins and ends, and the model has learned to write one turn and to stop. The question "What is 10/4*2?",
answered with the calculator:

    token                mask      token               mask      token             mask
    <|bos|>              0         <|call_start|>      1         "It is 5."        1
    <|user_start|>       0         "calculator 10/4*2" 1         <|assistant_end|> 1
    "What is 10/4*2?"    0         <|call_end|>        1
    <|user_end|>         0         <|output_start|>    0
    <|assistant_start|>  0         "5"                 0
                                   <|output_end|>      0

The mask is 1 where the assistant must produce the token itself: its text, its calls with both their ends, and the end
of its turn (a model that is never taught to stop does not). It is 0 on what others write: the user, the system, and a
tool, whose whole answer is put in from outside.

A user's message all in capitals is read in small letters: to a small vocabulary CAPITALS are other words, letter by
letter, and what was learned of the small ones is of no use.

Text is encoded as ordinary text and the special tokens are added as ids. So a user who types "<|assistant_end|>", or a
recipe that contains it, ends nothing.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, Literal, NamedTuple, get_args

from nanochat.errors import ChatError
from nanochat.tokenizer.bpe import Tokenizer

SPECIALS = (
    "<|bos|>",  # before every document and every conversation
    "<|system_start|>",
    "<|system_end|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|call_start|>",  # the assistant asks a tool ...
    "<|call_end|>",
    "<|output_start|>",  # ... and the tool answers
    "<|output_end|>",
)

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Text:
    """What somebody says."""

    text: str


@dataclass(frozen=True)
class Call:
    """What the assistant asks a tool: `Call("calculator", "10/4*2")` is written "calculator 10/4*2"."""

    tool: str
    argument: str

    def __str__(self) -> str:
        return f"{self.tool} {self.argument}" if self.argument else self.tool


@dataclass(frozen=True)
class Output:
    """What the tool answers."""

    text: str


Part = Text | Call | Output


@dataclass(frozen=True)
class Message:
    """One turn. The assistant's may mix text, calls and outputs; the others' is text."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """What is said in this turn, without calls and outputs."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


Conversation = Sequence[Message]


class Rendered(NamedTuple):
    """Token ids, and for each 1 where the assistant is to learn to produce it, else 0."""

    ids: list[int]
    mask: list[int]


def message(role: Role, content: str | Sequence[Part]) -> Message:
    """A turn that says `content`, or one of several parts."""
    return Message(role, (Text(content),) if isinstance(content, str) else tuple(content))


def read_call(text: str) -> Call | None:
    """The call that is written so, the tool's name up to the first space; None where there is no name.

    >>> read_call("find banana bread")
    Call(tool='find', argument='banana bread')
    """
    tool, _, argument = text.lstrip().partition(" ")
    return Call(tool, argument) if is_name(tool) else None


def is_name(tool: str) -> bool:
    """Whether this can be a tool's name: something without white space."""
    return tool.split() == [tool]


def check(conversation: Conversation) -> None:
    """Raises ChatError, naming the message, unless this is a conversation.

    That is: at most one system message, which comes first; then user and assistant in turn, the user first. Users and
    systems write text, and not nothing. An assistant may write nothing (a young model does); each output follows a
    call at once. A call may go unanswered, as in a reply that was cut there.
    """
    if not conversation:
        raise ChatError("a conversation of at least one message", "none", "add a user's message")
    turns = conversation[1:] if conversation[0].role == "system" else conversation
    skipped = len(conversation) - len(turns)
    for place, turn in enumerate(conversation, 1):
        check_message(turn, f"message {place}")
    for place, turn in enumerate(turns):
        expected = "assistant" if place % 2 else "user"
        if turn.role != expected:
            remedy = "let user and assistant take turns, after at most one system message"
            raise ChatError(f"the {expected} in message {place + skipped + 1}", f"the {turn.role}", remedy)


def check_message(turn: Message, name: str) -> None:
    """Raises ChatError unless `turn`, on its own, can stand in a conversation."""
    if turn.role not in get_args(Role):
        raise ChatError(f"a role of {', '.join(get_args(Role))} in {name}", repr(turn.role), "correct the role")
    if not all(isinstance(part, Part) for part in turn.parts):
        raise ChatError(
            f"parts that are Text, Call or Output in {name}", repr(turn.parts)[:80], "use message(role, content)"
        )
    if turn.role != "assistant":
        if any(not isinstance(part, Text) for part in turn.parts):
            raise ChatError(
                f"only text in {name}, the {turn.role}'s", "a call or an output", "only assistants call tools"
            )
        if not turn.text:
            raise ChatError(f"some text in {name}, the {turn.role}'s", "none", "write it or leave the message out")
    before: Part | None = None
    for part in joined(turn.parts):
        if isinstance(part, Output) and not isinstance(before, Call):
            raise ChatError(f"a call before each output in {name}", "an output without one", "add the call")
        if isinstance(part, Call) and not is_name(part.tool):
            remedy = "name the tool without white space"
            raise ChatError(f"the name of a tool in {name}", repr(part.tool), remedy)
        before = part


def render(tokenizer: Tokenizer, conversation: Conversation, max_tokens: int | None = None) -> Rendered:
    """The whole conversation as ids and mask, for training; with `max_tokens`, its beginning of at most that length.

    The cut may fall anywhere, also inside a turn. Earlier turns stand there as they are `remembered`; one that was
    shortened by that teaches nothing, since it is not what the model would have to say. A last turn that ends in a call
    is not over, its tool has yet to answer: no end of turn follows. Raises ChatError where `check` does.
    """
    check(conversation)
    if max_tokens is not None and max_tokens < 1:
        raise ChatError("max_tokens of 1 or more", str(max_tokens), "ask for more")
    ids, mask = [tokenizer.special("<|bos|>")], [0]
    for place, said in enumerate(conversation):
        turn = calmed(said) if place == len(conversation) - 1 else remembered(calmed(said))
        learned = int(turn.role == "assistant" and turn.parts == said.parts)
        ids.append(tokenizer.special(f"<|{turn.role}_start|>"))
        mask.append(0)
        for part in joined(turn.parts):
            tokens = render_part(tokenizer, part)
            ids += tokens
            mask += [0 if isinstance(part, Output) else learned] * len(tokens)
        if place == len(conversation) - 1 and turn.parts and isinstance(turn.parts[-1], Call):
            break
        ids.append(tokenizer.special(f"<|{turn.role}_end|>"))
        mask.append(learned)
    return Rendered(ids[:max_tokens], mask[:max_tokens])


def remembered(turn: Message) -> Message:
    """An earlier turn as the model sees it: without what tools brought, and of what it said then only the first line.

    A recipe can be looked up again, and it takes up a third of a small context. The call stays, and tells which one.
    """
    if not any(isinstance(part, Output) for part in turn.parts):
        return turn
    kept: list[Part] = [part for part in turn.parts if isinstance(part, Call)]
    return Message(turn.role, (*kept, *joined([Text(turn.text.strip().partition("\n")[0])])))


def calmed(turn: Message) -> Message:
    """A user's turn of two words or more all in CAPITALS as if it were typed in small letters; any other as it is."""
    if turn.role != "user" or not turn.text.isupper() or sum(word.isalpha() for word in turn.text.split()) < 2:
        return turn
    return Message(turn.role, (Text(turn.text.lower()),))


def render_part(tokenizer: Tokenizer, part: Part) -> list[int]:
    """The ids of one part; calls and outputs between their marks."""
    if isinstance(part, Text):
        return tokenizer.encode(part.text)
    kind, text = ("call", str(part)) if isinstance(part, Call) else ("output", part.text)
    return [tokenizer.special(f"<|{kind}_start|>"), *tokenizer.encode(text), tokenizer.special(f"<|{kind}_end|>")]


def joined(parts: Sequence[Part]) -> list[Part]:
    """The same parts with neighbouring texts made one, and none empty: the form in which a reply is read back."""
    result: list[Part] = []
    for is_text, group in groupby(parts, lambda part: isinstance(part, Text)):
        if not is_text:
            result += group
        elif text := "".join(part.text for part in group if isinstance(part, Text)):
            result.append(Text(text))
    return result


def prompt(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """The conversation and the start of the assistant's turn: what the model continues. The user must be last."""
    check(conversation)
    if conversation[-1].role != "user":
        raise ChatError("a user's message to answer", f"the {conversation[-1].role}'s last", "add a user's message")
    return [*render(tokenizer, conversation).ids, tokenizer.special("<|assistant_start|>")]


def read_reply(tokenizer: Tokenizer, ids: Sequence[int]) -> Message:
    """The assistant's message that generated `ids` spell, up to the first <|assistant_end|> or else to their end.

    Models err, and nothing they write is lost: a special token that is out of place (a call that never ends, an output
    without a call, a user's turn inside the reply) is shown by its name, in the text. What comes out can always stand
    in a conversation again, where such a name is plain text.
    """
    parts, _ = read_parts(tokenizer, before_end(tokenizer, ids))
    return Message("assistant", tuple(parts))


def well_formed(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether generated `ids` end with their only <|assistant_end|>, answer each call at once and misplace no special.

    An empty reply is well formed; whether it is a good one is another question.
    """
    said = before_end(tokenizer, ids)
    parts, misplaced = read_parts(tokenizer, said)
    following = [*parts[1:], None]
    answered = all(
        isinstance(after, Output) for part, after in zip(parts, following, strict=False) if isinstance(part, Call)
    )
    return len(said) == len(ids) - 1 and answered and not misplaced


def before_end(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The ids before the first <|assistant_end|>; all where there is none."""
    end = tokenizer.special("<|assistant_end|>")
    return list(takewhile(lambda token: token != end, ids))


def read_parts(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[list[Part], bool]:
    """(the parts that `ids` spell, whether a special token among them is out of place)."""
    specials = set(tokenizer.specials.values())
    parts: list[Part] = []
    said: list[int] = []  # the text that is being read: ordinary tokens, and specials that are out of place
    misplaced, at = False, 0
    while at < len(ids):
        end = next((later for later in range(at + 1, len(ids)) if ids[later] in specials), len(ids))
        part = read_part(tokenizer, ids[at : end + 1]) if ids[at] in specials else None
        if isinstance(part, Output) and (said or not parts or not isinstance(parts[-1], Call)):
            part = None
        if part is not None:
            parts += [*joined([Text(tokenizer.decode(said))]), part]
            said, at = [], end + 1
        else:
            misplaced = misplaced or ids[at] in specials
            said += ids[at:end]
            at = end
    return [*parts, *joined([Text(tokenizer.decode(said))])], misplaced


def read_part(tokenizer: Tokenizer, ids: Sequence[int]) -> Call | Output | None:
    """The call or output that `ids` are, with its two marks; None where they are something else."""
    marks, inside = (ids[0], ids[-1]), ids[1:-1]
    if marks == (tokenizer.special("<|call_start|>"), tokenizer.special("<|call_end|>")):
        return read_call(tokenizer.decode(inside))
    if marks == (tokenizer.special("<|output_start|>"), tokenizer.special("<|output_end|>")):
        return Output(tokenizer.decode(inside))
    return None


def conversation_to_json(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation as `json` can write it: {"role", "content"}, where content is a text or a list of parts."""
    return [{"role": turn.role, "content": content_to_json(turn.parts)} for turn in conversation]


def content_to_json(parts: Sequence[Part]) -> str | list[dict[str, str]]:
    """A single text as itself, anything else as a list of {"type", ...}."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [{"type": type(part).__name__.lower(), **vars(part)} for part in parts]


def conversation_from_json(data: Any) -> list[Message]:
    """What `conversation_to_json` wrote, checked. Raises ChatError, naming the message, for anything else."""
    if not isinstance(data, list):
        raise ChatError("a list of messages", type(data).__name__, 'write [{"role": "user", "content": "..."}]')
    conversation = [message_from_json(item, f"message {place}") for place, item in enumerate(data, 1)]
    check(conversation)
    return conversation


def message_from_json(item: Any, name: str) -> Message:
    """One message; its role is looked at by `check`."""
    if not isinstance(item, dict) or set(item) != {"role", "content"}:
        got = ", ".join(map(str, item)) if isinstance(item, dict) else type(item).__name__
        raise ChatError(f"role and content in {name}", got or "nothing", "write these two and no other fields")
    content = item["content"]
    if not isinstance(content, (str, list)):
        raise ChatError(
            f"a text or a list of parts as content of {name}", type(content).__name__, "correct the content"
        )
    return message(
        item["role"], content if isinstance(content, str) else [part_from_json(part, name) for part in content]
    )


def part_from_json(item: Any, name: str) -> Part:
    """One part, every field of it a string."""
    kinds: dict[str, type[Part]] = {"text": Text, "call": Call, "output": Output}
    if isinstance(item, dict) and all(isinstance(value, str) for value in item.values()):
        fields = dict(item)
        kind = kinds.get(fields.pop("type", ""))
        if kind is not None and set(fields) == {field.name for field in dataclasses.fields(kind)}:
            return kind(**fields)
    forms = '{"type": "text", "text"}, {"type": "call", "tool", "argument"} or {"type": "output", "text"}'
    raise ChatError(f"parts like {forms} in {name}", repr(item)[:80], "correct the part")
