"""The chat in the terminal, on models that say what they are told to, and as a command on a run with real weights."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from nanochat.checkpoint import save
from nanochat.cli import main as command_line
from nanochat.data.recipes import Recipe, recipe_text
from nanochat.engine import Engine, Sampling
from nanochat.errors import ChatError, DataError, UsageError
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.serve import terminal
from nanochat.serve.conversation import Session, Speaker, provenance, turn_to_json
from nanochat.serve.screen import AnswerOnScreen, show_answer, spelled, visible
from nanochat.serve.terminal import COMMANDS, SAMPLE_QUESTIONS, chat, quick, terminal_reader
from nanochat.tokenizer import Call, Message, Output, Part, Text, message
from nanochat.tools import NO_RECIPE, Calculator, Find, Tool
from tests.scripted import BOS, CALL, CALLED, END, SHOWN, TOKENIZER, Scripted, answering, said

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
PANCAKES = Recipe("Pancakes", None, 4, 20, 1, ("2 cups flour", "3 eggs", "1 cup milk"), ("Mix all.", "Fry it."))
BREAD = Recipe("Bread", None, 8, 90, 2, ("500 g flour", "1 cup water"), ("Knead it.", "Bake it."))
BOOK = recipe_text(PANCAKES)
TOOLS: dict[str, Tool] = {"calculator": Calculator(), "find": Find({"Pancakes": BOOK})}
SCRIPTS = {
    "hi": said("Hello!"),
    "sum": said("It is ", CALL, "calculator 6*7", CALLED, "42 [red]cups[/red]."),
    "pancakes": said(CALL, "find pancakes", CALLED, BOOK),
    "cake": said("Cake\n\nIngredients:\n- sugar"),
    "escape": said("a\x1b[31mb\x07\r\u202ec"),
    "empty": [],
    "wrong": said("So ", SHOWN),
    "long": said("word " * 99),
    "": said("hi and so on", BOS),
}


def speaker(stage: str = "rl", scripts: dict[str, list[int]] = SCRIPTS, context: int = 600) -> Speaker:
    return Speaker(Engine(answering(scripts, context), TOKENIZER, RUNTIME, TOOLS), stage)


def session(stage: str = "rl", context: int = 600, **settings: object) -> Session:
    sampling = Sampling(**{"temperature": 0.0, "logprobs_of": "model", **settings})  # type: ignore[arg-type]
    return Session(speaker(stage, context=context), sampling)


def screen(width: int = 80, is_terminal: bool = True) -> Console:
    """A console without colours that writes into a text."""
    return Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None, highlight=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def reading(lines: Sequence[str | type[BaseException]]) -> Callable[[], str]:
    """A reader that gives these lines and raises these exceptions, then EOFError."""
    remaining: Iterator[str | type[BaseException]] = iter(lines)

    def read() -> str:
        line = next(remaining, EOFError)
        if not isinstance(line, str):
            raise line
        return line

    return read


def talk(*lines: str | type[BaseException], opened: Session | None = None, width: int = 80) -> str:
    """What the screen shows after these lines."""
    console = screen(width)
    opened = opened or session()
    stages = {"pretrain": lambda: speaker("pretrain"), "rl": lambda: opened.speaker}
    assert chat(opened, reading(lines), console, stages, "demo") == 0
    return shown(console)


# ---------------------------------------------------------------------------------------------------------------------
# Where a recipe is from
# ---------------------------------------------------------------------------------------------------------------------

FOUND: tuple[Part, ...] = (Call("find", "pancakes"), Output(BOOK))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((*FOUND, Text(BOOK)), "found"),
        ((Text("Here it is:"), *FOUND, Text("- 2 cups flour\n- 3 eggs")), "found"),
        ((Call("find", "x"), Output(NO_RECIPE), *FOUND, Text(BOOK)), "found"),
        ((Text(BOOK),), "invented"),
        ((Text("1. Mix all.\n2. Fry it."),), "invented"),
        ((Text("1) Mix all.\n2) Fry it."),), "invented"),
        ((Text("Ingredients:\n2 cups flour"),), "invented"),
        ((Call("find", "pancakes"), Output(NO_RECIPE), Text(BOOK)), "invented"),
        ((Call("find", "pancakes"), Output("error: name a dish"), Text(BOOK)), "invented"),
        ((Call("find", "pancakes"), Text(BOOK)), "invented"),
        ((Call("calculator", "1+1"), Output("2"), Text(BOOK)), "invented"),
        ((Text(BOOK), *FOUND), "invented"),
        ((Text(BOOK), *FOUND, Text("Enjoy!")), "invented"),
        ((*FOUND, Text("It serves 4.")), None),
        ((*FOUND,), None),
        ((Text("Hello! I like ingredients: they are nice - very."),), None),
        ((Text("It takes 1 hour - or 2."),), None),
        ((), None),
    ],
)
def test_a_recipe_is_found_where_a_call_found_it_before(parts: tuple[Part, ...], expected: str | None) -> None:
    assert provenance(Message("assistant", parts)) == expected


def test_a_recipe_said_again_is_still_found() -> None:
    earlier = [message("user", "pancakes"), message("assistant", [*FOUND, Text(BOOK)])]
    again = message("assistant", "- 2 cups flour\n- 3 eggs\n- 1 cup milk")
    scaled = message("assistant", "- 4 cups flour\n- 6 eggs\n- 2 cups milk")
    another = message("assistant", "- 2 cups sugar\n- 1 cup butter\n- vanilla")
    assert [provenance(reply, earlier) for reply in (again, scaled, another)] == ["found", "found", "invented"]
    assert provenance(again) == "invented"


# ---------------------------------------------------------------------------------------------------------------------
# The conversation
# ---------------------------------------------------------------------------------------------------------------------


def test_what_was_said_is_in_the_next_prompt() -> None:
    talking = session()
    talking.system = "Be kind."
    for question in ("hi", "sum"):
        turn = talking.ask(question)
        list(turn)
        talking.keep(turn)
    assert [(said.role, said.text) for said in talking.messages] == [
        ("user", "hi"), ("assistant", "Hello!"), ("user", "sum"), ("assistant", "It is 42 [red]cups[/red]."),
    ]  # fmt: skip
    ids = TOKENIZER.decode(talking.ask("hi").ids)
    assert ids.startswith("<|bos|><|system_start|>Be kind.<|system_end|><|user_start|>hi<|user_end|>")
    assert "calculator 6*7<|call_end|>It is 42 [red]cups[/red].<|assistant_end|>" in ids  # as it is remembered
    assert ids.endswith("<|user_start|>hi<|user_end|><|assistant_start|>")


def test_the_oldest_turns_are_dropped_when_the_context_is_full() -> None:
    """A turn of "hi" is 12 tokens here, a prompt may take 48 of 60: three turns and the question, 4 with its marks."""
    talking = session(context=60)
    dropped = []
    for _ in range(5):
        turn = talking.ask("hi")
        assert list(turn)[-1].finish == "stop"
        assert len(turn.ids) <= 48
        talking.keep(turn)
        dropped.append(turn.num_dropped)
    assert dropped == [0, 0, 0, 0, 2]
    assert len(talking.messages) == 8


def test_a_question_too_long_is_refused_and_nothing_is_lost() -> None:
    talking = session(context=60)
    talking.keep(talking.ask("hi"))
    with pytest.raises(UsageError, match="into 48 tokens; got 104"):
        talking.ask("x" * 100)
    with pytest.raises(ChatError):
        talking.ask("")
    assert len(talking.messages) == 2


def test_the_same_seed_gives_the_same_conversation_and_each_turn_its_own_draws() -> None:
    model = GPT(GPTConfig(vocab_size=267, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, context=128), torch.float32)
    model.init_weights(0)
    random_speaker = Speaker(Engine(model, TOKENIZER, RUNTIME), "rl")

    def answers(seed: int) -> list[list[int]]:
        talking = Session(random_speaker, Sampling(max_tokens=8, seed=seed))
        return [[piece.id for piece in talking.ask("hi")] for _ in range(2)]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)
    assert answers(1)[0] != answers(1)[1]


def test_the_scheduler_gives_the_pieces_that_the_engine_gives() -> None:
    """A conversation of three turns, the second of them stopped early."""
    plain = speaker()
    talks = [Session(one, Sampling(seed=4, logprobs_of="model")) for one in (plain, quick(plain))]
    found = []
    for talking in talks:
        for question, most in (("hi", 99), ("cake", 5), ("sum", 99)):
            turn = talking.ask(question)
            pieces = turn.__iter__()
            found.append([(p.id, p.text, p.kind, p.alternatives, p.finish) for p in islice(pieces, most)])
            pieces.close()  # type: ignore[attr-defined]
            talking.keep(turn)
    assert found[:3] == found[3:]
    assert len(found[1]) == 5
    assert talks[0].messages == talks[1].messages


def test_ctrl_c_reaches_an_answer_of_the_scheduler() -> None:
    """It is raised here while the scheduler's thread writes; the next question is answered as ever."""
    talking = Session(quick(speaker(scripts={**SCRIPTS, "long": said("word " * 9999)}, context=60_000)), Sampling())
    console = screen()

    def interrupt() -> None:
        while "word" not in shown(console):
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    stopped = talking.ask("long")
    assert not show_answer(stopped, console)
    assert stopped.finish is None
    assert show_answer(talking.ask("hi"), console)
    assert "(stopped)" in shown(console) and shown(console).endswith("Hello!\n")


def test_a_pretrained_model_goes_on_from_the_text() -> None:
    talking = session("pretrain")
    turn = talking.ask("hi")
    assert "".join(piece.text for piece in turn) == " and so on"
    assert turn.ids == [BOS, *b"hi"]
    assert turn.reply == message("assistant", " and so on")
    talking.keep(turn)
    assert talking.ask("hi").ids == [BOS, *b"hi"]


# ---------------------------------------------------------------------------------------------------------------------
# On the screen
# ---------------------------------------------------------------------------------------------------------------------


def answered(question: str, width: int = 80, is_terminal: bool = True) -> str:
    console = screen(width, is_terminal)
    assert show_answer(session().ask(question), console)
    return shown(console)


def test_an_answer_and_its_calls_are_shown() -> None:
    assert answered("hi") == "Hello!\n"
    assert answered("sum") == "It is [calculator 6*7 = 42] 42 [red]cups[/red].\n"
    lines = answered("pancakes").splitlines()
    assert lines[:3] == ["[find pancakes]", "  │ Pancakes", "  │"]
    assert lines[7] == "  │ ... and 6 more lines"
    assert lines[8:-1] == BOOK.splitlines()
    assert lines[-1] == "(found in the Cookbook)"


def test_how_an_answer_ended_is_said_where_it_did_not_stop() -> None:
    assert answered("cake").endswith("- sugar\n(invented: this recipe is not from the Cookbook)\n")
    assert answered("empty") == "(an empty answer)\n"
    assert answered("wrong") == "So\n(ended by a special token that has no place here)\n"
    console = screen()
    show_answer(session(max_tokens=7).ask("long"), console)
    assert shown(console) == "word wo\n(cut: no more tokens to answer with)\n"


def test_what_a_model_writes_cannot_command_the_terminal() -> None:
    assert answered("escape") == "a␛[31mb␇ \ufffdc\n"
    assert visible("[bold]\x1b]0;title\x07\x9b1m\ud800\x7f").plain == "[bold]␛]0;title␇\ufffd1m\ufffd\ufffd"
    assert visible("é 🍕\n").plain == "é 🍕\n"


def test_words_are_wrapped_whole() -> None:
    console = screen(width=24)
    show_answer(session(max_tokens=60).ask("long"), console)
    assert shown(console).splitlines()[:3] == ["word word word word word"] * 2 + ["word word"]
    assert len(answered("long", width=24, is_terminal=False).splitlines()[0]) == 256
    console = screen(width=10)
    view = AnswerOnScreen(console)
    for letter in "  ab " + "x" * 25 + " z\n\n":
        view.write(letter)
    view.write("日本語 日本\n" + "y" * 13 + " z zzzzzz")
    view.end()
    assert shown(console).splitlines() == [
        "  ab",
        "x" * 10,
        "x" * 10,
        "xxxxx z",
        "",
        "日本語",
        "日本",
        "y" * 13 + " z",
        "zzzzzz",
    ]


def test_tokens_are_spelled_so_that_one_sees_them() -> None:
    assert [spelled(TOKENIZER, token) for token in (32, 10, 65, 0xC3, END)] == [
        "·", "⏎", "A", "\\xc3", "<|assistant_end|>",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------


def test_a_conversation() -> None:
    text = talk("hi", "", "  sum  ")
    assert text.splitlines() == [
        "demo:rl, ready. /help lists commands, Ctrl-D leaves.",
        "Hello!",
        "",
        "It is [calculator 6*7 = 42] 42 [red]cups[/red].",
        "",
    ]


def test_help_lists_every_command_and_the_seed() -> None:
    text = talk("/help", opened=session(seed=77))
    assert all(command in text for command in COMMANDS)
    assert "seed 77" in text


def test_reset_and_system_begin_anew() -> None:
    talking = session()
    talk("hi", "/system Be brief.", "sum", opened=talking)
    assert (talking.system, [said.text for said in talking.messages][:1]) == ("Be brief.", ["sum"])
    talk("/reset", opened=talking)
    assert (talking.system, talking.messages) == ("Be brief.", [])
    talk("/system", opened=talking)
    assert talking.system == ""


def test_temperature_is_set_and_a_wrong_one_is_refused() -> None:
    talking = session()
    text = talk("/temperature 0.5", opened=talking)
    assert (talking.sampling.temperature, "Temperature 0.5." in text) == (0.5, True)
    for wrong in ("warm", "", "-1", "nan"):
        assert "expected a number" in talk(f"/temperature {wrong}", opened=talking)
    assert talking.sampling.temperature == 0.5
    assert talking.sampling.logprobs_of == "model"


def test_tokens_shows_the_last_answer() -> None:
    assert "expected an answer to look at" in talk("/tokens")
    lines = talk("sum", "/tokens", width=120).splitlines()
    rows = [line.split() for line in lines[lines.index("") + 1 :]]
    names = [row[0] for row in rows[1:] if row]
    assert names[:7] == ["I", "t", "·", "i", "s", "·", "<|call_start|>"]
    assert ["4", "tool"] in rows
    assert ["c", "100.0%"] in rows


def test_tokens_names_what_else_could_have_come() -> None:
    model = Scripted(lambda known: 65)
    plain = model.logits

    def torn(features: torch.Tensor) -> torch.Tensor:
        scores = plain(features)
        scores[:, 66] = 49.0
        return scores

    model.logits = torn  # type: ignore[method-assign]
    talking = Session(
        Speaker(Engine(model, TOKENIZER, RUNTIME), "rl"),
        Sampling(temperature=0, max_tokens=3, logprobs_of="model"),
    )
    rows = [line.split() for line in talk("hi", "/tokens", opened=talking).splitlines()]
    assert rows.count(["A", "73.1%", "B", "27%"]) == 3


def test_compare_asks_every_stage_once_loaded() -> None:
    loaded = []

    def load(stage: str) -> Speaker:
        loaded.append(stage)
        return speaker(stage)

    console, talking = screen(), session()
    stages = {name: (lambda name=name: load(name)) for name in ("pretrain", "sft", "rl")}
    chat(talking, reading(["/compare", "/compare hi", "sum", "/compare", "hi", "/compare"]), console, stages, "demo")
    text = shown(console)
    assert "expected a question after /compare" in text
    assert loaded == ["pretrain", "sft", "rl"]
    assert text.count("hi and so on") == 2
    assert text.count("Hello!") == 5
    headings = [line.split()[0] for line in text.splitlines() if line.endswith("───")]
    assert headings == ["pretrain", "sft", "rl"] * 3
    assert [said.text for said in talking.messages] == ["sum", "It is 42 [red]cups[/red].", "hi", "Hello!"]


def test_ctrl_c_ends_a_comparison() -> None:
    def says(known: list[int]) -> int:
        raise KeyboardInterrupt

    console = screen()
    interrupted = Speaker(Engine(Scripted(says), TOKENIZER, RUNTIME), "sft")
    stages = {"sft": lambda: interrupted, "rl": lambda: speaker("rl")}
    chat(session(), reading(["/compare hi"]), console, stages, "demo")
    assert "(stopped)" in shown(console)
    assert "Hello!" not in shown(console)


def test_an_unknown_command_and_a_question_too_long_are_errors_of_one_line() -> None:
    text = talk("/sing", "x" * 999, "hi")
    assert "expected a command; got /sing" in text
    assert "expected a message that fits" in text
    assert "Hello!" in text


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_quit_leaves(word: str) -> None:
    assert "Hello!" not in talk(word, "hi")


def test_ctrl_c_at_the_prompt_does_not_leave() -> None:
    text = talk(KeyboardInterrupt, "hi")
    assert "Ctrl-D leaves.\nHello!" in text


def test_ctrl_c_stops_an_answer_which_stays_in_the_conversation() -> None:
    asked = 0

    def says(known: list[int]) -> int:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise KeyboardInterrupt
        return 65

    talking = Session(Speaker(Engine(Scripted(says), TOKENIZER, RUNTIME), "rl"), Sampling(temperature=0, max_tokens=6))
    text = talk("hi", "hi", opened=talking)
    assert "AAA\n(stopped)\n" in text
    assert "AAAAAA\n(cut: no more tokens to answer with)\n" in text
    assert [said.text for said in talking.messages] == ["hi", "AAA", "hi", "AAAAAA"]


def test_the_screen_says_when_turns_are_forgotten() -> None:
    text = talk(*["hi"] * 5, opened=session(context=60))
    assert text.count("its 2 oldest messages are forgotten") == 1


# ---------------------------------------------------------------------------------------------------------------------
# The prompt
# ---------------------------------------------------------------------------------------------------------------------


def typed(keys: str, folder: Path, lines: int) -> list[str]:
    """What the reader returns for these keystrokes."""
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text(keys)
        read = terminal_reader(folder)
        found = []
        for _ in range(lines):
            try:
                found.append(read())
            except (KeyboardInterrupt, EOFError) as leaving:
                found.append(type(leaving).__name__)
        return found


def test_keys_at_the_prompt(tmp_path: Path) -> None:
    pasted = "\x1b[200~one\ntwo [red]\x1b[201~\r"
    assert typed(pasted + "a\x1b\rb\r" + "x\x03" + "\x04", tmp_path, 4) == [
        "one\ntwo [red]", "a\nb", "KeyboardInterrupt", "EOFError",
    ]  # fmt: skip


def test_history_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert typed("hello\r", folder, 1) == ["hello"]
    assert typed("\x1b[A\r", folder, 1) == ["hello"]
    if os.name == "posix":
        assert (folder / "chat_history").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert typed("hello\r", tmp_path / "file", 1) == ["hello"]


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(home: Path) -> str:
    """A run with a pretrained and a fine-tuned stage, their weights random."""
    model = GPT(GPTConfig(vocab_size=267, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, context=256), torch.float32)
    model.init_weights(0)
    TOKENIZER.save(home / "talk" / "tokenizer")
    for stage in ("pretrain", "sft"):
        save(home / "talk" / stage, 1, model, None, RUNTIME, {"stage": stage, "tokenizer": TOKENIZER.fingerprint})
    return "talk"


@pytest.fixture
def cookbook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes for `find`, in place of a download."""
    monkeypatch.setattr(terminal, "recipes", lambda root: [PANCAKES, BREAD])


def ask(run: str, *flags: str) -> int:
    return command_line(["chat", "--run", run, "--max-tokens", "8", "--device", "cpu", "--dtype", "float32", *flags])


def test_one_question(run: str, cookbook: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(run, "-p", "hi", "--seed", "1") == 0
    first = capsys.readouterr()
    assert first.out.strip()
    assert ask(run, "--prompt", "hi", "--seed", "1") == 0
    assert capsys.readouterr().out == first.out


def test_one_question_as_json(run: str, cookbook: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(run, "-p", "hi", "--json", "--seed", "1") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "reply", "parts", "finish", "tokens", "tool_calls", "found", "provenance", "stage", "seed",
    }  # fmt: skip
    assert (found["stage"], found["seed"], found["found"], found["tool_calls"]) == ("sft", 1, False, [])
    assert 1 <= len(found["tokens"]) <= 8
    assert "".join(token["text"] for token in found["tokens"]) == found["reply"]
    assert all(token["logprob"] <= 0 and token["sampled"] for token in found["tokens"])


def test_calls_in_json() -> None:
    turn = session().ask("pancakes")
    list(turn)
    found = json.loads(json.dumps(turn_to_json(turn)))
    assert found["tool_calls"] == [{"tool": "find", "argument": "pancakes", "output": BOOK}]
    assert found["parts"] == [
        {"type": "call", "tool": "find", "argument": "pancakes"},
        {"type": "output", "text": BOOK},
        {"type": "text", "text": BOOK},
    ]
    assert (found["reply"], found["finish"], found["found"], found["provenance"]) == (BOOK, "stop", True, "found")
    assert [token["sampled"] for token in found["tokens"]].count(False) == len(BOOK) + 2


def test_answers_that_say_nothing_in_json() -> None:
    for question, finish, reply in (("empty", "stop", ""), ("wrong", "malformed", "So ")):
        turn = session().ask(question)
        list(turn)
        found = turn_to_json(turn)
        assert (found["reply"], found["finish"], found["tool_calls"]) == (reply, finish, [])
    assert found["parts"] == [{"type": "text", "text": "So "}]


def test_an_unanswered_call_in_json() -> None:
    turn = session(context=60).ask("pancakes")
    for piece in turn:
        if piece.id == CALLED:
            break
    found = turn_to_json(turn)
    assert found["tool_calls"] == [{"tool": "find", "argument": "pancakes", "output": None}]
    assert found["found"] is False


def test_without_a_terminal_three_questions_are_answered(
    run: str, cookbook: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(run) == 0
    text = capsys.readouterr().out
    assert [line[2:] for line in text.splitlines() if line.startswith("› ")] == list(SAMPLE_QUESTIONS)


def test_a_stage_can_be_named(run: str, cookbook: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(f"{run}:pretrain", "-p", "Once upon", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "pretrain"


def test_mistakes_are_errors_of_one_line(run: str, cookbook: None, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, code, text in (
        (["--run", run, "--json"], 2, "-p PROMPT"),
        (["--run", "nowhere"], 1, "expected a run at"),
        (["--run", f"{run}:rl"], 1, "expected a trained rl"),
        (["--run", run, "-p", "hi", "--temperature", "-1"], 2, "for --temperature"),
        (["--run", run, "-p", "x" * 999], 2, "expected a message that fits"),
    ):
        assert command_line(["chat", "--device", "cpu", *flags]) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert text in printed.err
        assert len(printed.err.splitlines()) == 1


def test_without_the_cookbook_one_can_still_talk(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(root: Path) -> list[Recipe]:
        raise DataError("the Cookbook", "no network")

    monkeypatch.setattr(terminal, "recipes", missing)
    assert ask(run, "-p", "hi", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["finish"]
    assert "without the Cookbook" in printed.err


def test_the_fresh_seed_differs_from_session_to_session(
    run: str, cookbook: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = []
    for _ in range(2):
        ask(run, "-p", "hi", "--json")
        seeds.append(json.loads(capsys.readouterr().out)["seed"])
    assert seeds[0] != seeds[1]
