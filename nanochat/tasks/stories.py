"""Word problems from the kitchen and the shop: which numbers to put together, and how, is told by a story."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from nanochat import keyed
from nanochat.tasks.arithmetic import by_calculator, grade_calculation
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import Wordings
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
        Wordings(
            "stories.groups",
            train=(
                "A {one} holds {a} {things}. How many {things} are in {b} {many}?",
                "I have {b} {many} with {a} {things} each. How many {things} is that?",
                "There are {a} {things} on each {one}. I fill {b} {many}. How many {things}?",
                "{b} {many}, {a} {things} in each. How many in all?",
                "I bake {b} {many} of {things}, {a} on each {one}. How many do I get?",
                "How many {things} are {b} {many} with {a} in each {one}?",
                "Every {one} has {a} {things}. How many {things} have {b} {many}?",
                "We need {b} {many} of {a} {things}. How many {things} do we need?",
                "If one {one} takes {a} {things}, how many go into {b} {many}?",
            ),
            test=(
                "I can put {a} {things} in a {one}, and I own {b} {many}. How many {things} fit?",
                "My {b} {many} are full, and {a} {things} are in each. Count my {things}.",
                "{a} {things} to a {one} and {b} {many} in the oven: how many {things} is that?",
                "For the party I filled {b} {many} with {a} {things} each. How many {things} did I make?",
            ),
        ),
        (("a", "{things}"), ("b", "{one}")),
    ),
    "price": Story(
        prices,
        "{a}*{b}",
        "You pay ${result}.",
        "dollar",
        Wordings(
            "stories.price",
            train=(
                "One {one} costs ${b}. What do {a} {things} cost?",
                "I buy {a} {things} for ${b} each. How much do I pay?",
                "How much are {a} {things} at ${b} each?",
                "What is the price of {a} {things} if one is ${b}?",
                "A {one} is ${b}. I take {a}. How much is that?",
                "{a} {things}, ${b} each. How much in all?",
                "The shop sells a {one} for ${b}. How much for {a}?",
                "I need {a} {things} and each costs ${b}. How much money do I need?",
            ),
            test=(
                "I put {a} {things} in my basket, ${b} apiece. What is my bill?",
                "Each {one} is ${b} at the market. What will {a} of them cost me?",
                "What must I pay for {a} {things} if each is ${b}?",
                "At ${b} for one {one}, how much money is {a}?",
            ),
        ),
        (("a", "{things}"), ("b", "dollar")),
    ),
    "change": Story(
        change,
        "{c}-{a}*{b}",
        "You have ${result} left.",
        "dollar",
        Wordings(
            "stories.change",
            train=(
                "I have ${c} and buy {a} {things} at ${b} each. How much money is left?",
                "I buy {a} {things} for ${b} each and pay with ${c}. How much do I get back?",
                "With ${c} I buy {a} {things}, ${b} each. What is left?",
                "A {one} costs ${b}. I buy {a} and had ${c}. How much do I have now?",
                "I pay {a} {things} at ${b} with a ${c} note. What is my change?",
                "What is left of ${c} after {a} {things} for ${b} each?",
                "I had ${c}. Then I bought {a} {things} at ${b} each. How much is left?",
                "How much change from ${c} for {a} {things} at ${b} each?",
            ),
            test=(
                "My purse held ${c} before I bought {a} {things} for ${b} each. What remains?",
                "I hand over ${c} for {a} {things} at ${b} apiece. What comes back?",
                "{a} {things} at ${b} each, paid from ${c}: how much do I keep?",
                "If I start with ${c} and take {a} {things} at ${b} each, what do I have left?",
            ),
        ),
        (("a", "{things}"), ("b", "dollar"), ("c", "dollar")),
    ),
    "share": Story(
        shares,
        "{a}/{b}",
        "Each gets {result} {things}.",
        "{things}",
        Wordings(
            "stories.share",
            train=(
                "I have {a} {things} for {b} people. How many does each get?",
                "{b} friends share {a} {things}. How many does each one get?",
                "Share {a} {things} among {b} people.",
                "How many {things} does each of {b} guests get if there are {a}?",
                "We are {b} and have {a} {things}. How many each?",
                "I baked {a} {things} for {b} children. How many for each child?",
                "{a} {things} are split evenly between {b} people. How many each?",
                "If {b} people share {a} {things}, how many does one person get?",
            ),
            test=(
                "There are {a} {things} on the table and {b} of us. How many may I take if we share evenly?",
                "I want to give {b} guests the same number of {things} and have {a}. How many for each?",
                "{a} {things}, {b} hungry people, equal shares. How many apiece?",
                "Divide my {a} {things} fairly among {b} friends.",
            ),
        ),
        (("a", "{things}"), ("b", "")),
    ),
    "left": Story(
        leftovers,
        "{a}-{b}",
        "There are {result} {things} left.",
        "{things}",
        Wordings(
            "stories.left",
            train=(
                "I have {a} {things} and use {b}. How many are left?",
                "There were {a} {things}. We ate {b}. How many are left?",
                "From {a} {things} I take {b}. How many {things} are left?",
                "I had {a} {things} and gave {b} away. How many do I have now?",
                "{b} of my {a} {things} are gone. How many are left?",
                "How many of {a} {things} are left when {b} are eaten?",
                "I bought {a} {things} and used {b} of them. How many {things} do I have?",
                "We made {a} {things} and sold {b}. How many are left?",
            ),
            test=(
                "My bowl held {a} {things} until I took out {b}. How many {things} remain?",
                "After using {b} of {a} {things}, how many do I still have?",
                "{a} {things} this morning, {b} eaten by noon. What is left?",
                "The guests ate {b} {things} out of {a}. Count what remains.",
            ),
        ),
        (("a", "{things}"), ("b", "{things}")),
    ),
    "total": Story(
        totals,
        "{a}+{b}",
        "That makes {result} {things}.",
        "{things}",
        Wordings(
            "stories.total",
            train=(
                "I have {a} {things} and buy {b} more. How many do I have?",
                "There are {a} {things} in one bowl and {b} in the other. How many {things}?",
                "I bought {a} {things} and my friend bought {b}. How many together?",
                "{a} {things} and {b} more. How many {things} is that?",
                "Yesterday I made {a} {things} and today {b}. How many in all?",
                "How many {things} are {a} {things} and {b} {things}?",
                "We had {a} {things} and got {b} more. How many {things} do we have now?",
                "I use {a} {things} for lunch and {b} for dinner. How many {things} do I use?",
            ),
            test=(
                "One recipe takes {a} {things} and another {b}. How many {things} do I need for both?",
                "My mother gave me {a} {things} and I found {b} at home. How many {things} now?",
                "Put {a} {things} with {b} others. How many {things} are there?",
                "{a} {things} on Monday and {b} on Tuesday: how many {things} did I eat?",
            ),
        ),
        (("a", "{things}"), ("b", "{things}")),
    ),
    "broken": Story(
        broken,
        "{a}*{b}-{c}",
        "That leaves {result} {things}.",
        "{things}",
        Wordings(
            "stories.broken",
            train=(
                "I bake {b} {many} with {a} {things} each and eat {c}. How many {things} are left?",
                "A {one} holds {a} {things}. I have {b} {many} and give {c} {things} away. How many are left?",
                "There are {b} {many} of {a} {things}, but {c} are burnt. How many {things} are good?",
                "{b} {many} with {a} {things} each, minus {c}. How many {things}?",
                "I fill {b} {many} with {a} {things} each. {c} fall down. How many are left?",
                "I made {b} {many} of {a} {things} and sold {c} {things}. How many are left?",
                "Each of {b} {many} has {a} {things}. We eat {c}. How many {things} are left?",
                "How many {things} are left of {b} {many} with {a} each when {c} are gone?",
            ),
            test=(
                "My {b} {many} hold {a} {things} each, and the dog stole {c}. How many {things} remain?",
                "I had {b} {many} of {a} {things} until the children took {c}. What is left?",
                "{b} {many}, {a} {things} in each, and {c} went bad. How many {things} can I serve?",
                "Of {b} {many} with {a} {things} each I keep {c} back. How many {things} go to the guests?",
            ),
        ),
        (("a", "{things}"), ("b", "{one}"), ("c", "{things}")),
    ),
    "minutes": Story(
        batches,
        "{a}*{b}",
        "It takes {result} minutes.",
        "minute",
        Wordings(
            "stories.minutes",
            train=(
                "One batch takes {b} minutes. How long do {a} batches take?",
                "I bake {a} batches, {b} minutes each. How many minutes is that?",
                "Each batch is {b} minutes in the oven and I have {a} batches. How long?",
                "{a} batches of {b} minutes. How long in all?",
                "How many minutes do {a} batches take at {b} minutes each?",
                "A batch needs {b} minutes. How many minutes for {a} batches?",
                "I have {a} batches and one takes {b} minutes. How many minutes do I need?",
                "If a batch bakes {b} minutes, how long for {a} batches?",
            ),
            test=(
                "My oven does a batch in {b} minutes. When are {a} batches done, one after the other?",
                "I must bake {a} times for {b} minutes. How long am I busy?",
                "With {b} minutes to a batch, how many minutes do I bake for {a} batches?",
                "{a} batches one after the other, {b} minutes each: how many minutes?",
            ),
        ),
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
