"""64 clients at once for some seconds; `runs/serve_load.json` has two minutes of it on the shipped run."""

import asyncio
import json
from pathlib import Path

import pytest

from nanochat.engine import Sampling
from nanochat.serve.conversation import Session
from tests.serve_load import load, summary
from tests.serving import drawn, models_of, serving

ROOT = Path(__file__).parents[1]
QUESTIONS = tuple(f"question {number}" for number in range(24))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("slots", [64, 5])
def test_64_clients_get_each_its_own_answer(slots: int) -> None:
    sampling = Sampling(0.0, 0, 0.95, max_tokens=256, cut_circles=True, logprobs_of="model")
    wanted = {}
    for question in QUESTIONS:
        pieces = Session(drawn(), sampling).ask(question)
        wanted[question] = "".join(piece.text for piece in pieces if piece.kind == "text")
    assert len(set(wanted.values())) > 6
    with serving(models_of(slots=slots, queue=64, drawn=drawn())) as url:
        clients = asyncio.run(load(url, "drawn", wanted, 64, 8.0))
    found = summary(clients, 8.0)
    assert [error for client in clients for error in client.errors] == []
    assert min(client.answers for client in clients) >= 1
    assert found["tokens"] > 64


def test_the_record_is_of_two_minutes_without_a_fault() -> None:
    record = json.loads((ROOT / "runs" / "serve_load.json").read_text(encoding="utf-8"))
    assert (record["clients"], record["errors"], record["exit_code"]) == (64, 0, 0)
    assert record["seconds"] >= 120
    assert not record["commit"].endswith("+")
    assert record["memory_mb"]["after"] < 1.1 * record["memory_mb"]["before"]
    assert 0.5 < record["smallest_share"] <= 1 <= record["largest_share"] < 2
