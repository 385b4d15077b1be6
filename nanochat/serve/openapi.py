"""What the server takes and gives, as an OpenAPI document: for programs, and for whoever tests the server with one."""

from collections.abc import Mapping
from typing import Any

from nanochat import __version__
from nanochat.serve.schema import CHAT, COMPLETION, Schema

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {"id": {"type": "string"}, "object": {"enum": ["model"]}, "created": {"type": "integer"},
                   "owned_by": {"type": "string"}},
}  # fmt: skip
USAGE: Schema = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {name: {"type": "integer", "minimum": 0}
                   for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
}  # fmt: skip
FINISH: Schema = {"enum": ["stop", "length", "tool_calls"]}


def answers(kind: str, required: tuple[str, ...]) -> dict[str, Any]:
    """A whole answer with its choices."""
    choice = {
        "type": "object",
        "required": ["index", "finish_reason", "logprobs", *required],
        "properties": {"index": {"type": "integer"}, "finish_reason": FINISH},
    }
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage"],
        "properties": {"object": {"enum": [kind]}, "choices": {"type": "array", "items": choice, "minItems": 1},
                       "usage": USAGE},
    }  # fmt: skip


def document() -> dict[str, Any]:
    """The document, by OpenAPI 3.1."""
    models = {"type": "object", "required": ["object", "data"],
              "properties": {"object": {"enum": ["list"]}, "data": {"type": "array", "items": MODEL}}}  # fmt: skip
    health = {"type": "object", "required": ["status"], "properties": {"status": {"enum": ["ok"]}}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nanochat", "version": __version__, "description": "An API in the form of OpenAI's."},
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/chat/completions": {"post": posted(CHAT, answers("chat.completion", ("message",)))},
            "/v1/completions": {"post": posted(COMPLETION, answers("text_completion", ("text",)))},
            "/v1/models": {"get": got(models)},
            "/v1/models/{name}": {"get": got(MODEL, "404") | {"parameters": [name]}},
            "/health": {"get": got(health)},
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def got(answer: Schema, *errors: str) -> dict[str, Any]:
    """An endpoint that is only asked."""
    return {"responses": {"200": as_json("what was asked for", answer), **refusals(*errors)}}


def posted(body: Schema, answer: Schema) -> dict[str, Any]:
    """An endpoint that takes a body, and streams where that asks for it."""
    given = as_json("the answer; a stream of chunks where asked for", answer)
    given["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": given, **refusals("400", "404", "408", "413", "429", "503")},
    }


def refusals(*statuses: str) -> dict[str, Any]:
    """Errors that may come, beside those of the key and of the page that asks."""
    return {status: as_json("refused", ERROR) for status in ("401", "403", *statuses)}


def as_json(description: str, schema: Schema) -> dict[str, Any]:
    """A response."""
    content: Mapping[str, Any] = {"application/json": {"schema": schema}}
    return {"description": description, "content": dict(content)}
