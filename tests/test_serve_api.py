"""The API as OpenAI's own client sees it, and held to the terminal's chat: one seed, one answer."""

import asyncio
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from nanochat.engine import Sampling
from nanochat.serve.conversation import Session
from tests.scripted import BOS, TOKENIZER
from tests.serving import BOOK, drawn, models_of, scripted, serving

TERMINAL = Sampling(0.2, 0, 0.95, max_tokens=256, seed=5, cut_circles=True, logprobs_of="model")
CALCULATOR = {"type": "function", "function": {"name": "calculator", "parameters": {
    "type": "object", "properties": {"expression": {"type": "string"}}}}}  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    models = models_of(script=scripted(), drawn=drawn(), plain=drawn("pretrain"))
    with serving(models) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def asked(*texts: str) -> list[dict[str, str]]:
    """A conversation, the user first."""
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]


def test_a_question_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="script", messages=asked("hi"))
    assert answer.object == "chat.completion"
    assert answer.model == "script"
    assert answer.system_fingerprint
    assert answer.choices[0].message.content == "Hello!"
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("hi") + 4
    assert answer.usage.completion_tokens == len("Hello!") + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    options = {"model": "drawn", "messages": asked("naïve"), "seed": 3, "max_tokens": 40, "temperature": 1.0}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


def test_characters_are_never_cut(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="script", messages=asked("naïve"), stream=True)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == "crème brûlée 🍰 für dich"
    assert not any("\ufffd" in text for text in texts)


def test_the_async_client_gets_many_answers_at_once(url: str) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def one(question: str) -> str:
                stream = await client.chat.completions.create(model="script", messages=asked(question), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(question) for question in ("hi", "flour", "hi", "again", "sum") * 4))

    assert asyncio.run(ask()) == ["Hello!", "2 cups.", "Hello!", "As I said.", "It is 42 cups."] * 4


@pytest.mark.parametrize("model", ["drawn", "plain"])
def test_it_says_what_the_terminal_says(client: openai.OpenAI, model: str) -> None:
    """Three turns, as the terminal's chat has them and as a client has that sends messages back as they came."""
    session = Session(drawn("pretrain" if model == "plain" else "rl"), TERMINAL, "Be kind.")
    messages: list[Any] = [{"role": "system", "content": "Be kind."}]
    for question in ("hello there", "and more", "at last"):
        turn = session.ask(question)
        texts = [piece.text for piece in turn if piece.kind == "text"]
        session.keep(turn)
        messages.append({"role": "user", "content": question})
        answer = client.chat.completions.create(model=model, messages=messages, seed=5)
        assert answer.choices[0].message.content == "".join(texts)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(turn.ids)
        messages.append(answer.choices[0].message)


def test_a_long_past_is_forgotten_as_in_the_terminal(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="drawn", messages=asked("x" * 40, "y" * 40, "hi"), max_tokens=1)
    assert answer.choices[0].message.nanochat["num_dropped"] == 2  # type: ignore[attr-defined]
    with pytest.raises(openai.BadRequestError, match="expected a message that fits into 77 tokens") as error:
        client.chat.completions.create(model="drawn", messages=asked("x" * 200))
    assert error.value.code == "context_length_exceeded"


def test_the_servers_own_tools(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="script", messages=asked("sum"))
    said = answer.choices[0].message
    assert said.content == "It is 42 cups."
    assert said.tool_calls is not None
    (call,) = said.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("calculator", {"argument": "6*7"})
    assert answer.choices[0].finish_reason == "stop"
    parts = said.nanochat["parts"]  # type: ignore[attr-defined]
    assert [part["type"] for part in parts] == ["text", "call", "output", "text"]
    assert parts[2]["text"] == "42"


def test_calls_in_a_stream_come_whole_and_outputs_are_no_content(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="script", messages=asked("two"), stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [(call.index, call.function.arguments) for call in calls if call.function] == [
        (0, '{"argument": "1+1"}'), (1, '{"argument": "2+2"}'),
    ]  # fmt: skip
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "2 and 4."
    told = [chunk.choices[0].delta.nanochat for chunk in chunks]  # type: ignore[attr-defined]
    assert "".join(one["text"] for one in told if one.get("kind") == "output") == "24"
    assert told[-1]["finish"] == "stop"


def test_an_answer_with_calls_is_remembered_by_its_first_line_however_it_is_sent_back(client: openai.OpenAI) -> None:
    """As a message, and as the fields that OpenAI's form has; the terminal's prompt is the measure."""
    session = Session(scripted(), dataclasses.replace(TERMINAL, temperature=0.0))
    turn = session.ask("pancakes")
    list(turn)
    session.keep(turn)
    wanted = len(session.ask("again").ids)
    first = client.chat.completions.create(model="script", messages=asked("pancakes")).choices[0].message
    assert first.content == BOOK
    assert first.nanochat["provenance"] == "found"  # type: ignore[attr-defined]
    bare = {"role": "assistant", "content": first.content,
            "tool_calls": [call.model_dump() for call in first.tool_calls or []]}  # fmt: skip
    for sent in (first, bare):
        messages: list[Any] = [*asked("pancakes"), sent, {"role": "user", "content": "again"}]
        answer = client.chat.completions.create(model="script", messages=messages)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == wanted
        assert answer.choices[0].message.content == "As I said."


def test_a_client_that_brings_tools_runs_them(client: openai.OpenAI) -> None:
    messages: list[Any] = asked("sum")
    answer = client.chat.completions.create(model="script", messages=messages, tools=[CALCULATOR])  # type: ignore[list-item]
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "It is "
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"expression": "6*7"}
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "41"}]
    after = client.chat.completions.create(model="script", messages=messages, tools=[CALCULATOR])  # type: ignore[list-item]
    assert after.choices[0].message.content == "42 cups."
    assert after.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "weather"}}]}, "tools[0].function.name"),
        ({"tools": [{**CALCULATOR, "function": {"name": "find", "parameters": {
            "type": "object", "properties": {"n": {"type": "integer"}}}}}]}, "tools[0].function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"5": 1}}, "logit_bias.5"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "clown", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, "messages[0]"),
        ({"messages": [*asked("hi"), {"role": "system", "content": "late"}]}, "messages[1]"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_name(client: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{"model": "script", "messages": asked("hi"), **options})
    assert (error.value.param, error.value.type) == (param, "invalid_request_error")
    assert "expected" in error.value.message


@pytest.mark.parametrize(
    "messages",
    [asked("hi", "there"), [{"role": "system", "content": "x"}], [{"role": "user", "content": ""}], asked("hi", "")],
)
def test_what_is_no_conversation_is_refused(client: openai.OpenAI, messages: list[Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="expected"):
        client.chat.completions.create(model="script", messages=messages)


def test_neighbouring_messages_of_one_role_are_one(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "fl"}, {"type": "text", "text": "our"}]},
    ]
    answer = client.chat.completions.create(model="script", messages=messages)
    assert answer.choices[0].message.content == "2 cups."
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("Be kind.\n\nBe brief.flour") + 6


def test_a_seed_repeats_an_answer_and_n_gives_different_ones(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "drawn", "messages": asked("hello"), "temperature": 1.0, "max_tokens": 24}
    two = [client.chat.completions.create(**options, seed=11, n=3) for _ in range(2)]
    texts = [[choice.message.content for choice in answer.choices] for answer in two]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3
    assert client.chat.completions.create(**options, seed=11).choices[0].message.content == texts[0][0]
    unseeded = client.chat.completions.create(**options)
    seed = unseeded.choices[0].message.nanochat["seed"]  # type: ignore[attr-defined]
    again = client.chat.completions.create(**options, seed=seed)
    assert again.choices[0].message.content == unseeded.choices[0].message.content


def test_streams_of_several_answers_are_told_apart(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "drawn", "messages": asked("hello"), "temperature": 1.0, "seed": 2, "n": 3}
    whole = client.chat.completions.create(**options, max_tokens=16)
    found = ["", "", ""]
    for chunk in client.chat.completions.create(**options, max_tokens=16, stream=True):
        found[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert found == [choice.message.content for choice in whole.choices]


def test_a_stop_string_ends_an_answer_and_is_not_in_it(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="script", messages=asked("again"), stop=["said", "zzz"])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("As I ", "stop")
    cut = client.chat.completions.create(model="script", messages=asked("again"), max_completion_tokens=4)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("As I", "length")


@pytest.mark.parametrize(("question", "content"), [("wrong", "So "), ("nameless", "So on"), ("empty", "")])
def test_what_a_young_model_does_is_no_error(client: openai.OpenAI, question: str, content: str) -> None:
    answer = client.chat.completions.create(model="script", messages=asked(question))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (content, "stop")
    handed = client.chat.completions.create(model="script", messages=asked(question), tools=[CALCULATOR])  # type: ignore[list-item]
    assert handed.choices[0].finish_reason == "stop"


def test_logprobs_are_the_models_own(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "drawn", "messages": asked("hello"), "seed": 4, "max_tokens": 12}
    answer = client.chat.completions.create(**options, logprobs=True, top_logprobs=20)
    session = Session(drawn(), dataclasses.replace(TERMINAL, seed=4, max_tokens=12))
    pieces = [piece for piece in session.ask("hello") if piece.kind == "text" and TOKENIZER.token_bytes(piece.id)]
    assert answer.choices[0].logprobs is not None
    told = answer.choices[0].logprobs.content
    assert told is not None
    assert [one.logprob for one in told] == pytest.approx([piece.logprob for piece in pieces], abs=1e-4)
    assert b"".join(bytes(one.bytes or []) for one in told) == TOKENIZER.decode_bytes([p.id for p in pieces])
    for one in told:
        assert len(one.top_logprobs) == 20
        assert sorted((top.logprob for top in one.top_logprobs), reverse=True) == [t.logprob for t in one.top_logprobs]
        assert len({top.token for top in one.top_logprobs}) == 20
    streamed = []
    for chunk in client.chat.completions.create(**options, logprobs=True, stream=True):
        logprobs = chunk.choices[0].logprobs
        streamed += (logprobs.content or []) if logprobs else []
    assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in told], abs=1e-5)


def test_alternatives_come_on_request(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "drawn", "messages": asked("hello"), "max_tokens": 3, "stream": True}
    plain = [chunk.choices[0].delta.nanochat for chunk in client.chat.completions.create(**options)]  # type: ignore[attr-defined]
    assert all("alternatives" not in one for one in plain)
    watched = client.chat.completions.create(**options, extra_body={"nanochat": {"alternatives": 4}})
    told = [chunk.choices[0].delta.nanochat for chunk in watched][:-1]  # type: ignore[attr-defined]
    assert len(told) == 3
    for one in told:
        assert len(one["alternatives"]) == 4
        assert one["entropy"] > 0
        assert one["text"] is not None


def test_completions_of_texts_and_of_ids(client: openai.OpenAI) -> None:
    ids = TOKENIZER.encode("one two")
    options: dict[str, Any] = {"model": "drawn", "seed": 1, "max_tokens": 8, "temperature": 0}
    by_text = client.completions.create(prompt="one two", **options)
    assert by_text.object == "text_completion"
    assert by_text.usage is not None
    assert by_text.usage.prompt_tokens == len(ids) + 1  # behind <|bos|>
    assert client.completions.create(prompt=[BOS, *ids], **options).choices[0].text == by_text.choices[0].text
    many = client.completions.create(prompt=["one two", "three"], **options)
    assert [choice.index for choice in many.choices] == [0, 1]
    assert many.choices[0].text == by_text.choices[0].text
    lists = client.completions.create(prompt=[[BOS, *ids], [BOS, *TOKENIZER.encode("three")]], **options)
    assert [choice.text for choice in lists.choices] == [choice.text for choice in many.choices]
    streamed = client.completions.create(prompt=["one two", "three"], stream=True, **options)
    texts = ["", ""]
    for chunk in streamed:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in many.choices]
    assert len(client.completions.create(prompt="one", n=2, **options).choices) == 2


def test_echo_tells_what_the_model_thinks_of_a_prompt(client: openai.OpenAI) -> None:
    """Against the model itself, token by token."""
    import torch

    prompt = [BOS, *TOKENIZER.encode("good bread é")]
    model = drawn().engine.model
    with torch.inference_mode():
        cache = model.empty_cache(1, len(prompt))
        scores = model.logits(model.features(torch.tensor([prompt]), cache))[0].log_softmax(-1)
    truth = [scores[place, token].item() for place, token in enumerate(prompt[1:])]
    for max_tokens in (0, 1):
        answer = client.completions.create(
            model="drawn", prompt=prompt, echo=True, logprobs=2, max_tokens=max_tokens, temperature=0
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.token_logprobs is not None
        assert logprobs.token_logprobs[0] is None
        assert logprobs.token_logprobs[1 : len(prompt)] == pytest.approx(truth, abs=1e-4)
        assert len(logprobs.token_logprobs) == len(prompt) + max_tokens
        assert answer.choices[0].text.startswith("good bread é")
        assert logprobs.top_logprobs is not None
        assert logprobs.tokens is not None
        assert logprobs.top_logprobs[0] is None
        assert logprobs.text_offset is not None
        for name, at in zip(logprobs.tokens, logprobs.text_offset, strict=True):
            if not name.startswith(("bytes:", "<|")):
                assert answer.choices[0].text[at : at + len(name)] == name
        for name, own, tops in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True))[
            1:
        ]:
            assert tops[name] == own
            assert 2 <= len(tops) <= 3
    first = next(iter(answer.choices[0].logprobs.top_logprobs[1].values()))  # type: ignore[index, union-attr]
    assert first == pytest.approx(scores[0].max().item(), abs=1e-4)
    streamed = client.completions.create(
        model="drawn", prompt=prompt, echo=True, logprobs=0, max_tokens=2, temperature=0, stream=True
    )
    values = [value for chunk in streamed for value in chunk.choices[0].logprobs.token_logprobs]  # type: ignore[union-attr]
    assert values[1 : len(prompt)] == pytest.approx(truth, abs=1e-4)
    assert len(values) == len(prompt) + 2


def test_a_prompt_that_fills_the_context_is_scored_and_not_continued(client: openai.OpenAI) -> None:
    full = [BOS, *TOKENIZER.encode("z" * 95)]
    answer = client.completions.create(model="drawn", prompt=full, echo=True, logprobs=1, max_tokens=0)
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.tokens or []) == 96
    with pytest.raises(openai.BadRequestError, match="expected a prompt of 1 to 96 tokens") as error:
        client.completions.create(model="drawn", prompt=[*full, 5])
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="expected token ids from 0 to 266"):
        client.completions.create(model="drawn", prompt=[1, 999])


@pytest.mark.parametrize(
    "options", [{"max_tokens": 0}, {"suffix": "x"}, {"best_of": 3}, {"logprobs": 6}, {"prompt": []}]
)
def test_completions_refuse_what_they_do_not_do(client: openai.OpenAI, options: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.completions.create(**{"model": "drawn", "prompt": "x", **options})


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["script", "drawn", "plain"]
    assert client.models.retrieve("drawn").id == "drawn"
    assert client.chat.completions.create(model="nanochat", messages=asked("hi")).model == "script"
    with pytest.raises(openai.NotFoundError, match="expected a model of this server; got 'gpt'") as error:
        client.chat.completions.create(model="gpt", messages=asked("hi"))
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such/model")


def test_health_and_figures(client: openai.OpenAI, url: str) -> None:
    client.chat.completions.create(model="script", messages=asked("sum"))
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "models": 3}
    told = httpx.get(f"{url}/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=")
    figures = dict(line.rsplit(" ", 1) for line in told.text.splitlines() if not line.startswith("#"))
    assert float(figures['nanochat_answers_total{finish="stop"}']) >= 1
    assert float(figures['nanochat_tokens_total{of="drawn"}']) >= len("It is calculator 6*742 cups.")
    assert float(figures['nanochat_tokens_total{of="by tools"}']) >= 4
    assert float(figures['nanochat_requests_total{method="POST",path="/v1/chat/completions",status="200"}']) >= 1
    assert math.isfinite(float(figures['nanochat_running{model="script"}']))
    assert "nanochat_first_token_seconds_bucket" in told.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_is_told_and_logged_and_loaded_again(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The log says where, the client hears of no more than that; what comes next is answered."""
    models = models_of(script=scripted())
    with serving(models) as address, httpx.Client(base_url=address, timeout=60) as client:
        body = {"model": "script", "messages": asked("hi"), "stream": stream}
        assert "Hello" in client.post("/v1/chat/completions", json=body | {"stream": False}).text
        decoder = models.loaded["script"].scheduler.decoder
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoder, "read", lambda runs: 1 // 0)
            failed = client.post("/v1/chat/completions", json=body)
        assert failed.status_code == (200 if stream else 500)
        assert '"code":"internal_error"' in failed.text.replace(": ", ":")
        assert ("ZeroDivisionError" in caplog.text) and ("ZeroDivisionError" not in failed.text)
        assert "hi" not in [record.getMessage() for record in caplog.records]
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        caplog.clear()
        wrong = client.post("/v1/chat/completions", json={"model": "script", "messages": asked("")})
        assert (wrong.status_code, caplog.text) == (400, "")
