"""Sending an answer, whole or as a stream of events, for as long as somebody is there to read it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanochat.serve.flight import Flight

Result = TypeVar("Result")

STALL = 30.0  # seconds beyond its time after which a stream that cannot be written is given up


async def unless_gone(work: Coroutine[Any, Any, Result], receive: Receive) -> Result | None:
    """What `work` gives; None, and `work` is stopped, where the client leaves before."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def until_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A stream of events, given up with its flight when the client leaves or stops reading for too long."""

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncIterator[str], flight: Flight) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.blocks, self.flight = blocks, flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> bool:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for block in self.blocks:
                await send({"type": "http.response.body", "body": block.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return True

        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self.flight.left + STALL):
                await unless_gone(write(), receive)
        except TimeoutError:
            pass  # the client has not read for so long that nothing could be sent
        finally:
            self.flight.cancel()
