"""The command line: `nanochat VERB --field value`. One verb a stage, and one for all of them."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType

from nanochat import __version__
from nanochat.errors import NanochatError

# verb: (module that has `main(argv) -> exit code`, arguments of its own, what it does)
VERBS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "run": ("nanochat.stages.run", (), "all stages of a preset, from raw text to a chatbot"),
    "data": ("nanochat.stages.data", (), "list, fetch and show what models learn from"),
    "tokenizer": ("nanochat.stages.tokenizer", (), "learn a vocabulary and encode the corpus"),
    "pretrain": ("nanochat.stages.pretrain", (), "learn to continue text"),
    "midtrain": ("nanochat.stages.finetune", ("midtrain",), "learn the chat format and skills"),
    "sft": ("nanochat.stages.finetune", ("sft",), "learn what to say"),
    "rl": ("nanochat.stages.reinforce", (), "learn from answers that can be checked"),
    "eval": ("nanochat.stages.evaluate", (), "measure a stage on held-out text and questions"),
    "verify": ("nanochat.stages.verify", (), "hash a run again, and repeat a step of each stage"),
    "chat": ("nanochat.serve.terminal", (), "talk to a model in the terminal"),
    "serve": ("nanochat.serve.server", (), "serve a model over HTTP: OpenAI's API, and a page to chat in"),
    "plan": ("nanochat.stages.plan", (), "what a depth costs, before anything runs"),
    "report": ("nanochat.report", (), "the report card of a run"),
    "bench": ("nanochat.bench", (), "how fast this machine is, beside other tools"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted after a clean save."""
    argv = sys.argv[1:] if argv is None else argv
    words = [word for word in argv if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(f"nanochat: expected a verb; got {verb!r}; one of: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    warnings.showwarning = one_line_warning
    # torch's threads wait for each other by spinning; where another program wants a core too, that costs up to tenfold.
    # With a short spin before they sleep they lose nothing alone (LOG.md, 2026-11-22). Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    try:
        with terminated_is_interrupted(verb):
            return entry(verb)(rest)
    except NanochatError as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"nanochat {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        return out_of_memory(verb, error)
    except RuntimeError as error:
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        return out_of_memory(verb, error)
    except OSError as error:
        if "--debug" in argv:
            traceback.print_exc()
        remedy = "free some space, or set NANOCHAT_HOME to a folder that can be written; what was saved is whole"
        print(f"nanochat {verb}: expected to read and write files; got {error}; {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"nanochat {verb}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130


def out_of_memory(verb: str, error: Exception) -> int:
    """What to do about it, in one line."""
    got = str(error).partition("\n")[0] or "none left"
    print(f"nanochat {verb}: expected enough memory; got {got}; use fewer --rows or a smaller --depth", file=sys.stderr)
    return 1


@contextlib.contextmanager
def terminated_is_interrupted(verb: str) -> Iterator[None]:
    """Let SIGTERM end a stage's verb as Ctrl-C does, where the stage itself is not listening yet or any more."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop) if VERBS[verb][0].startswith("nanochat.stages") else None
    except ValueError:  # not in the main thread, where signals can't be caught
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def entry(verb: str) -> Callable[[Sequence[str]], int]:
    """The function behind a verb. Its module is imported only now, so that `--help` need not wait for torch."""
    module, arguments, _ = VERBS[verb]
    function: Callable[..., int] = importlib.import_module(module).main
    if verb == "run":
        return partial(run_and_talk, function)
    return lambda argv: function(argv, *arguments)


def run_and_talk(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """`run --chat` opens the chat when the run is done; with `--serve` a page shows the run from its beginning on.

    They are put together here: stages know nothing of serving.
    """
    from nanochat.config import flag_value

    chosen = [word for name in ("run", "preset") if (value := flag_value(argv, name)) for word in (f"--{name}", value)]
    is_main = os.environ.get("RANK", "0") == "0" and not {"-h", "--help"} & {*argv}
    if "--serve" not in argv or not is_main:
        if (code := run(argv)) or "--chat" not in argv:
            return code
        with contextlib.suppress(ValueError):  # a chat takes Ctrl-C for a line given up, and has nothing to save
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return entry("chat")(chosen)
    # In a process of its own, and with one thread: to be looked at must not slow the learning down.
    port = flag_value(argv, "port") or "8000"
    command = [sys.executable, "-m", "nanochat", "serve", *chosen, "--wait", "--open", "--threads", "1", "--port", port]
    server = subprocess.Popen(command)
    try:
        if code := run(argv):
            return code
        if "--chat" in argv:
            return entry("chat")(chosen)
        server.wait()  # until Ctrl-C
        return 0
    finally:
        server.terminate()
        server.wait()


def usage() -> str:
    """The list of verbs."""
    lines = [f"  {verb:<10} {about}" for verb, (_, _, about) in VERBS.items()]
    return "\n".join(
        [
            "usage: nanochat VERB [--field value ...] [--debug]",
            "",
            *lines,
            "",
            "nanochat VERB --help shows a verb's fields.",
        ]
    )


def one_line_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """Warnings as a user reads them: what, without where in our source."""
    print(f"warning: {message}", file=sys.stderr)
