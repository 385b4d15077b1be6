"""What people say that is no question about a dish or a number: small talk, honest limits, safety, substitutions.

The exchanges are data (`*.jsonl` beside this file, all our own): an id, wordings for training and held-out ones,
replies, and what a reply must say (one phrase of each group in `must`) and must not (`never`). `fill` holds what may
stand at `{x}`. What they say about safety follows the USDA's and the FDA's advice to cooks (safe temperatures, two
hours at room temperature, no honey before the first birthday, kidney beans boiled for half an hour).
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Any

from nanochat import keyed
from nanochat.tasks.grading import grade_mentions
from nanochat.tasks.task import Example, Grade, Split, dialogue
from nanochat.tasks.wording import Wordings
from nanochat.tokenizer.chat import Message


@dataclass(frozen=True)
class Exchange:
    """Something people say, in several wordings, and what is answered."""

    wordings: Wordings
    replies: tuple[str, ...]
    must: list[list[str]]
    never: list[str] = field(default_factory=list)
    fill: dict[str, list[str]] = field(default_factory=dict)


def rows(name: str) -> list[dict[str, Any]]:
    """The objects of a .jsonl file of this package."""
    return [json.loads(line) for line in (files("nanochat.tasks") / name).read_text("utf-8").splitlines()]


class Talk:
    """The exchanges of one file."""

    def __init__(self, name: str, file: str) -> None:
        self.name = name
        self.file = file

    @cached_property
    def exchanges(self) -> list[Exchange]:
        return [
            Exchange(
                Wordings(f"{self.name}.{row['id'].replace(' ', '_')}", row["train"], row["test"]),
                tuple(row["replies"]),
                row["must"],
                row.get("never", []),
                row.get("fill", {}),
            )
            for row in rows(self.file)
        ]

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        exchange = draw.choice(self.exchanges)
        fillings = exchange.fill.get("train" if split == "train" else "test", [""])
        question = exchange.wordings.ask(split, draw, {"x": draw.choice(fillings)})
        truth: dict[str, object] = {"must": exchange.must, "never": exchange.never}
        return Example(dialogue(question.text, draw.choice(exchange.replies)), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_said(example, reply)


SUBSTITUTES = Wordings(
    "substitutions.instead",
    train=(
        "I have no {item}. What can I take instead?",
        "What can I use instead of {item}?",
        "What is a substitute for {item}?",
        "I ran out of {item}. What now?",
        "Can I replace {item}?",
        "What replaces {item}?",
        "Instead of {item}, what can I take?",
        "There is no {item} left. What else works?",
        "A substitute for {item}?",
        "I don't have {item}.",
        "I can't eat {item}. What do I take instead?",
        "How do I replace {item}?",
    ),
    test=(
        "The shop had no {item}. Does something else do?",
        "My recipe wants {item}, but I forgot to buy it. Any way around it?",
        "Is there something like {item} that I could use?",
        "What do people take when {item} is missing?",
        "No {item} in the house! Help!",
    ),
)


class Substitutions:
    """What to take instead of something that is not there."""

    name = "substitutions"

    @cached_property
    def exchanges(self) -> list[dict[str, Any]]:
        return rows("substitutions.jsonl")

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        row = draw.choice(self.exchanges)
        question = SUBSTITUTES.ask(split, draw, {"item": row["item"]})
        truth: dict[str, object] = {"must": row["must"], "never": []}
        return Example(dialogue(question.text, row["reply"]), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_said(example, reply)


def grade_said(example: Example, reply: Message) -> Grade:
    """Whether the reply says what the example's truth demands."""
    must, never = example.truth["must"], example.truth["never"]
    assert isinstance(must, list) and isinstance(never, list)
    return grade_mentions(reply, must, never, len(example.reference.text))
