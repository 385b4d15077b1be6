"""Whatever is sent, the server answers: never with a fault of its own, never not at all, and as it documents itself."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st

from nanochat.serve.openapi import document
from nanochat.serve.protocol import Defaults, chat_request, completion_request, read_json
from nanochat.serve.schema import CHAT, COMPLETION, ApiError
from nanochat.tokenizer import Message
from tests.serving import drawn, models_of, serving

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/x", "/health", "/metrics", "/", "/v1")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
CALLS = st.fixed_dictionaries(
    {
        "id": st.just("x"),
        "function": st.fixed_dictionaries(
            {"name": st.text(min_size=1, max_size=9), "arguments": JSON.map(json.dumps) | st.text(max_size=9)}
        ),
    }
)
CHAOS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text(max_size=30)},
        optional={"tool_call_id": st.just("x"), "nanochat": JSON, "tool_calls": st.lists(CALLS, max_size=2)},
    ),
    min_size=1,
    max_size=5,
)
CONVERSATIONS = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5).map(
    lambda texts: [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate(texts[: len(texts) - 1 + len(texts) % 2])
    ]
)
METHODS = ("GET", "POST", "PUT", "OPTIONS", "HEAD")
ANYHOW = list(hypothesis.HealthCheck)  # a server takes its time


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(models_of(slots=4, queue=64, drawn=drawn())) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as made:
        yield made


def bodies(schema: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Requests with fields that exist, and values that may or may not be right."""
    fields = dict.fromkeys(schema["properties"], JSON)
    right = {
        "model": st.sampled_from(["drawn", "nanochat", "other"]),
        "messages": CONVERSATIONS | CHAOS,
        "prompt": st.text(min_size=1, max_size=30) | st.lists(st.integers(0, 300), min_size=1, max_size=20),
        "max_tokens": st.integers(0, 6),
        "n": st.integers(1, 3), "seed": st.integers(), "temperature": st.floats(0, 2), "top_p": st.floats(0, 1),
        "stop": st.lists(st.text(min_size=1, max_size=3), max_size=4),
        "logprobs": st.booleans() if "messages" in schema["properties"] else st.integers(0, 5),
        "echo": st.booleans(), "stream": st.booleans(), "top_k": st.integers(0, 300),
    }  # fmt: skip
    known = {name: right.get(name, st.none()) for name in fields}
    required = {name: known.pop(name) for name in schema["required"]}
    good = st.fixed_dictionaries(required, optional=known)
    spoiled = st.fixed_dictionaries({}, optional=fields)
    return st.tuples(good, spoiled, st.integers(0, 3)).map(lambda it: {**it[0], **(it[1] if it[2] == 3 else {})})


@pytest.mark.parametrize("examples", [25, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize(("path", "schema"), [(PATHS[0], CHAT), (PATHS[1], COMPLETION)], ids=["chat", "text"])
def test_no_request_is_a_fault_of_the_server(client: httpx.Client, path: str, schema: Any, examples: int) -> None:
    statuses = set()

    @hypothesis.given(bodies(schema))
    @hypothesis.settings(max_examples=examples, suppress_health_check=ANYHOW)
    def ask(body: dict[str, Any]) -> None:
        answer = client.post(path, content=json.dumps(body))
        statuses.add(answer.status_code)
        if answer.status_code == 200 and body.get("stream"):
            events = answer.text.split("\n\n")
            assert events[-2:] == ["data: [DONE]", ""]
            for event in events[:-2]:
                assert event.startswith(":") or "error" not in json.loads(event.removeprefix("data: "))
        elif answer.status_code == 200:
            assert answer.json()["choices"]
        else:
            assert answer.status_code in (400, 404), answer.text
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    ask()
    assert {200, 400} <= statuses


@hypothesis.given(st.sampled_from(PATHS), st.sampled_from(METHODS), st.binary(max_size=60))
@hypothesis.settings(max_examples=25, suppress_health_check=ANYHOW)
def test_no_bytes_are_a_fault_of_the_server(client: httpx.Client, path: str, method: str, body: bytes) -> None:
    assert client.request(method, path, content=body).status_code < 500


@hypothesis.given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_reading_a_body_gives_an_object_or_an_error_of_the_api(body: bytes) -> None:
    try:
        found = read_json(body)
    except ApiError as error:
        assert error.status == 400
        return
    json.dumps(found, allow_nan=False).encode()
    for read in (chat_request, completion_request):
        with pytest.raises(ApiError):
            read(found, Defaults())


@hypothesis.given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=9)), max_size=6))
def test_a_conversation_says_what_its_messages_say(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in [("user", "q"), *turns]]
    request = chat_request({"model": "m", "messages": messages}, Defaults())
    joined = "".join(said.text for said in request.conversation)
    assert [letter for letter in joined if letter != "\n"] == [
        letter for _, text in [("", "q"), *turns] for letter in text if letter != "\n"
    ]
    roles = [said.role for said in request.conversation]
    assert all(isinstance(said, Message) for said in request.conversation)
    assert all(one != other for one, other in pairwise(roles))


SCHEMA = schemathesis.openapi.from_dict(document())
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.CHECKS.get_one("status_code_conformance"),
    schemathesis.checks.CHECKS.get_one("content_type_conformance"),
    schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
    schemathesis.checks.CHECKS.get_one("negative_data_rejection"),
]


@pytest.mark.slow
@SCHEMA.parametrize()
@hypothesis.settings(max_examples=150, suppress_health_check=ANYHOW)
def test_the_server_does_what_its_document_says(case: schemathesis.Case, url: str) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
        case.body["max_tokens"] = min(case.body["max_tokens"], 8)
    assert case.call_and_validate(base_url=url, checks=CHECKS).status_code < 500
