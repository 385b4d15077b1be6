"""A server of this process on a free port, for tests that ask it by HTTP as its users do."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import torch
import uvicorn

from nanochat.data.recipes import Recipe, recipe_text
from nanochat.engine import Engine, LanguageModel
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from nanochat.serve.app import create_app
from nanochat.serve.conversation import Speaker
from nanochat.serve.guard import Limits
from nanochat.serve.models import Models, Source
from nanochat.tools import Calculator, Find, Tool
from tests.scripted import BOS, CALL, CALLED, SHOWN, TOKENIZER, answering, said

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
PANCAKES = Recipe("Pancakes", None, 4, 20, 1, ("2 cups flour", "3 eggs", "1 cup milk"), ("Mix all.", "Fry it."))
BOOK = recipe_text(PANCAKES)
TOOLS: dict[str, Tool] = {"calculator": Calculator(), "find": Find({"Pancakes": BOOK})}
SCRIPTS = {
    "hi": said("Hello!"),
    "sum": said("It is ", CALL, "calculator 6*7", CALLED, "42 cups."),
    "two": said(CALL, "calculator 1+1", CALLED, CALL, "calculator 2+2", CALLED, "2 and 4."),
    "pancakes": said(CALL, "find pancakes", CALLED, BOOK),
    "cake": said("Cake\n\nIngredients:\n- sugar"),
    "again": said("As I said."),
    "flour": said("2 cups."),
    "naïve": said("crème brûlée 🍰 für dich"),
    "empty": [],
    "wrong": said("So ", SHOWN),
    "nameless": said("So ", CALL, " ", CALLED, "on"),
    "long": said("word " * 99),
    "": said("hi and so on", BOS),
}


def scripted(stage: str = "rl", context: int = 600) -> Speaker:
    """A model that says what `SCRIPTS` tell it to."""
    return Speaker(Engine(answering(SCRIPTS, context), TOKENIZER, RUNTIME, TOOLS), stage)


def drawn(stage: str = "rl", context: int = 96, tools: Mapping[str, Tool] = TOOLS) -> Speaker:
    """A real model with weights drawn at random, so that what it says depends on every token and every draw."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=267, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, context=context)
    model: LanguageModel = GPT(config, torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():  # type: ignore[attr-defined]
            weight.normal_(0, 0.2)
    return Speaker(Engine(model, TOKENIZER, RUNTIME, tools), stage)


def models_of(slots: int = 8, queue: int = 32, **speakers: Speaker) -> Models:
    """Models under the names of the arguments."""
    sources = [Source(name, speaker.stage, "step_000001", 1_700_000_000, lambda speaker=speaker: speaker)  # type: ignore[misc]
               for name, speaker in speakers.items()]  # fmt: skip
    return Models(lambda: sources, lambda speaker: Scheduler(speaker.engine, slots, queue), alias="nanochat")


@contextlib.contextmanager
def serving(models: Models, limits: Limits | None = None, **more: float) -> Iterator[str]:
    """The address of a server that runs while the block does, and has drained when it is left."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several that wait for one another cost such small models more than they bring
    settings = uvicorn.Config(create_app(models, limits, **more), port=0, log_config=None, access_log=False,
                              timeout_graceful_shutdown=20)  # type: ignore[arg-type]  # fmt: skip
    server = uvicorn.Server(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has not started"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        torch.set_num_threads(threads)
