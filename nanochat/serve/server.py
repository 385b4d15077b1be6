"""`nanochat serve`: a model on this machine, for programs that speak to OpenAI's API and for the page."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass

import uvicorn
from rich.console import Console
from starlette.applications import Starlette

from nanochat.checkpoint import find_run, run_folder
from nanochat.config import parse
from nanochat.data import recipes
from nanochat.errors import DataError, UsageError
from nanochat.runtime import detect, home
from nanochat.scheduler import Scheduler
from nanochat.serve.app import create_app
from nanochat.serve.conversation import Speaker
from nanochat.serve.guard import LOCAL, Limits
from nanochat.serve.models import Models, stages_to_serve
from nanochat.serve.protocol import Defaults

KEY_VARIABLE = "NANOCHAT_API_KEY"
MOST_CONNECTIONS = 1024  # beyond these a connection is answered 503 and closed
IDLE_SECONDS = 30  # that a connection is kept for a next request


@dataclass(frozen=True)
class ServeConfig:
    """Serve a run over HTTP, in the form of OpenAI's API, with a page to chat in. Ctrl-C or SIGTERM ends it: what was
    begun is finished first."""

    run: str = ""
    """NAME[:stage] of a run; by default the preset's run, and its last stage. Clients may ask every stage of it"""
    preset: str = "laptop"
    """whose run it is, where --run names none"""
    host: str = "127.0.0.1"
    """address to listen at; one beyond this machine needs a key"""
    port: int = 8000
    """0: any that is free"""
    api_key: str = ""
    """that clients must send; better in the variable NANOCHAT_API_KEY, where no list of processes shows it"""
    names: tuple[str, ...] = ()
    """other names that the server is reached by, such as a proxy's; beyond 127.0.0.1, where none is given: any"""
    alone: bool = False
    """serve this stage only"""
    wait: bool = False
    """start before the run has saved anything; the newest checkpoint is served as soon as there is one"""
    slots: int = 16
    """answers written at once"""
    queue: int = 64
    """answers that may wait; beyond these clients are told to come again (429)"""
    temperature: float = 0.2
    """where a request says none"""
    top_p: float = 0.95
    """where a request says none"""
    max_tokens: int = 256
    """where a request says none"""
    seconds: float = 300.0
    """longest time for an answer"""
    drain_seconds: int = 60
    """longest wait for what was begun, when the server ends"""
    open: bool = False
    """show the page in a browser"""
    threads: int = 0
    """of the processor; 0: one a core"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""
    deterministic: bool = False
    """a seed gives the same bits whatever else is asked at the time; slower"""

    AT_LEAST_ONE = ("slots", "queue", "max_tokens", "seconds")


def main(argv: Sequence[str]) -> int:
    """The verb `serve`."""
    config = parse(ServeConfig, argv, prog="nanochat serve")
    key = config.api_key or os.environ.get(KEY_VARIABLE, "")
    is_local = is_loopback(config.host)
    if not is_local and not key:
        raise UsageError(f"a key for --host {config.host}, which others can reach", "none", f"set {KEY_VARIABLE}")
    console = Console(stderr=True, highlight=False)
    hosts = (*LOCAL, config.host.lower(), *map(str.lower, config.names)) if is_local or config.names else ()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    with bound(config) as listener:
        models = open_models(config, console)
        defaults = Defaults(config.temperature, config.top_p, config.max_tokens)
        app = create_app(models, Limits(hosts, key), defaults, config.seconds)
        return listen(config, app, listener, console)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def open_models(config: ServeConfig, console: Console) -> Models:
    """The run's models; the default is loaded now, so that a fault shows at once and no question waits for it."""
    name, _, stage = config.run.partition(":")
    run = run_folder(name or config.preset)
    if not config.wait:
        stage = find_run(config.run, config.preset).name
    runtime = detect(config.device, config.dtype, config.threads, config.deterministic)
    try:
        kitchen = recipes(home())
    except DataError as error:
        console.print(f"serving without the Cookbook, recipes will be invented: {error}", style="yellow", markup=False)
        kitchen = []

    def open_scheduler(speaker: Speaker) -> Scheduler:
        return Scheduler(speaker.engine, config.slots, config.queue, deterministic=config.deterministic)

    models = Models(stages_to_serve(run, stage, runtime, kitchen, config.alone), open_scheduler, run.name, run)
    if models.list():
        served = models.load()
        console.print(f"{served.id}, {served.source.version}; also: "
                      f"{', '.join(source.id for source in models.list()[1:]) or 'nothing'}")  # fmt: skip
    return models


def listen(config: ServeConfig, app: Starlette, listener: socket.socket, console: Console) -> int:
    """Serve until a signal comes; then finish what was begun. 0 after SIGTERM; Ctrl-C is KeyboardInterrupt."""
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=config.drain_seconds,
    )
    server = Announced(settings, console, config.open)
    # uvicorn raises a signal again when it has drained: SIGTERM has then done its work.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def bound(config: ServeConfig) -> socket.socket:
    """The socket to listen at, taken before anything is loaded. Raises UsageError where it cannot be had."""
    host = config.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    remedy = "name another --port, or 0 for any that is free"
    if config.port > 65535:
        raise UsageError("a --port up to 65535", str(config.port), remedy)
    try:
        return socket.create_server((host, config.port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise UsageError(f"to listen at {host}, port {config.port}", str(error), remedy) from error


class Announced(uvicorn.Server):
    """A server that says where it listens when it does."""

    def __init__(self, config: uvicorn.Config, console: Console, opens_page: bool) -> None:
        super().__init__(config)
        self.console, self.opens_page = console, opens_page

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self.console.print(f"Listening at http://{shown}:{port} (Ctrl-C stops)", markup=False)
            if self.opens_page and has_screen():
                await asyncio.to_thread(webbrowser.open, f"http://{shown}:{port}")


def has_screen() -> bool:
    """Whether a browser can be shown here, and would not take the terminal over."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ})
