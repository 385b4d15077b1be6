"""The page's routes under /api/, asked by HTTP; and answers that begin with tokens given to them."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from nanochat.serve.models import Models
from nanochat.tokenizer import message, prompt
from tests.fake_run import fake_run
from tests.scripted import TOKENIZER, said
from tests.serving import drawn, models_of, scripted, serving


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    models = models_of(drawn=drawn(), script=scripted())
    models.run = fake_run(tmp_path_factory.mktemp("runs") / "fake")
    with serving(models) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as made:
        yield made


def asked(client: httpx.Client, path: str, **body: Any) -> Any:
    answer = client.post(path, json={"model": "drawn", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


IDS = [TOKENIZER.special("<|bos|>"), *TOKENIZER.encode("Pancakes, please")]


def test_the_run_is_told(client: httpx.Client) -> None:
    found = client.get("/api/run").json()
    assert found["stage"] == "rl"
    assert found["tools"] == ["calculator", "find"]
    assert found["model"] == {
        "n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "head_size": 16, "context": 96, "vocab_size": 267,
    }  # fmt: skip
    assert found["specials"][str(IDS[0])] == "<|bos|>"
    assert [stage["name"] for stage in found["stages"]] == ["pretrain", "midtrain", "sft", "rl"]


def test_a_run_without_a_model_yet_is_told_too(tmp_path: Path) -> None:
    with serving(Models(list, lambda speaker: None, "new", tmp_path)) as address:  # type: ignore[arg-type,return-value]
        found = httpx.get(f"{address}/api/run", trust_env=False).json()
        assert (found["run"], found["model"], found["stages"]) == ("new", None, [])
        assert httpx.get(f"{address}/api/training", trust_env=False).json()["rows"] == {}
        assert httpx.post(f"{address}/api/tokens", json={"text": "a"}, trust_env=False).status_code == 404


def test_rows_tell_what_was_likely_and_where_was_looked(client: httpx.Client) -> None:
    rows = asked(client, "/api/xray", ids=IDS)["rows"]
    model = drawn().engine.model
    log_p = model.logits(model.features(torch.tensor([IDS])))[0].log_softmax(-1).detach()
    assert [row["token"]["id"] for row in rows] == IDS
    for place, row in enumerate(rows):
        weights = np.frombuffer(base64.b64decode(row["attention"]), np.uint8).reshape(4, place + 1)
        assert (np.abs(weights.sum(1) - 255.0) <= 0.5 * (place + 1)).all()
        assert row["next"][0]["id"] == int(log_p[place].argmax())
        assert row["next"][0]["p"] == pytest.approx(float(log_p[place].max().exp()), abs=1e-3)
        assert row["lens"][-1] == row["next"][:3]
        assert len(row["lens"]) == 3
        assert len(row["memory"]) == 2
        assert row["entropy"] == pytest.approx(float(torch.special.entr(log_p[place].exp()).sum()), abs=1e-3)
        if place + 1 < len(IDS):
            assert row["came"]["p"] == pytest.approx(float(log_p[place, IDS[place + 1]].exp()), abs=1e-3)
            assert row["came"]["rank"] == int((log_p[place] > log_p[place, IDS[place + 1]]).sum()) + 1
    assert "came" not in rows[-1]


def test_one_new_row_a_token(client: httpx.Client) -> None:
    whole = asked(client, "/api/xray", ids=IDS)["rows"]
    last = asked(client, "/api/xray", ids=IDS, start=len(IDS) - 1)
    assert last["start"] == len(IDS) - 1
    assert [row["token"] for row in last["rows"]] == [whole[-1]["token"]]
    assert last["rows"][0]["lens"][-1][0]["id"] == whole[-1]["lens"][-1][0]["id"]
    assert "attention" not in asked(client, "/api/xray", ids=IDS, attention=False)["rows"][0]


def test_a_step_is_timed(client: httpx.Client) -> None:
    parts = asked(client, "/api/time", ids=IDS)["parts"]
    assert [part["part"] for part in parts][:3] == ["embedding", "attention 1", "MLP 1"]
    assert sum(part["milliseconds"] for part in parts) > 0


def test_the_prompt_is_the_one_that_chat_reads(client: httpx.Client) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    expected = prompt(TOKENIZER, [message("system", "Be brief."), message("user", "hi")])
    assert [token["id"] for token in asked(client, "/api/prompt", messages=messages)["tokens"]] == expected


def test_texts_become_tokens_and_merges(client: httpx.Client) -> None:
    text = "Mix <|bos|> 12 żurek"
    found = asked(client, "/api/tokens", text=text)["pieces"]
    assert "".join(piece["text"] for piece in found) == text
    assert [token["id"] for piece in found for token in piece["tokens"]] == TOKENIZER.encode(text)
    assert not any(token["special"] for piece in found for token in piece["tokens"])
    steps = asked(client, "/api/merges", text="Mix")
    assert steps["begin"] == list(b"Mix")
    assert all(str(token) in steps["tokens"] for token in steps["begin"])


def test_curves_are_told_from_a_byte_on(client: httpx.Client) -> None:
    found = client.get("/api/training").json()
    assert set(found["rows"]) == {"pretrain", "midtrain", "sft", "rl"}
    assert client.get("/api/training", params={"since": found["next"]}).json()["rows"] == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("xray", {}), ("xray", {"ids": "abc"}), ("xray", {"ids": [True]}), ("xray", {"ids": []}),
        ("xray", {"ids": [1] * 97}), ("xray", {"ids": [267]}), ("xray", {"ids": [-1]}),
        ("xray", {"ids": [1], "start": 1}),
        ("xray", {"ids": [1], "start": "x"}), ("xray", {"ids": [1], "start": None}), ("xray", {"ids": [1], "model": 7}),
        ("xray", {"ids": [1], "model": "script"}), ("time", {"ids": [1.5]}), ("tokens", {}), ("tokens", {"text": 3}),
        ("tokens", {"text": "a" * 8193}), ("merges", {"text": ""}), ("merges", {"text": "a" * 257}),
        ("prompt", {}), ("prompt", {"messages": []}), ("prompt", {"messages": [{"role": "x"}]}),
        ("prompt", {"messages": [{"role": "user", "content": "a" * 500}]}),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_in_one_line(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = client.post(f"/api/{path}", json={"model": "drawn", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith("expected ")
    assert "\n" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b'"x"', b"\xff", b"[" * 90_000, b"{" + b" " * 300_000 + b"}"])
def test_bodies_that_are_no_object_are_refused(client: httpx.Client, body: bytes) -> None:
    for path in ("xray", "time", "tokens", "merges", "prompt"):
        assert client.post(f"/api/{path}", content=body).status_code in (400, 413)


def forced(client: httpx.Client, question: str, ids: list[int], model: str = "script") -> list[dict[str, Any]]:
    """What is told of each token of an answer that begins with `ids`."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True, "seed": 1,
            "nanochat": {"alternatives": 2, "forced": ids}}  # fmt: skip
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return [httpx.Response(200, content=line).json()["choices"][0]["delta"].get("nanochat", {}) for line in lines]


def test_an_answer_goes_on_from_the_tokens_it_was_given(client: httpx.Client) -> None:
    told = forced(client, "hi", said("Hel"))
    assert [piece["id"] for piece in told[:3]] == said("Hel")
    assert "".join(piece.get("text", "") for piece in told) == "Hello!"


def test_a_forced_call_is_answered_by_its_tool(client: httpx.Client) -> None:
    whole = forced(client, "sum", [])
    drawn_ids = [piece["id"] for piece in whole if piece.get("sampled")]
    again = forced(client, "sum", drawn_ids[:20])
    assert [piece.get("id") for piece in again] == [piece.get("id") for piece in whole]
    assert any(piece.get("kind") == "output" for piece in again)


def test_another_first_token_makes_another_answer(client: httpx.Client) -> None:
    plain = [piece.get("id") for piece in forced(client, "hi", [], "drawn")]
    other = [piece.get("id") for piece in forced(client, "hi", [ord("Z")], "drawn")]
    assert plain[0] != ord("Z")
    assert other[0] == ord("Z")
    body = {"model": "drawn", "messages": [{"role": "user", "content": "hi"}], "nanochat": {"forced": [999]}}
    assert client.post("/v1/chat/completions", json=body).status_code == 400
