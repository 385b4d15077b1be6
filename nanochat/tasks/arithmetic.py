"""Sums for the calculator: one or two operations, percentages.

The model writes the expression, then copies the result.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from nanochat import keyed
from nanochat.tasks.grading import grade_number
from nanochat.tasks.measures import fraction
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import Wordings, wordings
from nanochat.tokenizer.chat import Call, Message, Output, Part, Text
from nanochat.tools import Calculator

Fields = dict[str, str]


@dataclass(frozen=True)
class Sum:
    """A kind of sum: how its numbers are drawn, the expression, and how people ask."""

    draw: Callable[[random.Random], Fields]
    expression: str
    wordings: Wordings


def number(draw: random.Random, largest: int = 999) -> int:
    """A number with one to three digits, each length as likely as the others."""
    return draw.randint(2, min(largest, 10 ** draw.randint(1, 3)))


def two(draw: random.Random) -> Fields:
    """Two numbers, or a price and a number."""
    if draw.random() < 0.1:  # prices
        return {"a": f"{draw.randint(1, 40)}.{draw.choice(('25', '5', '75', '99'))}", "b": str(number(draw, 100))}
    return {"a": str(number(draw)), "b": str(number(draw))}


def larger_first(draw: random.Random) -> Fields:
    """Two numbers, the larger one as `a`."""
    small, large = sorted((number(draw), number(draw)))
    return {"a": str(large + 1), "b": str(small)}


def factors(draw: random.Random) -> Fields:
    """Two factors below a hundred, the second mostly small."""
    return {"a": str(draw.randint(2, 99)), "b": str(draw.randint(2, draw.choice((12, 99))))}


def divided(draw: random.Random) -> Fields:
    """Mostly without a remainder, as in life."""
    by = draw.randint(2, draw.choice((12, 25)))
    return {"a": str(by * draw.randint(2, 40) if draw.random() < 0.8 else draw.randint(3, 500)), "b": str(by)}


def percentage(draw: random.Random) -> Fields:
    """A share in percent and a whole."""
    return {"a": str(draw.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 90))), "b": str(5 * draw.randint(2, 100))}


def three(draw: random.Random) -> Fields:
    """Two factors and a number to add."""
    return factors(draw) | {"c": str(draw.randint(2, 50))}


def division_and(draw: random.Random) -> Fields:
    """A division and a number to add."""
    return divided(draw) | {"c": str(draw.randint(2, 50))}


SUMS = {
    "add": Sum(
        two,
        "{a}+{b}",
        wordings("arithmetic.add"),
    ),
    "subtract": Sum(
        larger_first,
        "{a}-{b}",
        wordings("arithmetic.subtract"),
    ),
    "multiply": Sum(
        factors,
        "{a}*{b}",
        wordings("arithmetic.multiply"),
    ),
    "divide": Sum(
        divided,
        "{a}/{b}",
        wordings("arithmetic.divide"),
    ),
    "percent": Sum(
        percentage,
        "{b}*{a}/100",
        wordings("arithmetic.percent"),
    ),
    "multiply and add": Sum(
        three,
        "{a}*{b}+{c}",
        wordings("arithmetic.multiply_and_add"),
    ),
    "divide and add": Sum(
        division_and,
        "{a}/{b}+{c}",
        wordings("arithmetic.divide_and_add"),
    ),
    "add and multiply": Sum(
        three,
        "({a}+{c})*{b}",
        wordings("arithmetic.add_and_multiply"),
    ),
}


class Arithmetic:
    """Sums in words and signs, solved by one call of the calculator."""

    name = "arithmetic"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(sorted(SUMS))
        fields = SUMS[kind].draw(draw)
        while not on_side(split, SUMS[kind].expression.format(**fields)):
            fields = SUMS[kind].draw(draw)
        question = SUMS[kind].wordings.ask(split, draw, fields)
        expression = SUMS[kind].expression.format(**fields)
        result = Calculator()(expression)
        truth: dict[str, object] = {
            "kind": kind,
            "expression": expression,
            "givens": [[value, ""] for value in fields.values()],
        }
        reply = by_calculator(expression, f"That is {result}.")
        return Example(dialogue(question.text, reply), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_calculation(example, reply)


def by_calculator(expression: str, answer: str) -> tuple[Part, ...]:
    """The parts of a reply that has the calculator work `expression` out, then says `answer`."""
    return Call("calculator", expression), Output(Calculator()(expression)), Text(answer)


def grade_calculation(example: Example, reply: Message) -> Grade:
    """Whether the reply states the value of `truth["expression"]`, in `truth["unit"]` if there is one."""
    truth = example.truth
    givens = truth.get("givens", [])
    assert isinstance(givens, list)
    return grade_number(
        reply,
        Calculator().value(str(truth["expression"])),
        unit=str(truth.get("unit", "")),
        givens=[(fraction(value), noun) for value, noun in givens],
        needs_unit=bool(truth.get("needs_unit", False)),
        expected_length=len(example.reference.text),
    )
