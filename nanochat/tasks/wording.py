"""Questions in many wordings, and the ways in which people type them."""

import random
import re
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from nanochat.tasks.task import Split

# How often a question is changed: at most one of the first three, and beside it the fourth.
SMALL_RATE = 0.30  # all in small letters
CAPITAL_RATE = 0.03  # all in capitals
TYPO_RATE = 0.08  # one slip of a finger
BARE_END_RATE = 0.20  # without the question mark or full stop
ENDS = ".?!"


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
        typed = as_typed(pieces, draw, keep, slips)
        text = "".join(piece for _, piece in typed)
        if draw.random() < BARE_END_RATE and text.rstrip(ENDS):
            text = text.rstrip(ENDS)
        return Question(text, f"{self.name}.{side}.{number}", {name: piece for name, piece in typed if name})


Pieces = list[tuple[str, str]]  # (name of the field, or "" for the template's own words; text)


def filled(template: str, fields: Mapping[str, object]) -> Pieces:
    """The pieces of `template` in order, with what stands in each field."""
    pieces: Pieces = []
    for words, name, _, _ in string.Formatter().parse(template):
        if words:
            pieces.append(("", words))
        if name:
            pieces.append((name, str(fields[name])))
    return pieces


def as_typed(pieces: Pieces, draw: random.Random, keep: Collection[str], slips: Collection[str]) -> Pieces:
    """`pieces` in small letters, in capitals, with one typo, or (mostly) as they are."""
    chance = draw.random()
    if chance < SMALL_RATE:
        return recased(pieces, str.lower, keep)
    if chance < SMALL_RATE + CAPITAL_RATE:
        return recased(pieces, str.upper, keep)
    if chance < SMALL_RATE + CAPITAL_RATE + TYPO_RATE:
        return with_typo(pieces, draw, slips)
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
