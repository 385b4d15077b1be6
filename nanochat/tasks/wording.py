"""Questions in many wordings, and the ways in which people type them.

The wordings are data: `wordings.jsonl` to learn from and `wordings_held_out.jsonl` to be asked in. The second was
written by someone who had seen neither the first nor the code, only what each question is about; whoever adds to one
should not have the other open.
"""

import json
import random
import re
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nanochat.tasks.task import Split

# How often a question is changed: at most one of the first three, and beside it the fourth.
SMALL_RATE = 0.30  # all in small letters
CAPITAL_RATE = 0.06  # all in capitals
TYPO_RATE = 0.12  # one slip of a finger, or two
BARE_END_RATE = 0.20  # without the question mark or full stop
ENDS = ".?!"

# How often a question lacks some of its words, what share of them then, and from how many on: of few each matters. Only
# in training: a model that must do without any one word clings to none, and understands other wordings better.
THIN_RATE, THINNED, THIN_FROM = 0.35, 0.15, 6

# What people say around a question. Only in training: what must not matter has to be seen not to matter.
LEAD_RATE, TAIL_RATE = 0.20, 0.10
LEADS = (
    "Hi!", "Hello!", "Hey,", "Hi there,", "Hello again.", "OK,", "Okay.", "So,", "Well,", "Now,", "Next,", "And",
    "Also,", "Please,", "Sorry,", "Excuse me,", "Quick question:", "One question:", "Another question.", "One more:",
    "One more thing.", "Question:", "Help!", "Help me, please.", "Can you help me?", "I need your help.", "Tell me:",
    "I was wondering:", "Just curious:", "By the way,", "Good morning!", "Good evening.", "Listen,", "Look,", "Say,",
    "My friend asks:", "My mother wants to know:", "My son asked me this.", "We are wondering:", "For tonight:",
    "I am in the kitchen.", "I am cooking right now.", "It is for a party.", "I have guests on Sunday.", "Great.",
    "Thanks.", "Thank you. Next:", "Nanochat,", "Dear assistant,", "Me again.", "Hm.", "Right,", "Actually,",
    "Let me ask you this.", "Do you know this?", "I am not good at this.", "I am in a hurry.", "Tell me please,",
)  # fmt: skip
TAILS = (
    "Please.", "Thanks!", "Thank you!", "Thanks a lot.", "please", "thanks", "thx", ":)", "Please help.",
    "Quickly, please.", "I am in a hurry.", "It is for tonight.", "It is for my family.", "My guests are waiting.",
    "Can you do that?", "Can you help me?", "Do you know?", "I need to know.", "I forgot.", "I am not sure.",
    "I have no idea.", "Be quick!", "Tell me, please.", "That would be great.", "I would like to know.", "Any idea?",
    "What do you say?", "Hm?",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question as typed, the id of its wording, and its fields as they stand in it."""

    text: str
    wording: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Wordings:
    """The wordings of one kind of question: templates as for `str.format`; `train` never shows those of `test`."""

    name: str
    train: Sequence[str]
    test: Sequence[str]

    def ask(
        self,
        split: Split,
        draw: random.Random,
        fields: Mapping[str, object],
        keep: Collection[str] = (),
        slips: Collection[str] = (),
    ) -> Question:
        """A question as somebody might type it.

        The fields named in `keep` keep their letters' case; only those in `slips` may get a typo.
        """
        side, templates = ("test", self.test) if split == "test" else ("train", self.train)
        number = draw.randrange(len(templates))
        pieces = filled(templates[number], fields)
        if split == "train" and not keep:
            pieces = surrounded(thinned(pieces, draw), draw)
        # All in capitals is read in small letters (tokenizer/chat.py `calmed`), which training has without it.
        capitals = CAPITAL_RATE if split == "test" or keep else 0.0
        typed = as_typed(pieces, draw, keep, slips, capitals)
        text = "".join(piece for _, piece in typed)
        if draw.random() < BARE_END_RATE and text.rstrip(ENDS):
            text = text.rstrip(ENDS)
        return Question(text, f"{self.name}.{side}.{number}", {name: piece for name, piece in typed if name})


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    """The objects of a .jsonl file of this package."""
    return [json.loads(line) for line in (files("nanochat.tasks") / name).read_text("utf-8").splitlines()]


@cache
def templates(name: str, side: str) -> dict[str, tuple[str, ...]]:
    """Kind of question -> its wordings, from one file."""
    return {row["name"]: tuple(row[side]) for row in rows_of(name)}


def wordings(name: str) -> Wordings:
    """All wordings of one kind of question, as "units.heat"."""
    return Wordings(
        name, templates("wordings.jsonl", "train")[name], templates("wordings_held_out.jsonl", "test")[name]
    )


Pieces = list[tuple[str, str]]  # (name of the field, or "" for the template's own words; text)


def thinned(pieces: Pieces, draw: random.Random) -> Pieces:
    """`pieces`, mostly as they are, or without some of the template's own words: no single one may matter much."""
    own = sum(len(piece.split()) for name, piece in pieces if not name)
    if draw.random() >= THIN_RATE or own < THIN_FROM:
        return pieces

    def words(text: str) -> str:
        return re.sub(r"[A-Za-z']+ ?", lambda found: "" if draw.random() < THINNED else found[0], text)

    return [(name, piece if name else words(piece)) for name, piece in pieces]


def surrounded(pieces: Pieces, draw: random.Random) -> Pieces:
    """`pieces`, mostly as they are, with something said before or after them."""
    if draw.random() < LEAD_RATE:
        pieces = [("", f"{draw.choice(LEADS)} "), *pieces]
    if draw.random() < TAIL_RATE:
        pieces = [*pieces, ("", f" {draw.choice(TAILS)}")]
    return pieces


def filled(template: str, fields: Mapping[str, object]) -> Pieces:
    """The pieces of `template` in order, with what stands in each field."""
    pieces: Pieces = []
    for words, name, _, _ in string.Formatter().parse(template):
        if words:
            pieces.append(("", words))
        if name:
            pieces.append((name, str(fields[name])))
    return pieces


def as_typed(
    pieces: Pieces, draw: random.Random, keep: Collection[str], slips: Collection[str], capitals: float
) -> Pieces:
    """`pieces` in small letters, in capitals, with one typo, or (mostly) as they are."""
    chance = draw.random()
    if chance < SMALL_RATE:
        return recased(pieces, str.lower, keep)
    if chance < SMALL_RATE + capitals:
        return recased(pieces, str.upper, keep)
    if chance < SMALL_RATE + capitals + TYPO_RATE:
        slipped = with_typo(pieces, draw, slips)
        return with_typo(slipped, draw, slips) if draw.random() < 0.4 else slipped
    return pieces


def recased(pieces: Pieces, change: Callable[[str], str], keep: Collection[str]) -> Pieces:
    """`pieces` after `change`, but for the fields to keep."""
    return [(name, piece if name in keep else change(piece)) for name, piece in pieces]


def with_typo(pieces: Pieces, draw: random.Random, slips: Collection[str]) -> Pieces:
    """`pieces` with two letters swapped, one dropped or one doubled inside one word of four letters or more."""
    places = [
        (number, match.span())
        for number, (name, piece) in enumerate(pieces)
        if not name or name in slips
        for match in re.finditer(r"[A-Za-z]{4,}", piece)
    ]
    if not places:
        return pieces
    number, (start, end) = draw.choice(places)
    name, piece = pieces[number]
    at = draw.randrange(start + 1, end - 1)
    slip = draw.choice(("swap", "drop", "double"))
    middle = {"swap": piece[at + 1] + piece[at], "drop": piece[at + 1], "double": piece[at] * 2 + piece[at + 1]}[slip]
    changed = piece[:at] + middle + piece[at + 2 :]
    return [*pieces[:number], (name, changed), *pieces[number + 1 :]]
