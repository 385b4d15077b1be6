"""Many clients that stream at once, and what they saw: each token in its place, how long it took, and fair shares.

The benchmark behind `runs/serve_load.json`, on the shipped run, the server a process of its own:

    python -m tests.serve_load --clients 64 --seconds 120 --out runs/serve_load.json
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]


@dataclass
class Client:
    """One client: the answers that it must get, by question, and what it has seen."""

    wanted: Mapping[str, str]
    model: str
    answers: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds from the request to the first token
    gaps: list[float] = field(default_factory=list)  # seconds from a token to the next

    async def ask_until(self, host: str, port: int, deadline: float, number: int) -> None:
        """Question after question, each on a connection of its own."""
        questions = list(self.wanted)
        while time.monotonic() < deadline:
            question = questions[(number + self.answers) % len(questions)]
            try:
                await self.ask(host, port, question)
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            self.answers += 1

    async def ask(self, host: str, port: int, question: str) -> None:
        """One question; what it brings is compared with what it must."""
        body = json.dumps({"model": self.model, "messages": [{"role": "user", "content": question}],
                           "temperature": 0, "stream": True}).encode()  # fmt: skip
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
        last = time.monotonic()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise ValueError(status.decode().strip())
        events: list[bytes] = []
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                continue
            now = time.monotonic()
            (self.gaps if events else self.first).append(now - last)
            events.append(line)
            last = now
        writer.close()
        self.compare(question, [json.loads(event[6:]) for event in events])

    def compare(self, question: str, chunks: Sequence[Mapping[str, Any]]) -> None:
        """Every token once, in its order, and of no other answer."""
        names = {chunk["id"] for chunk in chunks}
        choices = [chunk["choices"][0] for chunk in chunks]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        self.tokens += len(choices) - 1
        if len(names) != 1 or not choices[-1]["finish_reason"]:
            self.errors.append("answers were mixed, or one had no end")
        if text != self.wanted[question]:
            self.errors.append(f"expected {self.wanted[question][:60]!r}; got {text[:60]!r}")


async def load(url: str, model: str, wanted: Mapping[str, str], clients: int, seconds: float) -> list[Client]:
    """`clients` of them, for so long."""
    place, made = urlsplit(url), [Client(wanted, model) for _ in range(clients)]
    deadline = time.monotonic() + seconds
    await asyncio.gather(
        *(one.ask_until(str(place.hostname), int(place.port or 80), deadline, n) for n, one in enumerate(made))
    )
    return made


def summary(clients: Sequence[Client], seconds: float) -> dict[str, Any]:
    """What they saw, as figures. A share is a client's tokens beside the mean of all."""
    tokens = [client.tokens for client in clients]
    mean = statistics.mean(tokens)
    return {
        "clients": len(clients),
        "seconds": seconds,
        "answers": sum(client.answers for client in clients),
        "tokens": sum(tokens),
        "tokens_per_second": round(sum(tokens) / seconds, 1),
        "errors": sum(len(client.errors) for client in clients),
        "first_token_ms": quantiles([gap for client in clients for gap in client.first]),
        "between_tokens_ms": quantiles([gap for client in clients for gap in client.gaps]),
        "smallest_share": round(min(tokens) / mean, 3),
        "largest_share": round(max(tokens) / mean, 3),
    }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": round(1000 * cuts[49], 1), "p99": round(1000 * cuts[98], 1)}


def resident_mb(process: int) -> float:
    """Memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1024


def measure(clients: int, seconds: float, slots: int) -> dict[str, Any]:
    """The benchmark on the shipped run, in float32, so that every answer is known."""
    from nanochat.checkpoint import find_run
    from nanochat.data import recipes
    from nanochat.engine import Sampling
    from nanochat.runtime import commit, detect, home, machine, versions
    from nanochat.serve.conversation import Session, load_speaker

    runtime = detect("cpu", "float32", threads=1)
    speaker = load_speaker(find_run("reference"), runtime, recipes(home()))
    # As the server draws: see `nanochat.serve.protocol`.
    sampling = Sampling(0.0, 0, 0.95, max_tokens=256, cut_circles=True, logprobs_of="model")
    wanted = {}
    for question in QUESTIONS:
        pieces = Session(speaker, sampling).ask(question)
        wanted[question] = "".join(piece.text for piece in pieces if piece.kind == "text")
    command = [sys.executable, "-m", "nanochat", "serve", "--run", "reference", "--port", "0", "--dtype", "float32",
               "--slots", str(slots), "--queue", str(max(64, clients)), "--alone"]  # fmt: skip
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        url = ""
        while not url:
            line = server.stderr.readline()
            assert line, "the server has ended"
            url = next(iter(re.findall(r"http://[\w.:]+", line)), "")
        asyncio.run(load(url, "reference", wanted, clients, min(10.0, seconds / 4)))  # until all has its size
        before = resident_mb(server.pid)
        began = time.monotonic()
        made = asyncio.run(load(url, "reference", wanted, clients, seconds))
        found = summary(made, time.monotonic() - began)
        after = resident_mb(server.pid)
    finally:
        server.terminate()
        code = server.wait(60)
        server.stderr.close()
    for client in made:
        for error in client.errors[:1]:
            print(error, file=sys.stderr)
    return {
        **found,
        "slots": slots,
        "memory_mb": {"before": round(before, 1), "after": round(after, 1)},
        "exit_code": code,
        "load": round(os.getloadavg()[0], 1),  # of the machine: what else it had to do
        "command": " ".join(["python -m tests.serve_load", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(detect("cpu", "float32")),
        "versions": versions(),
    }


QUESTIONS = (
    "How do I make pancakes?",
    "2 cups of flour serve 4. How much for 10 people?",
    "Who are you?",
    "What is 12 plus 30?",
    "What do I need for banana bread?",
    "How many grams are 3 ounces?",
    "What can I use instead of butter?",
    "Spell tomato.",
)


def main() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # as the command line sets it, before torch is imported
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = json.dumps(measure(chosen.clients, chosen.seconds, chosen.slots), indent=2)
    print(found)
    if chosen.out:
        chosen.out.write_text(found + "\n")


if __name__ == "__main__":
    main()
