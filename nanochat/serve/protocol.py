"""From a request's body to what the model is asked: a conversation or a prompt, and how to draw.

What OpenAI's form leaves open, and what is done here:

- Leading system and developer messages are joined into one; so are neighbouring messages of one user.
- The server runs the model's tools itself, as the chat in the terminal does. A request that brings `tools` runs them:
  a call ends the answer (`finish_reason` "tool_calls"), and the next request brings what the tool said. The model was
  taught `calculator` and `find`, each with one line of text; tools of other names are refused.
- An assistant's message is best sent back as it came, with its `tool_calls` and the field `nanochat`. The model was
  trained to remember of an answer with calls only these and its first line, and sees a conversation in that form.
- Without a seed another one is drawn each time; the answer tells which.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from nanochat.engine import Sampling
from nanochat.serve.schema import CHAT, COMPLETION, MAX_PROMPTS, ApiError, check
from nanochat.tokenizer import Call, Message, Output, Part, Text, message
from nanochat.tokenizer.chat import check_message, message_from_json

MAX_DEPTH = 64  # of nested lists and objects in a body
PARAMETER = "argument"  # of a call, where the client's tool names none of its own
LEAST_TOP_P = 1e-9  # what a top_p of 0 means: the likeliest token alone


@dataclass(frozen=True)
class Defaults:
    """How answers are drawn where a request does not say: as the chat in the terminal does."""

    temperature: float = 0.2
    top_p: float = 0.95
    max_tokens: int = 256


@dataclass(frozen=True)
class Request:
    """What both ways of asking have in common."""

    model: str
    sampling: Sampling
    n: int
    stream: bool
    include_usage: bool
    user: str
    logprobs: int | None  # alternatives to list beside each token's log-probability; None: no log-probabilities


@dataclass(frozen=True)
class ChatRequest(Request):
    """A conversation to continue. `parameters` has the argument's name of each tool that the client runs."""

    conversation: list[Message]
    parameters: Mapping[str, str]
    says_max_tokens: bool
    alternatives: int  # for the field `nanochat` of each token
    forced: tuple[int, ...]  # what the answer begins with

    @property
    def hands_over_calls(self) -> bool:
        """Whether the client runs the tools."""
        return bool(self.parameters)


@dataclass(frozen=True)
class CompletionRequest(Request):
    """Texts, or token ids, to continue."""

    prompts: list[str] | list[list[int]]
    echo: bool
    only_scored: bool  # nothing is to be drawn


def read_json(data: bytes) -> dict[str, Any]:
    """The object that a body holds. Raises ApiError for anything else."""
    try:
        value = json.loads(data, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"expected JSON as the body; got something else: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise ApiError(400, f"expected an object as the body; got {type(value).__name__}")
    cleaned: dict[str, Any] = clean(value)
    return cleaned


def refuse_constant(name: str) -> None:
    """JSON has no NaN and no Infinity, though Python reads them."""
    raise ValueError(f"{name} is no number")


def clean(value: Any, depth: int = 0) -> Any:
    """`value` with U+FFFD for halves of characters (lone surrogates), which no encoding can write."""
    if depth > MAX_DEPTH:
        raise ApiError(400, f"expected at most {MAX_DEPTH} nested lists and objects in the body; got more")
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean(name): clean(item, depth + 1) for name, item in value.items()}
    if isinstance(value, float) and abs(value) > 1e300:
        raise ApiError(400, "expected numbers of a usual size; got one beyond 1e300")
    return value


def chat_request(body: Mapping[str, Any], defaults: Defaults) -> ChatRequest:
    """The body of `/v1/chat/completions`. Raises ApiError."""
    check(body, CHAT)
    if body.get("max_tokens") and body.get("max_completion_tokens"):
        raise ApiError(400, "expected max_tokens or max_completion_tokens; got both", "max_tokens", "invalid_value")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise ApiError(400, "expected logprobs beside top_logprobs; got none", "top_logprobs", "invalid_value")
    longest = body.get("max_tokens") or body.get("max_completion_tokens") or defaults.max_tokens
    return ChatRequest(
        model=body["model"],
        sampling=sampling(body, defaults, longest, is_chat=True),
        n=body.get("n") or 1,
        stream=bool(body.get("stream")),
        include_usage=wants_usage(body),
        user=body.get("user") or "",
        logprobs=body.get("top_logprobs") or 0 if body.get("logprobs") else None,
        conversation=conversation(body["messages"]),
        parameters={} if body.get("tool_choice") == "none" else parameters(body.get("tools") or []),
        says_max_tokens=bool(body.get("max_tokens") or body.get("max_completion_tokens")),
        alternatives=(body.get("nanochat") or {}).get("alternatives") or 0,
        forced=tuple((body.get("nanochat") or {}).get("forced") or ()),
    )


def completion_request(body: Mapping[str, Any], defaults: Defaults) -> CompletionRequest:
    """The body of `/v1/completions`. Raises ApiError."""
    check(body, COMPLETION)
    prompt, n = body["prompt"], body.get("n") or 1
    single = isinstance(prompt, str) or isinstance(prompt[0], int)
    prompts = [prompt] if single else list(prompt)
    if len(prompts) * n > MAX_PROMPTS:
        raise ApiError(400, f"expected at most {MAX_PROMPTS} prompts times n; got {len(prompts) * n}", "prompt")
    if body.get("best_of") not in (None, n):
        raise ApiError(400, "expected best_of equal to n: all answers are given", "best_of", "invalid_value")
    longest = 16 if body.get("max_tokens") is None else body["max_tokens"]
    if longest == 0 and not body.get("echo"):
        raise ApiError(400, "expected max_tokens of 1 or more, or echo; got 0", "max_tokens", "invalid_value")
    return CompletionRequest(
        model=body["model"],
        sampling=sampling(body, defaults, longest, is_chat=False),
        n=n,
        stream=bool(body.get("stream")),
        include_usage=wants_usage(body),
        user=body.get("user") or "",
        logprobs=body.get("logprobs"),
        prompts=prompts,
        echo=bool(body.get("echo")),
        only_scored=longest == 0,
    )


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether a stream is to end with the count of tokens."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def sampling(body: Mapping[str, Any], defaults: Defaults, longest: int, is_chat: bool) -> Sampling:
    """How to draw. Probabilities that are told are the model's own, whatever temperature and filters make of them."""

    def given(name: str, default: Any) -> Any:
        return default if body.get(name) is None else body[name]

    stop = given("stop", [])
    return Sampling(
        temperature=float(given("temperature", defaults.temperature)),
        top_k=int(given("top_k", 0)),
        top_p=max(LEAST_TOP_P, given("top_p", defaults.top_p)),
        min_p=float(given("min_p", 0.0)),
        max_tokens=max(1, int(longest)),
        seed=int(given("seed", secrets.randbelow(2**31))),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        cut_circles=is_chat,
        logprobs_of="model",
    )


def parameters(tools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tool -> the name of its one text parameter, as the client declares it. Raises ApiError where it has another."""
    found = {}
    for place, tool in enumerate(tools):
        function = tool["function"]
        declared = function.get("parameters", {}).get("properties", {PARAMETER: {"type": "string"}})
        texts = [name for name, about in declared.items() if isinstance(about, dict) and about.get("type") == "string"
                 ] if isinstance(declared, dict) else []  # fmt: skip
        if len(texts) != 1 or len(declared) != 1:
            where = f"tools[{place}].function.parameters"
            raise ApiError(
                400,
                f"expected one string parameter in {where}: the model writes one line of text",
                where,
                "invalid_value",
            )
        found[function["name"]] = texts[0]
    return found


def conversation(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """OpenAI's messages as ours. That they take turns is looked at where the prompt is made."""
    leading = list(takewhile(lambda item: item["role"] in ("system", "developer"), messages))
    system = "\n\n".join(filter(None, (content(item) for item in leading)))
    turns: list[tuple[Literal["user", "assistant"], list[Part]]] = []
    for place, item in enumerate(messages[len(leading) :], len(leading)):
        role, parts = read_message(item, place, turns[-1][1] if turns and turns[-1][0] == "assistant" else None)
        if turns and turns[-1][0] == role:
            if role == "user":
                parts = [Text("\n"), *parts]
            turns[-1][1].extend(parts)
        else:
            turns.append((role, parts))
    if not turns:
        raise ApiError(400, "expected a user's message; got none", "messages", "invalid_value")
    first = [message("system", system)] if system else []
    return first + [message(role, answered(parts) if role == "assistant" else parts) for role, parts in turns]


def read_message(
    item: Mapping[str, Any], place: int, before: list[Part] | None
) -> tuple[Literal["user", "assistant"], list[Part]]:
    """(whose turn it belongs to, its parts). `before` are the parts of the assistant's turn that it may go on with."""
    where = f"messages[{place}]"
    match item["role"]:
        case "user":
            return "user", [Text(content(item))]
        case "tool":
            if not before or not isinstance(before[-1], Call):
                got = "a tool's message elsewhere"
                raise ApiError(400, f"expected {where} to follow the assistant's tool_calls; got {got}", where)
            return "assistant", [Output(content(item))]
        case "assistant":
            if (parts := sent_back(item, where)) is not None:
                return "assistant", parts
            calls = [read_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(item.get("tool_calls") or [])]
            said = content(item)
            return "assistant", [*([Text(said)] if said else []), *calls]
    raise ApiError(400, f"expected system messages before all others; got one as {where}", where, "invalid_value")


def sent_back(item: Mapping[str, Any], where: str) -> list[Part] | None:
    """The parts of an answer of ours that comes back whole, with what the server's tools said; else None."""
    told = item.get("nanochat")
    parts = told.get("parts") if isinstance(told, dict) else None
    if not parts:
        return None
    turn = message_from_json({"role": "assistant", "content": parts}, where)
    check_message(turn, where)
    return list(turn.parts) if turn.text == content(item) else None


def content(item: Mapping[str, Any]) -> str:
    """A message's text."""
    given = item.get("content") or ""
    return given if isinstance(given, str) else "".join(part["text"] for part in given)


def read_call(call: Mapping[str, Any], where: str) -> Call:
    """A call as the model writes it: the tool, and the one text among its arguments."""
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    try:
        values = list(json.loads(arguments).values())
    except (ValueError, AttributeError, RecursionError):
        values = []
    if len(values) != 1 or not isinstance(values[0], str) or name.split() != [name]:
        wanted = f'{{"{PARAMETER}": "..."}}'
        raise ApiError(
            400, f"expected a tool's name, and JSON like {wanted}, in {where}.function", where, "invalid_value"
        )
    return Call(name, " ".join(values[0].split()))


def answered(parts: Sequence[Part]) -> list[Part]:
    """The parts of an answer as it was written, for calls that the server has answered itself.

    The client was not told what its tools said, and need not be: of an earlier answer the model sees calls and the
    first line alone, wherever there was an output.
    """
    calls, texts = ([part for part in parts if isinstance(part, kind)] for kind in (Call, Text))
    if not calls or not texts or any(isinstance(part, Output) for part in parts):
        return list(parts)
    return [*(part for call in calls for part in (call, Output(""))), *texts]
