"""Routes of the page's own, under `/api/`."""

from starlette.routing import BaseRoute

from nanochat.serve.models import Models


def routes(models: Models) -> list[BaseRoute]:
    """None yet."""
    return []
