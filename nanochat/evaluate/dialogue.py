"""Whole conversations with the model, each turn answered in view of those before: to be read and judged by people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.distributed import gathered
from nanochat.engine import Engine, Sampling
from nanochat.errors import DataError
from nanochat.tokenizer import Message, conversation_to_json, message, prompt, read_reply

ROOM = 0.2  # share of the context that a prompt leaves to the answer
LIKELIEST = Sampling(temperature=0, max_tokens=256, cut_circles=True)


@dataclass(frozen=True)
class Script:
    """What one person says, turn by turn."""

    name: str
    turns: tuple[str, ...]


def read_scripts(path: Path) -> list[Script]:
    """The scripts of a .jsonl file, {"id", "turns"} a line. Raises DataError."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        return [Script(str(row["id"]), tuple(map(str, row["turns"]))) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError('lines of {"id", "turns"}', f"{path}: {error!r}", "write one JSON object a line") from None


def converse(engine: Engine, script: Script, sampling: Sampling = LIKELIEST) -> list[Message]:
    """Every turn of the script with the model's answer. What is oldest is left out where there is no room for it."""
    said: list[Message] = []
    start = 0
    for place, turn in enumerate(script.turns):
        said.append(message("user", turn))
        while len(ids := prompt(engine.tokenizer, said[start:])) > (1 - ROOM) * engine.model.config.context:
            start += 2
            if start >= len(said):
                raise DataError("turns that fit into the context", f"{len(ids)} tokens in {script.name}", "shorten it")
        answer = engine.generate([ids], sampling, [place])[0]
        said.append(read_reply(engine.tokenizer, answer.ids))
    return said


def converse_all(engine: Engine, scripts: Sequence[Script]) -> list[list[Message]]:
    """`converse` for each script. Processes share them out, and each gets all conversations."""
    mine = range(engine.runtime.rank, len(scripts), engine.runtime.world)
    talks = {number: converse(engine, scripts[number]) for number in mine}
    everyone = {number: talk for part in gathered(talks, engine.runtime) for number, talk in part.items()}
    return [everyone[number] for number in range(len(scripts))]


def as_samples(scripts: Sequence[Script], talks: Sequence[list[Message]]) -> list[dict[str, Any]]:
    """Entries of dialogues.json."""
    return [
        {"name": script.name, "messages": conversation_to_json(talk), "note": f"conversation {script.name}"}
        for script, talk in zip(scripts, talks, strict=True)
    ]
