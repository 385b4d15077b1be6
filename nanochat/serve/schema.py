"""What a request may hold, in OpenAI's form: one description, which checks requests and documents them.

It is written in JSON Schema, and `check` knows as much of that as is used here. `/openapi.json` shows the same
description, so that what the server says of itself is what it does.
"""

import math
from collections.abc import Mapping
from typing import Any

from nanochat.errors import NanochatError

Schema = Mapping[str, Any]

MAX_MESSAGES = 256
MAX_TEXT = 100_000  # characters of one text
MAX_CHOICES = 8  # answers to one prompt
MAX_PROMPTS = 128  # in one request
MAX_STOPS = 4
MAX_STOP = 64  # characters
MAX_ALTERNATIVES = 20
MAX_FORCED = 8192
SEEDS = 2**63 - 1


class ApiError(NanochatError):
    """An answer that is an error, in OpenAI's form: what to tell the client, and by which status."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.args = (message,)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error as the client reads it."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def text(**more: Any) -> dict[str, Any]:
    """A string."""
    return {"type": "string", "maxLength": MAX_TEXT, **more}


def number(least: float, most: float, default: float | None = None, **more: Any) -> dict[str, Any]:
    """A number from `least` to `most`, or null for the default."""
    return {"type": ["number", "null"], "minimum": least, "maximum": most, "default": default, **more}


def whole(least: int, most: int, default: int | None = None, **more: Any) -> dict[str, Any]:
    """A whole number from `least` to `most`, or null for the default."""
    return {"type": ["integer", "null"], "minimum": least, "maximum": most, "default": default, **more}


def yes_no(default: bool = False, **more: Any) -> dict[str, Any]:
    """True, false, or null for the default."""
    return {"type": ["boolean", "null"], "default": default, **more}


def listing(items: Schema, least: int, most: int) -> dict[str, Any]:
    """A list of `least` to `most` such things."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def record(properties: Mapping[str, Schema], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    named = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), "additionalProperties": False, **named, **more}


NULL: Schema = {"type": "null"}
ANY: Schema = {}
PARTS = listing(record({"type": {"enum": ["text"]}, "text": text()}, ("type", "text")), 1, 64)
CONTENT: Schema = {"anyOf": [text(), PARTS]}
NAME: Schema = text(minLength=1, maxLength=64)

CALL = record(
    {
        "id": text(minLength=1, maxLength=128),
        "type": {"enum": ["function"]},
        "index": {"type": "integer", "minimum": 0},
        "function": record({"name": NAME, "arguments": text(maxLength=4096)}, ("name", "arguments")),
    },
    ("id", "function"),
)
SAID_ALSO: Mapping[str, Schema] = {  # fields of an answer, so that it can be sent back as it came; not read
    "refusal": {"type": ["string", "null"]},
    "annotations": ANY,
    "audio": NULL,
    "function_call": NULL,
    "nanochat": ANY,
}
MESSAGES: Mapping[str, Schema] = {  # by role
    "system": record({"role": {"enum": ["system"]}, "content": CONTENT, "name": NAME}, ("role", "content")),
    "developer": record({"role": {"enum": ["developer"]}, "content": CONTENT, "name": NAME}, ("role", "content")),
    "user": record({"role": {"enum": ["user"]}, "content": CONTENT, "name": NAME}, ("role", "content")),
    "assistant": record(
        {
            "role": {"enum": ["assistant"]},
            "content": {"anyOf": [text(), PARTS, NULL]},
            "name": NAME,
            "tool_calls": {"anyOf": [listing(CALL, 0, 16), NULL]},
            **SAID_ALSO,
        },
        ("role",),
    ),
    "tool": record(
        {"role": {"enum": ["tool"]}, "content": CONTENT, "tool_call_id": text(minLength=1, maxLength=128)},
        ("role", "content", "tool_call_id"),
    ),
}
MESSAGE: Schema = {"oneOf": list(MESSAGES.values()), "discriminator": {"propertyName": "role"}}

# The model was taught two tools, by their names, each with one line of text as its argument.
TOOL = record(
    {
        "type": {"enum": ["function"]},
        "function": record(
            {
                "name": {"enum": ["calculator", "find"]},
                "description": text(),
                "parameters": {"type": "object"},
                "strict": {"type": ["boolean", "null"]},
            },
            ("name",),
        ),
    },
    ("type", "function"),
)

EXTENSION = record(
    {
        "alternatives": whole(0, MAX_ALTERNATIVES, 0, description="beside each token, with its entropy; 0: neither"),
        "forced": {
            "anyOf": [listing({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, 0, MAX_FORCED), NULL],
            "description": "tokens that the answer begins with, as if the model had drawn them",
        },
    }
)

# What both ways of asking have in common.
COMMON: Mapping[str, Schema] = {
    "model": text(minLength=1, maxLength=256, description="as /v1/models lists it"),
    "temperature": number(0, 2, description="0: always the likeliest token; by default the server's"),
    "top_p": number(0, 1, description="only the likeliest tokens that hold this share; by default the server's"),
    "top_k": whole(0, 1_000_000, 0, description="beyond OpenAI: only the k likeliest; 0: all"),
    "min_p": number(0, 1, 0, description="beyond OpenAI: only tokens at least this share as likely as the likeliest"),
    "seed": whole(-SEEDS, SEEDS, description="the same answer again; by default another each time"),
    "stop": {
        "anyOf": [
            text(minLength=1, maxLength=MAX_STOP),
            listing(text(minLength=1, maxLength=MAX_STOP), 0, MAX_STOPS),
            NULL,
        ]
    },
    "n": whole(1, MAX_CHOICES, 1, description="answers"),
    "stream": yes_no(),
    "stream_options": {
        "anyOf": [record({"include_usage": yes_no(), "include_obfuscation": yes_no()}), NULL],
    },
    # Accepted where they ask for nothing that is not done anyway.
    "frequency_penalty": {"enum": [0, None]},
    "presence_penalty": {"enum": [0, None]},
    "logit_bias": {"anyOf": [record({}), NULL]},
    "user": {"type": ["string", "null"], "maxLength": 256, "description": "one of several users, for fair shares"},
}
IGNORED: Mapping[str, Schema] = {
    "metadata": {"type": ["object", "null"]},
    "store": {"enum": [False, None]},
    "service_tier": {"enum": ["auto", "default", None]},
    "safety_identifier": {"type": ["string", "null"], "maxLength": 256},
    "prompt_cache_key": {"type": ["string", "null"], "maxLength": 256},
}

CHAT = record(
    {
        "messages": listing(MESSAGE, 1, MAX_MESSAGES),
        **COMMON,
        "max_tokens": whole(1, 1_000_000, description="tokens to draw at most; by default the server's"),
        "max_completion_tokens": whole(1, 1_000_000, description="the newer name of max_tokens"),
        "logprobs": yes_no(),
        "top_logprobs": whole(0, MAX_ALTERNATIVES, description="needs logprobs"),
        "tools": {
            "anyOf": [listing(TOOL, 0, 2), NULL],
            "description": "to run calls of these yourself; without it the server runs them",
        },
        "tool_choice": {"enum": ["auto", "none", None]},
        "parallel_tool_calls": yes_no(True, description="ignored: calls come one at a time"),
        "response_format": {"anyOf": [record({"type": {"enum": ["text"]}}, ("type",)), NULL]},
        "modalities": {"anyOf": [listing({"enum": ["text"]}, 1, 1), NULL]},
        "nanochat": {"anyOf": [EXTENSION, NULL], "description": "what OpenAI's form has no place for"},
        **IGNORED,
    },
    ("model", "messages"),
)

IDS = listing({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, 1, MAX_TEXT)
COMPLETION = record(
    {
        "prompt": {"anyOf": [text(minLength=1), listing(text(minLength=1), 1, MAX_PROMPTS), IDS,
                             listing(IDS, 1, MAX_PROMPTS)]},
        **COMMON,
        "max_tokens": whole(0, 1_000_000, 16, description="tokens to draw at most; 0, with echo: none"),
        "logprobs": whole(0, 5, description="of each token, beside so many of the likeliest"),
        "echo": yes_no(description="the prompt before its continuation"),
        "best_of": whole(1, MAX_CHOICES, description="nothing but n"),
        "suffix": {"enum": ["", None]},
    },
    ("model", "prompt"),
)  # fmt: skip


def check(value: Any, schema: Schema, where: str = "") -> None:
    """Raises ApiError, naming the place, unless `value` is as `schema` says.

    >>> check({"n": 3}, record({"n": whole(1, 8)}))
    """
    if options := schema.get("oneOf"):
        return check_role(value, options, where)
    if options := schema.get("anyOf"):
        return check_any(value, options, where)
    if "enum" in schema and not any(same(value, allowed) for allowed in schema["enum"]):
        raise invalid(f"one of {', '.join(map(shown, schema['enum']))}", value, where)
    if "type" in schema:
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if kind_of(value) not in wanted and not (kind_of(value) == "integer" and "number" in wanted):
            raise invalid(" or ".join(wanted), value, where)
    if isinstance(value, str):
        check_size(len(value), schema, "Length", "characters", where)
    elif isinstance(value, list):
        check_size(len(value), schema, "Items", "items", where)
        for place, item in enumerate(value if "items" in schema else []):
            check(item, schema["items"], f"{where}[{place}]")
    elif isinstance(value, dict):
        check_fields(value, schema, where)
    elif kind_of(value) in ("integer", "number"):
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not least <= value <= most:
            raise invalid(f"a number from {least} to {most}", value, where)
    return None


def check_role(value: Any, options: list[Schema], where: str) -> None:
    """A message, by its role."""
    role = value.get("role") if isinstance(value, dict) else None
    for option in options:
        if isinstance(role, str) and role in option["properties"]["role"]["enum"]:
            return check(value, option, where)
    if not isinstance(value, dict):
        raise invalid("object", value, where)
    raise invalid(f"one of {', '.join(repr(name) for name in MESSAGES)}", role, f"{where}.role")


def check_any(value: Any, options: list[Schema], where: str) -> None:
    """One of several; the complaint is that of the option which got furthest into `value`."""
    complaints = []
    for option in options:
        try:
            return check(value, option, where)
        except ApiError as error:
            complaints.append(error)
    deepest = max(complaints, key=lambda error: len(error.param or ""))
    if (deepest.param or "") != where.lstrip("."):
        raise deepest
    of_its_kind = [error for error, option in zip(complaints, options, strict=True) if kind_of(value) in kinds(option)]
    raise of_its_kind[0] if of_its_kind else invalid(" or ".join(k for o in options for k in kinds(o)), value, where)


def kinds(schema: Schema) -> list[str]:
    """The types that a schema allows."""
    wanted = schema.get("type", [])
    return list(wanted) if isinstance(wanted, list) else [wanted]


def check_size(size: int, schema: Schema, of: str, unit: str, where: str) -> None:
    """The length of a text or a list."""
    least, most = schema.get(f"min{of}", 0), schema.get(f"max{of}", math.inf)
    if not least <= size <= most:
        raise ApiError(400, f"expected {least} to {most} {unit} in {where.lstrip('.')}; got {size}", where.lstrip("."),
                       "invalid_value")  # fmt: skip


def check_fields(value: dict[str, Any], schema: Schema, where: str) -> None:
    """The fields of an object."""
    properties = schema.get("properties", {})
    for name, item in value.items():
        place = f"{where}.{name}".lstrip(".")
        if name in properties:
            check(item, properties[name], place)
        elif schema.get("additionalProperties") is False:
            raise ApiError(400, f"expected no field {shown(place)}: this server does not know it", place[:100],
                           "unknown_parameter")  # fmt: skip
    for name in schema.get("required", []):
        if name not in value:
            place = f"{where}.{name}".lstrip(".")
            raise ApiError(400, f"expected {place}; got none", place, "missing_required_parameter")


def kind_of(value: Any) -> str:
    """The type of `value` as JSON Schema calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "integer" if isinstance(value, int) or value.is_integer() else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def same(value: Any, allowed: Any) -> bool:
    """Whether two JSON values are equal: 0 is 0.0, but false is not 0."""
    return bool(value == allowed) and isinstance(value, bool) == isinstance(allowed, bool)


def shown(value: Any) -> str:
    """A value for an error message, not too long."""
    found = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, (bool, type(None))) else None
    found = found or repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."


def invalid(expected: str, value: Any, where: str) -> ApiError:
    """A value that is not as it should be."""
    place = where.lstrip(".")
    got = shown(value) if not isinstance(value, (dict, list)) else f"an {kind_of(value)}"
    return ApiError(
        400, f"expected {expected} as {place or 'the body'}; got {got}", place[:100] or None, "invalid_value"
    )
