"""What the server counts, for Prometheus: never what anybody said."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from nanochat.serve.models import Models

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
GAPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Meters:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "nanochat_requests", "Requests answered", ["path", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "nanochat_request_seconds", "From a request to the end of its answer", ["path"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.open = Gauge("nanochat_open_requests", "Requests being answered", registry=registry)
        self.refused = Counter("nanochat_refused", "Requests refused because the queue was full", registry=registry)
        self.tokens = Counter(
            "nanochat_tokens", "Tokens: of prompts, drawn, put in by tools", ["of"], registry=registry
        )
        self.answers = Counter("nanochat_answers", "Answers, by how they ended", ["finish"], registry=registry)
        self.first_token = Histogram(
            "nanochat_first_token_seconds", "From a request to its first token", buckets=SECONDS, registry=registry
        )
        self.between_tokens = Histogram(
            "nanochat_between_tokens_seconds", "From one token of an answer to the next", buckets=GAPS,
            registry=registry,
        )  # fmt: skip
        self.running = Gauge("nanochat_running", "Answers being written", ["model"], registry=registry)
        self.waiting = Gauge("nanochat_waiting", "Answers in the queue", ["model"], registry=registry)
        self.reused = Gauge(
            "nanochat_reused_tokens", "Tokens of prompts found in the cache", ["model"], registry=registry
        )

    def text(self, models: Models) -> bytes:
        """All figures in Prometheus' text format."""
        for served in models.ready():
            load = served.scheduler.load()
            self.running.labels(served.id).set(load.running)
            self.waiting.labels(served.id).set(load.waiting)
            self.reused.labels(served.id).set(load.tokens_reused)
        return generate_latest(self.registry)
