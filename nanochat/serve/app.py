"""The web application: the API, the page, and the guard before both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from nanochat.serve import xray
from nanochat.serve.api import Api
from nanochat.serve.guard import Guard, Limits, on_http_error
from nanochat.serve.meters import Meters
from nanochat.serve.models import Models
from nanochat.serve.protocol import Defaults

PAGE = Path(__file__).parent / "static"


def create_app(
    models: Models, limits: Limits | None = None, defaults: Defaults | None = None, seconds: float = 300.0
) -> Starlette:
    """All that a server answers. When it ends, the models finish what they were asked.

    An answer may take `seconds`; one that takes longer is cut.
    """
    limits, meters = limits or Limits(), Meters()
    api = Api(models, meters, defaults or Defaults(), seconds)

    @asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        yield
        models.close(drain=True)

    app = Starlette(
        routes=[*api.routes(), *xray.routes(models)],
        middleware=[Middleware(Guard, limits=limits, meters=meters)],
        exception_handlers={HTTPException: on_http_error},
        lifespan=living,
    )
    files, otherwise = StaticFiles(directory=PAGE, html=True), app.router.default

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await (files if scope["type"] == "http" else otherwise)(scope, receive, send)

    # Not a route: a route for every path would take a known path with a wrong method for a file that is not there.
    app.router.default = page
    return app
