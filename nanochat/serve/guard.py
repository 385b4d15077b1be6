"""What stands before every endpoint: whom the server answers, how much it reads, and what it tells browsers.

A server on one's own machine can be reached by every page that one's browser shows. So a request must name this
server as its host (against DNS rebinding), and one that a page of another origin makes is refused; what pages of ours
may load is said by a strict Content-Security-Policy.
"""

import asyncio
import hmac
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.serve.jobs import as_api_error
from nanochat.serve.meters import Meters
from nanochat.serve.schema import ApiError

LOCAL = ("localhost", "127.0.0.1", "[::1]")
OPEN = ("/health",)  # to be asked without a key
KEYED = ("/v1/", "/api/", "/metrics", "/openapi.json")  # the page itself holds no secrets
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Limits:
    """How much of what a server takes. `hosts` are names that it is reached by; none given: any."""

    hosts: Collection[str] = LOCAL
    api_key: str = ""
    body_bytes: int = 2_000_000
    body_seconds: float = 30.0


class Guard:
    """Middleware with all of this; counts requests besides, and lets no error out but in OpenAI's form."""

    def __init__(self, app: ASGIApp, limits: Limits, meters: Meters) -> None:
        self.app, self.limits, self.meters = app, limits, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-cache" if scope["method"] == "GET" else "no-store")
            await send(message)

        with self.meters.open.track_inprogress():
            try:
                self.admit(scope)
                await self.app(scope, self.limited(scope, receive), send_guarded)
            except Exception as error:
                told = as_api_error(error)
                if not status:  # or else the response has begun, and its end is all that can be told
                    await refusal(told)(scope, receive, send_guarded)
        path = path_of(scope)
        self.meters.requests.labels(path, scope["method"] if path else "", str(status)).inc()
        self.meters.seconds.labels(path).observe(time.monotonic() - began)

    def admit(self, scope: Scope) -> None:
        """Raises ApiError for a request that is not to be answered."""
        headers, limits = Headers(scope=scope), self.limits
        host = headers.get("host", "")
        if limits.hosts and name_of(host) not in limits.hosts:
            raise ApiError(403, f"expected this server's name as host; got {host[:100]!r}", code="wrong_host")
        origin = headers.get("origin")
        if (origin and origin.partition("://")[2] != host) or headers.get("sec-fetch-site") in (
            "cross-site",
            "same-site",
        ):
            raise ApiError(403, "expected a request from this server's own pages; got one from another origin",
                           code="wrong_origin")  # fmt: skip
        path = scope["path"]
        if limits.api_key and path.startswith(KEYED) and path not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), limits.api_key.encode()):
                raise ApiError(401, "expected the server's key as `Authorization: Bearer KEY`", code="invalid_api_key",
                               headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
        size = headers.get("content-length", "0")
        if size.isdigit() and int(size) > limits.body_bytes:
            raise too_large(limits)

    def limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` for a body of limited size that comes in limited time."""
        read, is_read = 0, False
        deadline = time.monotonic() + self.limits.body_seconds

        async def receive_limited() -> Message:
            nonlocal read, is_read
            if is_read:
                return await receive()  # waits until the client leaves
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise ApiError(408, "expected the whole body in time; got a part of it", code="timeout",
                               headers={"Connection": "close"}) from None  # fmt: skip
            read += len(message.get("body", b""))
            is_read = not message.get("more_body", False)
            if read > self.limits.body_bytes:
                raise too_large(self.limits)
            return message

        return receive_limited


def name_of(host: str) -> str:
    """A host without its port, in small letters."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def too_large(limits: Limits) -> ApiError:
    """A body beyond the limit."""
    return ApiError(413, f"expected a body of at most {limits.body_bytes:,} bytes; got more", code="too_large",
                    headers={"Connection": "close"})  # fmt: skip


def path_of(scope: Scope) -> str:
    """The path as its route is written, so that no client can make up new names for the figures."""
    route = scope.get("route")
    return getattr(route, "path", "") or ""


def refusal(error: ApiError) -> JSONResponse:
    """The response that tells of an error."""
    return JSONResponse(error.body, error.status, error.headers)


async def on_http_error(asked: Asked, error: Exception) -> Response:
    """Starlette's own errors, such as an unknown path, in the same form."""
    assert isinstance(error, HTTPException)
    words = {404: "expected a path of this server", 405: "expected another method for this path"}
    found = ApiError(error.status_code, words.get(error.status_code, error.detail), code="not_served")
    headers: Mapping[str, str] = error.headers or {}
    return JSONResponse(found.body, error.status_code, dict(headers))
