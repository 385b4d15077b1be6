"""Whom the server answers and how much it takes: hosts, origins, keys, sizes, times, a full queue, gone clients."""

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import torch

from nanochat.serve.guard import CSP, Limits
from nanochat.serve.models import Models
from nanochat.serve.server import is_loopback
from tests.serving import drawn, models_of, scripted, serving

HI = {"model": "script", "messages": [{"role": "user", "content": "hi"}]}
LONG = {"model": "drawn", "prompt": "z", "max_tokens": 5000, "temperature": 0, "stream": True}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    models = models_of(script=scripted(), drawn=drawn())
    with serving(models, Limits(body_bytes=20_000, body_seconds=0.5)) as address:
        yield address


def endless(context: int = 5100) -> Models:
    """One model that writes as long as the context is, one answer at a time, with one place in the queue."""
    speaker = drawn(context=context)
    with torch.no_grad():
        speaker.engine.model.head.weight[256:] = 0  # type: ignore[attr-defined]  # never likelier than all bytes
    return models_of(slots=1, queue=1, drawn=speaker)


def figure(url: str, name: str) -> float:
    """A figure of the server's."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def wait_until(is_true: Any) -> None:
    """Wait for something that happens soon."""
    for _ in range(1000):
        if is_true():
            return
        time.sleep(0.02)
    raise AssertionError("it has not happened")


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost.", "evil.example:localhost"]
)
def test_another_host_than_ours_is_not_served(url: str, name: str) -> None:
    answer = httpx.get(f"{url}/v1/models", headers={"Host": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:8000"])
def test_our_own_names_are(url: str, name: str) -> None:
    assert httpx.get(f"{url}/v1/models", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
def test_pages_of_other_origins_are_refused(url: str, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json=HI, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")


def test_our_own_page_is_served_and_may_load_nothing_from_elsewhere(url: str) -> None:
    headers = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
    answer = httpx.post(f"{url}/v1/chat/completions", json=HI, headers=headers)
    assert answer.status_code == 200
    for found in (answer, httpx.get(f"{url}/health"), httpx.get(f"{url}/nothing"), httpx.put(f"{url}/health")):
        assert found.headers["content-security-policy"] == CSP
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in found.headers
    assert re.search(r"default-src 'none'.*script-src 'self'", CSP)
    assert "unsafe" not in CSP


def test_a_key_is_asked_for_where_there_is_one() -> None:
    with serving(models_of(script=scripted()), Limits(hosts=(), api_key="tomato é")) as url:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/api/anything"):
            assert httpx.get(url + path).status_code == 401
        for key in ("", "Bearer", "Bearer tomat", "Basic tomato", "Bearer tomato éé"):
            answer = httpx.post(f"{url}/v1/chat/completions", json=HI, headers={"Authorization": key.encode("latin-1")})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{url}/health", headers={"Host": "any.example"}).status_code == 200
        given = {"Authorization": "Bearer tomato é".encode()}
        assert httpx.get(f"{url}/v1/models", headers=given).status_code == 200


def test_beyond_this_machine_a_key_must_be_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nanochat.cli import main as command_line

    monkeypatch.delenv("NANOCHAT_API_KEY", raising=False)
    assert command_line(["serve", "--host", "0.0.0.0"]) == 2
    error = capsys.readouterr().err
    assert "expected a key for --host 0.0.0.0" in error
    assert error.count("\n") == 1
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.9.1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "")] == [False] * 5


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"null", b'"x"', b"\xff\xfe", b'{"model": NaN}',
     b"[" * 9000, b'{"a":' * 3000 + b"1" + b"}" * 3000,
     b'{"n": 1' + b"0" * 6000 + b"}", b'{"model": 1e999, "messages": []}', b'{"model": "script", "messages": {}}'],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_json_object_is_refused(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]["message"]


def test_half_a_character_is_no_reason_to_fail(url: str) -> None:
    body = b'{"model": "drawn", "max_tokens": 1, "messages": [{"role": "user", "content": "hi \\ud83d there"}]}'
    answer = httpx.post(f"{url}/v1/chat/completions", content=body)
    assert answer.json()["usage"]["prompt_tokens"] == len("hi \ufffd there".encode()) + 4
    named = httpx.post(f"{url}/v1/chat/completions", content=b'{"model": "\\udc00", "messages": []}')
    assert named.status_code == 400


def test_paths_and_methods_that_are_not_served(url: str) -> None:
    for answer, status in ((httpx.get(f"{url}/v1/engines"), 404), (httpx.get(f"{url}/v1/completions"), 405)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, "not_served")
    assert httpx.get(f"{url}/v1/completions").headers["allow"] == "POST"


def test_a_large_body_is_refused_whether_or_not_it_says_so(url: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=b" " * 20_001)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    chunks = (b" " * 1000 for _ in range(30))
    unsaid = httpx.post(f"{url}/v1/chat/completions", content=chunks)
    assert unsaid.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(url: str) -> None:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        assert line.recv(100).startswith(b"HTTP/1.1 408")


def test_a_full_queue_says_when_to_come_again_and_gone_clients_cost_nothing() -> None:
    with serving(endless()) as url, httpx.Client(base_url=url, timeout=60) as client:
        with client.stream("POST", "/v1/completions", json=LONG) as first:
            lines = first.iter_lines()
            assert next(lines).startswith("data: ")
            place = urlsplit(url)
            waiting = http.client.HTTPConnection(str(place.hostname), place.port)
            waiting.request("POST", "/v1/completions", json.dumps({**LONG, "stream": False}))
            wait_until(lambda: figure(url, 'nanochat_waiting{model="drawn"}') == 1)
            refused = httpx.post(f"{url}/v1/completions", json=LONG)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"] | {"message": ""} == {
                "message": "", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded",
            }  # fmt: skip
            waiting.close()  # it has no answer yet, and leaves the queue
            wait_until(lambda: figure(url, 'nanochat_waiting{model="drawn"}') == 0)
        wait_until(lambda: figure(url, 'nanochat_running{model="drawn"}') == 0)
        assert figure(url, 'nanochat_answers_total{finish="cancelled"}') == 2
        assert figure(url, 'nanochat_tokens_total{of="drawn"}') < 5000
        short = client.post("/v1/completions", json={**LONG, "stream": False, "max_tokens": 2})
        assert short.status_code == 200


def test_an_answer_that_takes_too_long_is_cut() -> None:
    with serving(endless(), seconds=0.5) as url, httpx.Client(base_url=url, timeout=60) as client:
        whole = client.post("/v1/completions", json={**LONG, "stream": False}).json()
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] < 5000
        with client.stream("POST", "/v1/completions", json=LONG) as stream:
            events = [line for line in stream.iter_lines() if line]
        assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert events[-1] == "data: [DONE]"


def test_a_server_that_ends_finishes_what_it_has_begun() -> None:
    answers: list[httpx.Response] = []
    with serving(endless()) as url:
        body = {**LONG, "stream": False, "max_tokens": 150}
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/completions", json=body, timeout=60))
        )
        thread.start()
        # Which may have ended before anybody can ask: then nothing was left to finish, and it was finished.
        wait_until(lambda: figure(url, 'nanochat_running{model="drawn"}') == 1 or answers)
    thread.join()
    assert answers[0].json()["usage"]["completion_tokens"] == 150
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
