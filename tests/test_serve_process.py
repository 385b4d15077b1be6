"""`nanochat serve` as a process of its own, on a run with real weights: what it prints, SIGTERM, newer checkpoints."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from nanochat.checkpoint import save
from nanochat.cli import main as command_line
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from tests.scripted import TOKENIZER

ROOT = Path(__file__).parents[1]
SECRET = "my grandmother's Zwetschgendatschi"
CONFIG = GPTConfig(vocab_size=267, n_layer=1, n_head=1, n_kv_head=1, n_embd=16, context=4096)


def train(run: Path, stage: str, step: int) -> None:
    """Leave a checkpoint as a stage does."""
    runtime = Runtime(torch.device("cpu"), torch.float32)
    model = GPT(CONFIG, torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2)
        model.head.weight[256:] = 0  # it never ends: at temperature 0 no special token is the likeliest
    TOKENIZER.save(run / "tokenizer")
    save(run / stage, step, model, None, runtime, {"stage": stage, "tokenizer": TOKENIZER.fingerprint})


@contextlib.contextmanager
def started(home: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its address, and the lines that it printed until it listened."""
    environment = {**os.environ, "NANOCHAT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nanochat", "serve", "--run", "demo", "--port", "0", "--dtype", "float32", *words]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    try:
        while not (lines and (found := re.search(r"http://[\w.:]+", lines[-1]))):
            line = process.stderr.readline()
            assert line, f"it ended: {lines}"
            lines.append(line)
        yield process, found.group(), lines
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_sigterm_lets_an_answer_end_and_nothing_of_it_is_printed(tmp_path: Path) -> None:
    train(tmp_path / "demo", "sft", 3)
    with started(tmp_path) as (process, url, lines):
        for body in ("{", json.dumps({"model": SECRET}), json.dumps({"model": "demo", "messages": [{"role": SECRET}]})):
            assert httpx.post(f"{url}/v1/chat/completions", content=body).status_code in (400, 404)
        assert httpx.get(f"{url}/{SECRET}").status_code == 404
        body = {"model": "demo", "prompt": SECRET, "stream": True, "temperature": 0, "max_tokens": 300}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
            events = stream.iter_lines()
            told = [next(events)]
            process.send_signal(signal.SIGTERM)
            told += [line for line in events if line]
        assert told[-1] == "data: [DONE]"
        assert json.loads(told[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(30) == 0
        assert process.stderr is not None
        printed = "".join(lines) + process.stderr.read()
    assert "demo:sft" in printed
    assert "Zwetschg" not in printed
    assert "Traceback" not in printed


def test_a_run_that_learns_is_served_from_its_first_checkpoint_on(tmp_path: Path) -> None:
    with started(tmp_path, "--wait") as (_, url, _):
        ask = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}
        none_yet = httpx.post(f"{url}/v1/chat/completions", json=ask)
        assert (none_yet.status_code, none_yet.headers["retry-after"]) == (404, "10")
        assert httpx.get(f"{url}/v1/models").json()["data"] == []
        prints = []
        for stage, step in (("pretrain", 1), ("pretrain", 2), ("midtrain", 1)):
            train(tmp_path / "demo", stage, step)
            answer = httpx.post(f"{url}/v1/chat/completions", json=ask, timeout=60).json()
            assert answer["model"] == f"demo:{stage}"
            prints.append(answer["system_fingerprint"])
        assert len(set(prints)) == 3
        listed = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
        assert listed == ["demo:midtrain", "demo:pretrain"]


def test_what_cannot_be_served_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert command_line(["serve", "--port", port]) == 2
        assert command_line(["serve", "--port", "99999"]) == 2
    assert command_line(["serve", "--run", "none", "--port", "0"]) == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert f"expected to listen at 127.0.0.1, port {port}" in first
    assert "name another --port" in second
    assert "expected a run at" in third


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_shown_while_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nanochat run --serve`, as far as the page's figures and the first checkpoint."""
    sources = Path(os.environ.get("NANOCHAT_SOURCES", Path.home() / ".cache" / "nanochat" / "sources"))
    if not sources.exists():
        pytest.skip("needs the Cookbook")
    (tmp_path / "sources").symlink_to(sources)
    environment = {**os.environ, "NANOCHAT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with httpx.Client() as client:
        command = [sys.executable, "-m", "nanochat", "run", "--preset", "tiny", "--serve", "--port", "8765"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                found: list[str] = []
                for _ in range(500):
                    time.sleep(1)
                    assert process.poll() is None
                    with contextlib.suppress(httpx.TransportError):  # not there yet, or too busy with training
                        data = client.get("http://127.0.0.1:8765/v1/models").json()["data"]
                        found = [model["id"] for model in data]
                    if found:
                        break
                assert found == ["tiny:pretrain"]
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:8765/health")
