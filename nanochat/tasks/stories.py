"""Word problems from the kitchen and the shop: which numbers to put together, and how, is told by a story."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from nanochat import keyed
from nanochat.tasks.arithmetic import by_calculator, grade_calculation
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import Wordings, wordings
from nanochat.tokenizer.chat import Message
from nanochat.tools import Calculator

Fields = dict[str, str]

THINGS = ("muffin", "cookie", "roll", "dumpling", "tart", "pancake", "meatball", "scone", "bun", "pie")
HOLDERS = ("tray", "box", "basket", "plate", "pan", "tin", "bag")
GOODS = ("bag of rice", "jar of honey", "can of beans", "loaf of bread", "bottle of oil", "box of eggs", "bag of flour")
FOODS = ("egg", "apple", "lemon", "onion", "carrot", "potato", "tomato", "banana", "pepper", "lime", "peach", "pear")


def many(noun: str) -> str:
    """The plural of a noun from the lists above, also of "bag of rice"."""
    head, of, rest = noun.partition(" of ")
    irregular = {"loaf": "loaves"}
    ending = "es" if head.endswith(("o", "ch", "sh", "x", "s")) else "s"
    return irregular.get(head, head + ending) + of + rest


def groups(draw: random.Random) -> Fields:
    """So many holders with so many things each."""
    holder, thing = draw.choice(HOLDERS), draw.choice(THINGS)
    number = str(draw.randint(2, 25))
    return {"a": str(draw.randint(2, 36)), "b": number, "one": holder, "many": many(holder), "things": many(thing)}


def prices(draw: random.Random) -> Fields:
    """So many goods at one price."""
    cents = draw.choice(("", "", ".25", ".50", ".75", ".99"))
    goods = draw.choice(GOODS)
    return {"a": str(draw.randint(2, 15)), "b": f"{draw.randint(1, 12)}{cents}", "one": goods, "things": many(goods)}


def change(draw: random.Random) -> Fields:
    """A purchase and the money it is paid from."""
    return prices(draw) | {"c": str(draw.choice((20, 50, 100, 200)))}


def shares(draw: random.Random) -> Fields:
    """Things that so many people share evenly."""
    people = draw.randint(2, 12)
    return {"a": str(people * draw.randint(2, 20)), "b": str(people), "things": many(draw.choice(THINGS))}


def leftovers(draw: random.Random) -> Fields:
    """Things, and how many of them are used."""
    before = draw.randint(6, 120)
    return {"a": str(before), "b": str(draw.randint(2, before - 2)), "things": many(draw.choice(FOODS + THINGS))}


def totals(draw: random.Random) -> Fields:
    """Two numbers of the same things."""
    return {"a": str(draw.randint(2, 150)), "b": str(draw.randint(2, 150)), "things": many(draw.choice(FOODS + THINGS))}


def broken(draw: random.Random) -> Fields:
    """Full holders, of whose things some are lost."""
    fields = groups(draw)
    return fields | {"c": str(draw.randint(2, max(3, int(fields["a"]))))}


def batches(draw: random.Random) -> Fields:
    """Batches of so many minutes each."""
    return {"a": str(draw.randint(2, 12)), "b": str(draw.choice((8, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45)))}


@dataclass(frozen=True)
class Story:
    """A kind of story: how its numbers are drawn, the expression, the answer, its unit, and how people tell it."""

    draw: Callable[[random.Random], Fields]
    expression: str
    answer: str
    unit: str
    wordings: Wordings
    givens: tuple[tuple[str, str], ...]


STORIES = {
    "groups": Story(
        groups,
        "{a}*{b}",
        "That makes {result} {things}.",
        "{things}",
        wordings("stories.groups"),
        (("a", "{things}"), ("b", "{one}")),
    ),
    "price": Story(
        prices,
        "{a}*{b}",
        "You pay ${result}.",
        "dollar",
        wordings("stories.price"),
        (("a", "{things}"), ("b", "dollar")),
    ),
    "change": Story(
        change,
        "{c}-{a}*{b}",
        "You have ${result} left.",
        "dollar",
        wordings("stories.change"),
        (("a", "{things}"), ("b", "dollar"), ("c", "dollar")),
    ),
    "share": Story(
        shares,
        "{a}/{b}",
        "Each gets {result} {things}.",
        "{things}",
        wordings("stories.share"),
        (("a", "{things}"), ("b", "")),
    ),
    "left": Story(
        leftovers,
        "{a}-{b}",
        "There are {result} {things} left.",
        "{things}",
        wordings("stories.left"),
        (("a", "{things}"), ("b", "{things}")),
    ),
    "total": Story(
        totals,
        "{a}+{b}",
        "That makes {result} {things}.",
        "{things}",
        wordings("stories.total"),
        (("a", "{things}"), ("b", "{things}")),
    ),
    "broken": Story(
        broken,
        "{a}*{b}-{c}",
        "That leaves {result} {things}.",
        "{things}",
        wordings("stories.broken"),
        (("a", "{things}"), ("b", "{one}"), ("c", "{things}")),
    ),
    "minutes": Story(
        batches,
        "{a}*{b}",
        "It takes {result} minutes.",
        "minute",
        wordings("stories.minutes"),
        (("a", "batch"), ("b", "minute")),
    ),
}


class Stories:
    """Word problems, solved by one call of the calculator."""

    name = "stories"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(sorted(STORIES))
        story = STORIES[kind]
        fields = story.draw(draw)
        expression = story.expression.format(**fields)
        # Nobody pays more than they have or eats more than there is.
        while not (on_side(split, expression) and Calculator().value(expression) > 0):
            fields = story.draw(draw)
            expression = story.expression.format(**fields)
        question = story.wordings.ask(split, draw, fields)
        result = Calculator()(expression)
        truth: dict[str, object] = {
            "kind": kind,
            "expression": expression,
            "unit": story.unit.format(**fields),
            "givens": [[fields[name], noun.format(**fields)] for name, noun in story.givens],
        }
        said = money(result) if story.unit == "dollar" else result
        answer = story.answer.format(result=said, **fields)
        return Example(dialogue(question.text, by_calculator(expression, answer)), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_calculation(example, reply)


def money(number: str) -> str:
    """A sum of money as prices are written: "7.5" is "7.50", "12" stays."""
    return f"{float(number):.2f}" if "." in number else number
