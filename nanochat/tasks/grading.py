"""Graders: strict on what is said, tolerant of how. Each gives a reward from 0 to 1 and the reason for it.

A reply is judged by its text alone; what a tool answered counts only as a consolation. No model judges here: every
rule can be read below, and the tests hold right, wrong and tricky replies against it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nanochat.tasks.measures import unit_named
from nanochat.tasks.task import Grade
from nanochat.tokenizer.chat import Message, Output
from nanochat.tools import VULGAR, print_number

PARTIAL = 0.5  # right, but it rambles or repeats itself
NO_UNIT = 0.8  # the right number without the unit that was asked for
CONSOLATION = 0.2  # the calculator had the answer, the sentence does not
TOLERANCE = Fraction(1, 200)  # of an answer that had to be rounded

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
ONES = {word: number for number, word in enumerate(SMALL + TEENS)}
TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
PARTS = {"half": "1/2", "third": "1/3", "quarter": "1/4", "eighth": "1/8"}

NUMBER = re.compile(
    r"""(?P<money>[$€£]\s*)?
        (?P<minus>(?<![\w.)])[-−])?
        (?: (?P<mixed>\d+)\s+(?P<mixed_part>\d+/\d+)(?![\d/])
          | (?P<fraction>\d+/\d+)(?![\d/])
          | (?P<thousands>\d{1,3}(?:,\d{3})+(?:\.\d+)?)(?!\d)
          | (?P<plain>\d*\.\d+|\d+)
        )
        (?P<unit>\s*(?:degrees?\s+)?(?:°\s*[CFcf]?|[A-Za-z]+)?)""",
    re.VERBOSE,
)
WORKINGS = re.compile(r"[\d(][\d\s.,/*+\-−()×÷x]*[*+\-−×÷x/][\d\s.,/*+\-−()×÷x]*=")
DENIAL = re.compile(r"\b(not|never|no|isn't|aren't|don't|doesn't)\s+(\w+\s+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Stated:
    """A number that a text states: its value, the worth of its last digit, and the unit after it ("" for none)."""

    value: Fraction
    precision: Fraction
    unit: str
    denied: bool


def stated_numbers(text: str, nouns: Iterable[str] = ()) -> list[Stated]:
    """The numbers in `text` in order; `nouns` are words that count as units beside the units of the kitchen.

    Number words are read only where no digit stands. What stands before an equals sign is working, not a statement.

    >>> [(str(n.value), n.unit) for n in stated_numbers("That is 3/4*10/4 = 1 7/8 cups.")]
    [('15/8', 'cup')]
    """
    for sign, written in VULGAR.items():
        text = text.replace(sign, f" {written}")
    if not re.search(r"\d", text):
        text = words_to_digits(text)
    text = WORKINGS.sub(" ", text)
    known = {noun.lower() for noun in nouns}
    return [read_number(match, text, known) for match in NUMBER.finditer(text) if readable(match)]


def readable(match: re.Match[str]) -> bool:
    """False for a fraction with nothing below the line."""
    return not re.search(r"/0+$", match["mixed_part"] or match["fraction"] or "")


def read_number(match: re.Match[str], text: str, nouns: set[str]) -> Stated:
    """The number that NUMBER found in `text`, with its unit and whether the words before deny it."""
    precision = Fraction(0)
    if match["mixed"]:
        value = int(match["mixed"]) + Fraction(match["mixed_part"])
    elif match["fraction"]:
        value = Fraction(match["fraction"])
    else:
        written = (match["thousands"] or match["plain"]).replace(",", "")
        value = Fraction(written)
        precision = Fraction(1, 10 ** len(written.partition(".")[2]))
    denied = bool(DENIAL.search(text[: match.start()]))
    unit = "dollar" if match["money"] else canonical(match["unit"], nouns)
    return Stated(-value if match["minus"] else value, precision, unit, denied)


def canonical(word: str, nouns: Iterable[str] = ()) -> str:
    """One name for each unit or noun: "tbsp" -> "tablespoon", "muffins" -> "muffin"; "" for any other word.

    >>> canonical(" degrees Celsius"), canonical("Muffins", {"muffin"}), canonical("of")
    ('°C', 'muffin', '')
    """
    word = re.sub(r"^\s*degrees?\s*", "", word.strip().lower()).replace(" ", "")
    unit = unit_named(word)
    if unit is not None:
        return unit.singular
    singulars = {word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word)}
    return next((noun for noun in sorted(nouns) if noun in singulars or noun.removesuffix("s") in singulars), "")


def words_to_digits(text: str) -> str:
    """`text` with number words up to 999 as digits: "two and a half cups" -> "2 1/2 cups"."""
    part = re.compile(r"\b(?:and\s+)?(?:a|one)\s+(half|third|quarter|eighth)\b", re.I)
    found = part.sub(lambda match: PARTS[match[1].lower()], text)
    found = re.sub(r"\bthree\s+quarters\b", "3/4", found, flags=re.I)
    found = re.sub(r"\bhalf(\s+an?)?\b", "1/2", found, flags=re.I)
    pattern = "|".join([*ONES, *TENS, "hundred", "dozen"])
    run = re.compile(rf"\b(?:{pattern})(?:[\s-]+(?:and\s+)?(?:{pattern}))*\b", re.I)
    return run.sub(lambda match: str(worth_of_words(match.group())), found)


def worth_of_words(words: str) -> int:
    """The number that number words stand for: "forty-two" is 42."""
    total = 0
    for word in re.findall("[a-z]+", words.lower()):
        if word == "hundred":
            total = max(1, total) * 100
        elif word == "dozen":
            total = max(1, total) * 12
        else:
            total += ONES.get(word, 0) + TENS.get(word, 0)
    return total


def agrees(stated: Stated, value: Fraction) -> bool:
    """Whether a stated number is `value`: exactly, or rounded where `value` does not end soon."""
    difference = abs(stated.value - value)
    if difference == 0 or (value * 100).denominator == 1:
        return difference == 0
    if stated.value == Fraction(print_number(value)):
        return True
    fine = stated.precision <= Fraction(1, 100) and abs(value) >= Fraction(1, 10)
    return difference < stated.precision and (fine or difference <= TOLERANCE * abs(value))


def grade_number(
    reply: Message,
    value: Fraction,
    *,
    unit: str = "",
    givens: Sequence[tuple[Fraction, str]] = (),
    needs_unit: bool = False,
    expected_length: int = 40,
) -> Grade:
    """Whether the reply's text states `value`, in `unit` where it names one, and no other result.

    Numbers of the question (`givens`, with their units) may be repeated; any further number is a second answer, and
    wrong. The right number with a wrong unit is wrong.
    """
    text = reply.text
    unit = canonical(unit, [unit]) or unit
    givens = [(number, canonical(noun, [noun]) or noun) for number, noun in givens]
    stated = stated_numbers(text, [unit, *(noun for _, noun in givens)])
    if not stated:
        return consoled(reply, value, "no number")
    named = bare = False
    for number in stated:
        fits = agrees(number, value) and not number.denied
        if fits and number.unit == unit and unit:
            named = True
        elif fits and not (number.unit and unit):
            bare = True
        elif not is_given(number, givens):
            return consoled(reply, value, f"{float(number.value):g} {number.unit} is not the answer".replace("  ", " "))
    if bare and not named and any(value == number for number, _ in givens) and not agrees(stated[-1], value):
        bare = False  # the answer happens to be a number of the question, and only that was repeated
    if not named and not bare:
        return consoled(reply, value, "only numbers of the question")
    if needs_unit and not named:
        return Grade(NO_UNIT, "right number, no unit")
    return tidy(text, expected_length)


def is_given(number: Stated, givens: Sequence[tuple[Fraction, str]]) -> bool:
    """Whether a stated number repeats one of the question, with its unit or none."""
    return any(number.value == value and number.unit in ("", noun) for value, noun in givens)


def consoled(reply: Message, value: Fraction, reason: str) -> Grade:
    """Nothing, or a little where a tool's answer is the value that the text does not state."""
    outputs = [number for part in reply.parts if isinstance(part, Output) for number in stated_numbers(part.text)]
    if any(agrees(number, value) for number in outputs):
        return Grade(CONSOLATION, f"{reason}; the calculator had it")
    return Grade(0.0, reason)


def tidy(text: str, expected_length: int) -> Grade:
    """1 for a right answer, half of it where the text says things twice or runs on."""
    if repeats(text):
        return Grade(PARTIAL, "right, but repeats itself")
    if len(text) > 3 * expected_length + 60:
        return Grade(PARTIAL, "right, but runs on")
    return Grade(1.0, "right")


def repeats(text: str) -> bool:
    """Whether a sentence of the text comes twice, or four words in a row come three times."""
    sentences = Counter(plain(part) for part in re.split(r"[.!?\n](?:\s|$)", text) if len(plain(part)) > 2)
    words = plain(text).split()
    runs = Counter(tuple(words[at : at + 4]) for at in range(len(words) - 3))
    return max(sentences.values(), default=0) > 1 or max(runs.values(), default=0) > 2


def plain(text: str) -> str:
    """Letters and digits only, small, words parted by one space: what two texts are compared by."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def lines_of(text: str) -> list[str]:
    """The lines of a text without bullets, numbers in front, empty ones and surrounding space."""
    bare = (re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line).strip() for line in text.split("\n"))
    return [line for line in bare if line]


def line_f1(expected: Sequence[str], got: Sequence[str]) -> float:
    """F1 between two lists of lines as multisets, compared without case, punctuation and spacing."""
    wanted, given = (Counter(line for line in map(plain, lines) if line) for lines in (expected, got))
    both = sum((wanted & given).values())
    return 2 * both / (wanted.total() + given.total()) if both else 0.0


def grade_copy(reply: Message, expected: str) -> Grade:
    """1 for the expected text, case and spacing aside; else half the share of its words up to the first slip."""
    got, wanted = " ".join(reply.text.lower().split()), " ".join(expected.lower().split())
    if got == wanted or got.rstrip(".") == wanted.rstrip("."):
        return Grade(1.0, "right")
    given, words = got.split(), wanted.split()
    right = next((at for at, word in enumerate(words) if at >= len(given) or given[at] != word), len(words))
    reason = "runs on" if right == len(words) else f"differs at word {right + 1} of {len(words)}"
    return Grade(PARTIAL * right / max(1, len(words)), reason)


def mentions(said: str, phrase: str) -> bool:
    """Whether plain text, with a blank at both ends, holds a phrase: "cup" also as "cups", but "no" not as "now"."""
    wanted = plain(phrase)
    return f" {wanted}{' ' * (len(wanted) < 3)}" in said


def grade_mentions(reply: Message, must: Sequence[Sequence[str]], never: Sequence[str], expected_length: int) -> Grade:
    """1 if the reply says a phrase of every group in `must`, less for fewer, 0 where it says one of `never`."""
    said = f" {plain(reply.text)} "
    for phrase in never:
        if f" {plain(phrase)} " in said:
            return Grade(0.0, f"says {phrase!r}")
    missing = [group for group in must if not any(mentions(said, phrase) for phrase in group)]
    if missing:
        share = 1 - len(missing) / len(must)
        return Grade(PARTIAL * share, f"says nothing of {missing[0][0]!r}")
    return tidy(reply.text, expected_length) if said.strip() else Grade(0.0, "empty")
