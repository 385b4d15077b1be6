"""`nanochat chat`: talk to a model in the terminal, and look at what it does while it answers."""

import dataclasses
import io
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from nanochat.checkpoint import find_run, stages_of
from nanochat.config import parse
from nanochat.data import Recipe, recipes
from nanochat.engine import Sampling
from nanochat.errors import DataError, NanochatError, UsageError
from nanochat.runtime import detect, home
from nanochat.scheduler import Scheduler
from nanochat.serve.conversation import Loader, Session, Speaker, Turn, load_speaker, turn_to_json
from nanochat.serve.screen import show_answer, token_table, visible

Reader = Callable[[], str]  # the next line of input; EOFError at its end, KeyboardInterrupt for Ctrl-C

INTERRUPTED = 130  # exit code
SAMPLE_QUESTIONS = (
    "How do I make pancakes?",
    "2 cups of flour serve 4. How much for 10 people?",
    "Who are you?",
)
COMMANDS = {
    "/help": "this list, and how answers are drawn",
    "/reset": "forget the conversation",
    "/system TEXT": "begin every conversation with this message; without TEXT, with none",
    "/temperature X": "0: always the likeliest token; 1: as the model has it; above: wilder",
    "/tokens": "the last answer token by token: how likely each was, and what else could have come",
    "/compare QUESTION": "ask every stage of this run; without QUESTION, the last one again",
    "/quit": "leave, as Ctrl-D does; Ctrl-C stops an answer",
}


@dataclass(frozen=True)
class ChatConfig:
    """Talk to a model in the terminal. Without a terminal, it answers three sample questions."""

    run: str = ""
    """NAME[:stage] of a run; by default the preset's run, and its last trained stage"""
    preset: str = "laptop"
    """whose run it is, where --run names none"""
    prompt: Annotated[str, tyro.conf.arg(aliases=["-p"])] = ""
    """answer this and leave"""
    json: bool = False
    """with -p: one JSON object with the answer, its tokens and its tool calls"""
    system: str = ""
    """a system message"""
    temperature: float = 0.2
    """0: always the likeliest token; 1: as the model has it"""
    top_k: int = 0
    """only the k likeliest tokens; 0: all"""
    top_p: float = 0.95
    """only the likeliest tokens that together hold this share of the probability"""
    max_tokens: int = 256
    """longest answer"""
    seed: int | None = None
    """of the draws; by default another each time"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""


def main(argv: Sequence[str]) -> int:
    """The verb `chat`."""
    config = parse(ChatConfig, argv, prog="nanochat chat")
    if config.json and not config.prompt:
        raise UsageError("-p PROMPT beside --json", "none", "give the question to answer")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may write what the terminal's alphabet lacks
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    # What is shown beside a token is how likely the model itself finds it, whatever the temperature makes of that.
    sampling = Sampling(
        config.temperature, config.top_k, config.top_p, max_tokens=config.max_tokens, seed=seed, cut_circles=True,
        logprobs_of="model",
    )  # fmt: skip
    folder, runtime = find_run(config.run, config.preset), detect(config.device, config.dtype)
    kitchen = cookbook(Console(stderr=True))
    session = Session(quick(load_speaker(folder, runtime, kitchen)), sampling, config.system)
    console = Console(highlight=False)
    if config.prompt:
        return answer_once(session, config.prompt, console, config.json)
    if not (sys.stdin.isatty() and console.is_terminal):
        return answer_samples(session, console)
    stages = {
        stage: stage_loader(folder.parent / stage, session.speaker, kitchen) for stage in stages_of(folder.parent)
    }
    return chat(session, terminal_reader(home()), console, stages, folder.parent.name)


def cookbook(notes: Console) -> list[Recipe]:
    """The recipes that `find` looks through; none, with a note, where the Cookbook cannot be had."""
    try:
        return recipes(home())
    except DataError as error:
        notes.print(visible(f"chatting without the Cookbook, recipes will be invented: {error}"), style="yellow")
        return []


def stage_loader(folder: Path, speaker: Speaker, kitchen: Sequence[Recipe]) -> Loader:
    """How to load a stage, where it is not the one that speaks already."""
    if folder.name == speaker.stage:
        return lambda: speaker
    return lambda: quick(load_speaker(folder, speaker.engine.runtime, kitchen))


def quick(speaker: Speaker) -> Speaker:
    """The speaker with a scheduler of its own: the fast decoder, and guesses from what was said."""
    return dataclasses.replace(speaker, scheduler=Scheduler(speaker.engine, slots=1, queue=1))


def terminal_reader(folder: Path) -> Reader:
    """Lines typed at a prompt, with a history kept in `folder`. A pasted text may have several lines."""
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def insert_newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    history: History = InMemoryHistory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chat_history").touch(mode=0o600)
        history = FileHistory(str(folder / "chat_history"))
    except OSError:
        pass  # a folder that cannot be written to is no reason not to talk
    completer = WordCompleter([command.split()[0] for command in COMMANDS], sentence=True)
    prompt: PromptSession[str] = PromptSession(
        [("bold", "› ")],
        history=history,
        key_bindings=bindings,
        completer=completer,
        prompt_continuation="  ",
        reserve_space_for_menu=4,
    )
    return prompt.prompt


def answer_once(session: Session, question: str, console: Console, as_json: bool) -> int:
    """Answer one question, as text or as one JSON object."""
    turn = session.ask(question)
    if not as_json:
        return 0 if show_answer(turn, console) else INTERRUPTED
    for _ in turn:
        pass
    print(json.dumps(turn_to_json(turn), ensure_ascii=False))
    return 0


def answer_samples(session: Session, console: Console) -> int:
    """Answer the sample questions, each in a conversation of its own."""
    for question in SAMPLE_QUESTIONS:
        console.print(visible(f"› {question}"), style="bold")
        if not show_answer(session.ask(question), console):
            return INTERRUPTED
        console.print()
    return 0


def chat(session: Session, read: Reader, console: Console, stages: Mapping[str, Loader], name: str = "") -> int:
    """Talk until the input ends. `stages` are what /compare asks."""
    return Chat(session, console, stages, name).run(read)


class Chat:
    """The conversation on the screen, and the commands."""

    def __init__(self, session: Session, console: Console, stages: Mapping[str, Loader], name: str) -> None:
        self.session, self.console, self.stages, self.name = session, console, stages, name
        self.speakers: dict[str, Speaker] = {}
        self.last: Turn | None = None

    def run(self, read: Reader) -> int:
        """Read and answer until the input ends or the user leaves."""
        self.note(f"{self.name}:{self.session.speaker.stage}, ready. /help lists commands, Ctrl-D leaves.")
        while True:
            try:
                line = read().strip()
            except KeyboardInterrupt:
                self.note("Ctrl-D leaves.")
                continue
            except EOFError:
                return 0
            if line in ("/quit", "/exit"):
                return 0
            try:
                self.obey(line)
            except NanochatError as error:
                self.console.print(visible(str(error)), style="red")
            except KeyboardInterrupt:
                self.note("stopped")

    def obey(self, line: str) -> None:
        """Do what a line asks for: a command, or a question to answer."""
        command, _, argument = line.partition(" ")
        match command:
            case "":
                pass
            case "/help":
                self.help()
            case "/reset":
                self.session.reset()
                self.note("The conversation begins anew.")
            case "/system":
                self.session.system = argument.strip()
                self.session.reset()
                self.note("The conversation begins anew" + (" with this message." if argument else ", without one."))
            case "/temperature":
                self.set_temperature(argument)
            case "/tokens":
                self.tokens()
            case "/compare":
                self.compare(argument.strip())
            case _ if command.startswith("/"):
                raise UsageError("a command", command, f"one of {', '.join(c.split()[0] for c in COMMANDS)}")
            case _:
                self.answer(line)

    def answer(self, question: str) -> None:
        """Ask, show the answer as it comes, and remember both."""
        turn = self.session.ask(question)
        if turn.num_dropped:
            self.note(f"(The conversation no longer fits: its {turn.num_dropped} oldest messages are forgotten.)")
        self.last = turn
        show_answer(turn, self.console)
        if turn.pieces:
            self.session.keep(turn)
        self.console.print()

    def help(self) -> None:
        """The commands, and what decides the answers."""
        table = Table.grid(padding=(0, 2))
        for command, about in COMMANDS.items():
            table.add_row(Text(command, style="bold"), about)
        self.console.print(table)
        s, speaker = self.session.sampling, self.session.speaker
        self.note(f"Alt-Enter begins a new line. This is {self.name}:{speaker.stage}, which reads at most "
                  f"{speaker.engine.model.config.context} tokens. Temperature {s.temperature:g}, top-k {s.top_k}, "
                  f"top-p {s.top_p:g}, at most {s.max_tokens} tokens an answer, seed {s.seed}.")  # fmt: skip

    def set_temperature(self, argument: str) -> None:
        """Change how freely the next answers are drawn."""
        try:
            temperature = float(argument)
        except ValueError:
            raise UsageError("a number after /temperature", repr(argument), "for example /temperature 0.6") from None
        self.session.sampling = dataclasses.replace(self.session.sampling, temperature=temperature)
        self.note(f"Temperature {temperature:g}.")

    def tokens(self) -> None:
        """The last answer as a table."""
        if self.last is None or not self.last.pieces:
            raise UsageError("an answer to look at", "none yet", "ask something first")
        self.console.print(token_table(self.last.pieces, self.session.speaker.engine.tokenizer))
        self.note("How likely the model found each token, before temperature and filters, and what else it considered.")

    def compare(self, question: str) -> None:
        """The same question to every stage, each in a conversation of its own."""
        question = question or (self.last.question if self.last else "")
        if not question:
            raise UsageError("a question after /compare", "none", "for example /compare How do I make pancakes?")
        for stage, load in self.stages.items():
            self.console.print(Rule(stage, align="left", style="dim"))
            if stage not in self.speakers:
                self.speakers[stage] = load()
            turn = Session(self.speakers[stage], self.session.sampling, self.session.system).ask(question)
            if not show_answer(turn, self.console):
                break
        self.console.print()

    def note(self, text: str) -> None:
        """A remark of the program's own."""
        self.console.print(visible(text), style="dim")
