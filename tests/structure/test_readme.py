"""Commands in the documents are commands that exist: verbs, flags, make's targets, named tests.

A fenced block marked `console` (lines after "$ ") or `bash` holds commands. One that stands right under the comment
<!-- run --> is also executed, by the slow suite.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from nanochat.cli import VERBS

ROOT = Path(__file__).parents[2]
# What was once done stays as it was written in the log and in the list of changes.
DOCUMENTS = sorted(path for path in ROOT.glob("*.md") if path.name not in {"CHANGELOG.md", "LOG.md"})

# Programs that a document may call and that are not ours to check.
OTHERS = {"bash", "brew", "cd", "curl", "export", "git", "pip", "sudo", "wsl"}


@dataclass(frozen=True)
class Block:
    """The commands of one fenced block; `run` where the comment above says so."""

    line: int
    commands: tuple[str, ...]
    run: bool


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown document that hold commands."""
    for found in re.finditer(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        comment, language, body = found.groups()
        lines = body.replace("\\\n", " ").splitlines()
        if language == "console":
            commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        else:
            commands = [line for line in lines if line.strip() and not line.startswith("#")]
        if language in {"bash", "console"}:
            yield Block(text[: found.start()].count("\n") + 1, tuple(commands), bool(comment))


def faults(command: str, help_of: Callable[[tuple[str, ...]], str], makefile: str) -> list[str]:
    """What is wrong with one line of commands. `help_of(("data", "list"))` is a verb's help, empty without one."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(lexer.punctuation_chars):  # && ; |
            parts.append([])
        else:
            parts[-1].append(word)
    return [fault for words in parts for fault in faults_of_one(words, help_of, makefile)]


def faults_of_one(words: list[str], help_of: Callable[[tuple[str, ...]], str], makefile: str) -> list[str]:
    while words and re.fullmatch(r"\w+=.*", words[0]):  # VARIABLE=value in front of a program
        words = words[1:]
    program, arguments = (Path(words[0]).name, words[1:]) if words else ("cd", [])
    if program == "make":
        return [fault for word in arguments for fault in faults_of_make(word, makefile)]
    if program in {"python", "python3", "torchrun"} and "nanochat" in arguments:
        program, arguments = "nanochat", arguments[arguments.index("nanochat") + 1 :]
    if program == "nanochat":
        return faults_of_ours(arguments, help_of)
    return [] if program in OTHERS else [f"{program}: not a program that this test knows"]


def faults_of_make(word: str, makefile: str) -> list[str]:
    variable, equals, _ = word.partition("=")
    there = re.search(rf"^{variable} \?=" if equals else rf"^{word}:", makefile, re.MULTILINE)
    return [] if there or word.startswith("-") else [f"make {word}: the Makefile has no such thing"]


def faults_of_ours(arguments: list[str], help_of: Callable[[tuple[str, ...]], str]) -> list[str]:
    """`arguments` after `nanochat`: a verb, perhaps a second one, and flags."""
    verb = [word for word in arguments[:1] if not word.startswith("-")]
    text = help_of(tuple(verb))
    if not text:
        return [f"nanochat {' '.join(verb)}: no such verb"]
    if verb and len(arguments) > 1 and not arguments[1].startswith("-"):
        text += "\n" + help_of((*verb, arguments[1]))  # nanochat data list
    flags = [word.partition("=")[0].replace("_", "-") for word in arguments if re.match(r"--?[A-Za-z]", word)]
    return [f"nanochat {' '.join(verb)} {flag}: not in its help" for flag in flags if not has_flag(text, flag)]


def has_flag(text: str, flag: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text.replace("_", "-")) is not None


@cache
def real_help(words: tuple[str, ...]) -> str:
    """What `nanochat WORDS --help` prints; empty where that is an error."""
    from nanochat.__main__ import main

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["nanochat", *words, "--help"])
        patch.setenv("COLUMNS", "200")
        patch.setenv("NO_COLOR", "1")
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
    return "" if code else printed.getvalue()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    assert verb in real_help(())
    assert "--help" in real_help((verb,))


def test_there_is_a_readme_with_commands() -> None:
    readme = ROOT / "README.md"
    assert readme.exists()
    commands = [command for block in blocks(readme.read_text(encoding="utf-8")) for command in block.commands]
    assert any(command.startswith("make chat") for command in commands)
    assert [block for _, block in marked()], "some block is executed"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = [
        f"{path.name}:{block.line}: {fault}"
        for block in blocks(path.read_text(encoding="utf-8"))
        for command in block.commands
        for fault in faults(command, real_help, makefile)
    ]
    assert found == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_test_named_exists(path: Path) -> None:
    assert list(missing(path.read_text(encoding="utf-8"))) == []


def missing(text: str) -> Iterator[str]:
    """Files of `tests/` and tests in them (`tests/test_x.py::test_y`) that `text` names and that are not there."""
    for name, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text):
        source = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else ""
        if not re.search(rf"^ *def {test}\(" if test else ".", source, re.MULTILINE):
            yield f"{name}::{test}"


def marked() -> list[tuple[str, Block]]:
    return [(p.name, block) for p in DOCUMENTS for block in blocks(p.read_text(encoding="utf-8")) if block.run]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "block"), marked(), ids=lambda value: getattr(value, "line", value))
def test_commands_marked_run_do_run(name: str, block: Block, tmp_path: Path) -> None:
    """In the checkout, with this Python first on the path, no terminal, and an empty home."""
    environment = {word: value for word, value in os.environ.items() if not word.startswith("MAKE")}
    environment |= {"NANOCHAT_HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = "set -euo pipefail\n" + "\n".join(block.commands)
    ended = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{name}:{block.line}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    assert ended.stdout.strip()


SAMPLE = """
Set up:

```console
$ git clone ADDRESS && cd nanochat
$ make chat PRESET=tiny
Training ...
```

<!-- run -->
```bash
# a comment
NANOCHAT_HOME=x python -m nanochat run --preset=tiny \\
    --max_steps 3
torchrun --nproc-per-node 2 -m nanochat run -p "what now; and then?"
nanochat data list --json
```

```python
no_command()
```
"""
MAKEFILE = "PRESET ?= laptop\nchat: env\n\techo\n"
HELP = {
    (): "run data",
    ("run",): "--preset {tiny,laptop}  --max-steps INT  -p TEXT, --prompt TEXT",
    ("data",): "list",
    ("data", "list"): "--json",
}


def help_of(words: tuple[str, ...]) -> str:
    return HELP.get(words, "")


def test_blocks_are_found_with_their_commands() -> None:
    console, bash = blocks(SAMPLE)
    assert console == Block(4, ("git clone ADDRESS && cd nanochat", "make chat PRESET=tiny"), run=False)
    assert bash.run
    assert [command.split()[0] for command in bash.commands] == ["NANOCHAT_HOME=x", "torchrun", "nanochat"]
    assert "--max_steps" in bash.commands[0]


def test_right_commands_pass() -> None:
    assert [
        fault for b in blocks(SAMPLE) for command in b.commands for fault in faults(command, help_of, MAKEFILE)
    ] == []


@pytest.mark.parametrize(
    "command",
    [
        "make chatt",
        "make chat PRESSET=tiny",
        "nanochat walk",
        "python -m nanochat walk --preset tiny",
        "nanochat run --pre tiny",
        "nanochat run --max-step 3",
        "nanochat run -q",
        "nanochat data list --jsonl",
        "cd x && nanochat walk",
        "pyton -m nanochat run",
    ],
)
def test_each_wrong_command_is_found(command: str) -> None:
    assert len(faults(command, help_of, MAKEFILE)) == 1


def test_a_test_that_is_not_there_is_missed() -> None:
    here = "tests/structure/test_readme.py"
    assert list(missing(f"{here} and {here}::test_right_commands_pass")) == []
    assert list(missing(f"{here}::test_wrong and tests/test_of_nothing.py")) == [
        f"{here}::test_wrong",
        "tests/test_of_nothing.py::",
    ]
