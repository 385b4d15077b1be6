"""The endpoints that OpenAI's clients know: chat completions, completions, models; and health and metrics."""

import asyncio
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nanochat.errors import UsageError
from nanochat.serve.flight import Flight
from nanochat.serve.jobs import ChatJob, Job, TextJob, as_api_error, ids_of, next_turn, too_long
from nanochat.serve.meters import Meters
from nanochat.serve.models import Models, about
from nanochat.serve.openapi import document
from nanochat.serve.protocol import Defaults, Request, chat_request, completion_request, read_json
from nanochat.serve.replies import compact
from nanochat.serve.stream import EventStream, unless_gone


@dataclass(frozen=True)
class Api:
    """The endpoints over some models. A request may take `seconds`."""

    models: Models
    meters: Meters
    defaults: Defaults
    seconds: float = 300.0

    def routes(self) -> list[Route]:
        """What is answered, and by which path."""
        return [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.one_model, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]

    async def health(self, asked: Asked) -> Response:
        """That the server is up. It is, also before the first model is there."""
        return JSONResponse({"status": "ok", "models": len(self.models.list())})

    async def metrics(self, asked: Asked) -> Response:
        """Figures for Prometheus."""
        return Response(self.meters.text(self.models), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, asked: Asked) -> Response:
        """What this server takes, for programs."""
        return JSONResponse(self.described)

    @cached_property
    def described(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return document()

    async def list_models(self, asked: Asked) -> Response:
        """The models, the default first."""
        return JSONResponse({"object": "list", "data": [self.about(source.id) for source in self.models.list()]})

    async def one_model(self, asked: Asked) -> Response:
        """One of them."""
        name = asked.path_params["name"]
        return JSONResponse(self.about((await self.models.find(name)).id))

    def about(self, name: str) -> dict[str, Any]:
        """A model as it is listed."""
        source = next(source for source in self.models.list() if source.id == name)
        return about(source, self.models.loaded.get(name))

    async def chat(self, asked: Asked) -> Response:
        """`POST /v1/chat/completions`."""
        request = chat_request(read_json(await asked.body()), self.defaults)
        served = await self.models.find(request.model)
        turn = await asyncio.to_thread(next_turn, served.speaker, request)
        return await self.answer(asked, ChatJob(request, served, turn, client_of(asked, request)))

    async def completions(self, asked: Asked) -> Response:
        """`POST /v1/completions`."""
        request = completion_request(read_json(await asked.body()), self.defaults)
        served = await self.models.find(request.model)
        prompts = await asyncio.to_thread(ids_of, served.speaker, request.prompts)
        return await self.answer(asked, TextJob(request, served, prompts, client_of(asked, request)))

    async def answer(self, asked: Asked, job: Job) -> Response:
        """The job's answer, whole or as a stream."""
        try:
            flight = Flight(job.served.scheduler, job.orders(), self.seconds, self.meters)
            flight.__enter__()
        except UsageError as error:  # the prompt is longer than the context
            raise too_long(error) from error
        self.meters.tokens.labels("prompt").inc(sum(len(order.prompt) for order in flight.orders))
        if job.request.stream:
            return EventStream(job.stream(flight), flight)
        return await whole(asked, flight, job)


async def whole(asked: Asked, flight: Flight, job: Job) -> Response:
    """The answers when they are done; nothing, and no more work, for a client that has gone."""

    async def collect() -> Response:
        async for batch in flight:
            for number, event in batch:
                if isinstance(event, Exception):
                    raise as_api_error(event)
                job.take(flight, number, event)
        if flight.is_late:
            for number in range(len(flight.orders)):
                job.take(flight, number, None)
        return Response(compact(job.whole(flight)), media_type="application/json")

    try:
        answer = await unless_gone(collect(), asked.receive)
    finally:
        flight.cancel()
    return answer or Response(status_code=499)  # nobody reads it


def client_of(asked: Asked, request: Request) -> str:
    """Whose request it is, for fair shares."""
    return request.user or (asked.client.host if asked.client else "")
