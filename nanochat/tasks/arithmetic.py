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
from nanochat.tasks.wording import Wordings
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
        Wordings(
            "arithmetic.add",
            train=(
                "What is {a} plus {b}?",
                "{a}+{b}",
                "{a} + {b} = ?",
                "Add {a} and {b}.",
                "How much is {a} and {b} together?",
                "What do I get when I add {a} to {b}?",
                "Please add {b} to {a}.",
                "What is the sum of {a} and {b}?",
                "Can you calculate {a} plus {b}?",
                "{a} plus {b}?",
            ),
            test=(
                "Tell me what {a} and {b} add up to.",
                "I need the total of {a} and {b}.",
                "Do you know what {a} + {b} is?",
                "Work out {a} plus {b} for me.",
                "If I put {a} and {b} together, what is the sum?",
            ),
        ),
    ),
    "subtract": Sum(
        larger_first,
        "{a}-{b}",
        Wordings(
            "arithmetic.subtract",
            train=(
                "What is {a} minus {b}?",
                "{a}-{b}",
                "{a} - {b} = ?",
                "Subtract {b} from {a}.",
                "What is left of {a} when I take away {b}?",
                "How much is {a} less {b}?",
                "Take {b} away from {a}.",
                "What is the difference between {a} and {b}?",
                "Can you calculate {a} minus {b}?",
                "{a} minus {b}?",
            ),
            test=(
                "Tell me what {a} minus {b} makes.",
                "I have {a} and take away {b}. What is left?",
                "Do you know what {a} - {b} is?",
                "Work out {a} minus {b} for me.",
                "By how much is {a} more than {b}?",
            ),
        ),
    ),
    "multiply": Sum(
        factors,
        "{a}*{b}",
        Wordings(
            "arithmetic.multiply",
            train=(
                "What is {a} times {b}?",
                "{a}*{b}",
                "{a} x {b} = ?",
                "Multiply {a} by {b}.",
                "What is {a} multiplied by {b}?",
                "How much is {a} times {b}?",
                "What is the product of {a} and {b}?",
                "Please multiply {a} and {b}.",
                "Can you calculate {a} times {b}?",
                "{a} times {b}?",
            ),
            test=(
                "Tell me what {a} times {b} makes.",
                "I need {a} multiplied by {b}.",
                "Do you know what {a} * {b} is?",
                "Work out {a} times {b} for me.",
                "What do {a} and {b} make when I multiply them?",
            ),
        ),
    ),
    "divide": Sum(
        divided,
        "{a}/{b}",
        Wordings(
            "arithmetic.divide",
            train=(
                "What is {a} divided by {b}?",
                "{a}/{b}",
                "{a} / {b} = ?",
                "Divide {a} by {b}.",
                "How much is {a} over {b}?",
                "How often does {b} go into {a}?",
                "Split {a} into {b} equal parts.",
                "Please divide {a} by {b}.",
                "Can you calculate {a} divided by {b}?",
                "{a} divided by {b}?",
            ),
            test=(
                "Tell me what {a} divided by {b} makes.",
                "I need {a} split into {b} parts.",
                "Do you know what {a} / {b} is?",
                "Work out {a} divided by {b} for me.",
                "How many times does {b} fit into {a}?",
            ),
        ),
    ),
    "percent": Sum(
        percentage,
        "{b}*{a}/100",
        Wordings(
            "arithmetic.percent",
            train=(
                "What is {a}% of {b}?",
                "{a}% of {b}",
                "How much is {a} percent of {b}?",
                "Calculate {a}% of {b}.",
                "What is {a} percent of {b}?",
                "Take {a}% of {b}.",
                "Please give me {a} percent of {b}.",
                "{a} percent of {b}?",
                "Can you calculate {a}% of {b}?",
            ),
            test=(
                "Tell me {a}% of {b}.",
                "I need {a} percent of {b}.",
                "Do you know how much {a}% of {b} is?",
                "Of {b}, how much is {a}%?",
            ),
        ),
    ),
    "multiply and add": Sum(
        three,
        "{a}*{b}+{c}",
        Wordings(
            "arithmetic.multiply_and_add",
            train=(
                "What is {a} times {b} plus {c}?",
                "{a}*{b}+{c}",
                "Multiply {a} by {b} and add {c}.",
                "How much do {a} times {b} and {c} make?",
                "{a} x {b} + {c} = ?",
                "Take {a} times {b}, then add {c}.",
                "How much is {a} times {b} and then {c} more?",
                "Can you calculate {a} times {b} plus {c}?",
            ),
            test=(
                "Tell me what {a} times {b} plus {c} makes.",
                "I need {a} times {b}, with {c} added.",
                "Work out {a} times {b}, then plus {c}.",
                "First multiply {a} and {b}, then add {c}. What is it?",
            ),
        ),
    ),
    "divide and add": Sum(
        division_and,
        "{a}/{b}+{c}",
        Wordings(
            "arithmetic.divide_and_add",
            train=(
                "What is {a} divided by {b} plus {c}?",
                "{a}/{b}+{c}",
                "Divide {a} by {b} and add {c}.",
                "How much is {a} divided by {b}, and {c} more?",
                "{a} / {b} + {c} = ?",
                "Take {a}, divide it by {b}, then add {c}.",
                "Please divide {a} by {b}, then add {c}.",
                "Can you calculate {a} divided by {b} plus {c}?",
            ),
            test=(
                "Tell me what {a} divided by {b} plus {c} makes.",
                "I need {a} divided by {b}, with {c} added.",
                "Work out {a} over {b}, then plus {c}.",
                "First divide {a} by {b}, then add {c}. What is it?",
            ),
        ),
    ),
    "add and multiply": Sum(
        three,
        "({a}+{c})*{b}",
        Wordings(
            "arithmetic.add_and_multiply",
            train=(
                "Add {a} and {c}, then multiply by {b}.",
                "({a}+{c})*{b}",
                "({a} + {c}) x {b} = ?",
                "What is the sum of {a} and {c}, times {b}?",
                "Take {a} plus {c} and multiply the sum by {b}.",
                "Please add {a} and {c} and multiply by {b}.",
                "How much is {a} plus {c}, all of it times {b}?",
                "Can you calculate ({a} + {c}) * {b}?",
            ),
            test=(
                "First add {a} and {c}, then multiply by {b}. What is it?",
                "Tell me what ({a} + {c}) * {b} makes.",
                "I need the sum of {a} and {c}, multiplied by {b}.",
                "Work out {b} times the sum of {a} and {c}.",
            ),
        ),
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
