"""Recipes for more or fewer people: "2 cups of flour serve 4, how much for 10?"."""

import random
from collections.abc import Mapping

from nanochat import keyed
from nanochat.tasks.arithmetic import by_calculator, grade_calculation
from nanochat.tasks.measures import fraction
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import Wordings
from nanochat.tokenizer.chat import Message
from nanochat.tools import Calculator

SPOONS = ("1/4", "1/2", "3/4", "1", "1 1/2", "2", "2 1/2", "3", "4", "5", "6")
CUPS = ("1/4", "1/3", "1/2", "2/3", "3/4", "1", "1 1/4", "1 1/2", "1 3/4", "2", "2 1/4", "2 1/2", "3", "3 1/2", "4")
HUNDREDS = tuple(str(25 * number) for number in range(1, 41))
OUNCES = tuple(str(number) for number in range(1, 25))
LARGE = ("1/2", "0.5", "0.75", "1", "1 1/2", "1.5", "2", "2.5", "3")

DRY = ("flour", "sugar", "rice", "cheese", "cornmeal", "pasta", "butter", "chocolate", "brown sugar", "spinach", "corn")
WET = ("milk", "stock", "broth", "cream", "water", "oil", "vinegar", "olive oil", "coconut milk", "lemon juice", "wine")
ANY = ("honey", "yogurt", "cocoa", "syrup", "salt", "mustard", "peanut butter", "tomato sauce", "cinnamon", "jam")

# Singular and plural as people type them, the amounts that fit, and what is measured so.
MEASURED = (
    ("cup", "cups", CUPS, DRY + WET + ANY),
    ("cup", "cups", CUPS, DRY + WET),
    ("tablespoon", "tablespoons", SPOONS, DRY[:7] + WET + ANY),
    ("teaspoon", "teaspoons", SPOONS, WET + ANY),
    ("tbsp", "tbsp", SPOONS, DRY[:2] + WET + ANY),
    ("tsp", "tsp", SPOONS, WET + ANY),
    ("g", "g", HUNDREDS, DRY + ANY),
    ("gram", "grams", HUNDREDS, DRY),
    ("ml", "ml", HUNDREDS, WET),
    ("ounce", "ounces", OUNCES, DRY),
    ("pound", "pounds", LARGE, DRY),
    ("kg", "kg", LARGE, DRY),
    ("liter", "liters", LARGE, WET),
    ("litre", "litres", LARGE, WET),
)
YIELDS = ("cookies", "muffins", "pancakes", "rolls", "tarts", "waffles", "scones", "dumplings")
DISHES = ("soup", "stew", "curry", "salad", "sauce", "pie", "cake", "casserole", "pudding", "chili", "bread")

SERVINGS = Wordings(
    "scaling.servings",
    train=(
        "{amount} of {item} serve {a}. How much for {b}?",
        "{amount} of {item} are for {a} people. How much do I need for {b}?",
        "My recipe has {amount} of {item} for {a} people. How much for {b} people?",
        "A {dish} for {a} needs {amount} of {item}. How much {item} for {b}?",
        "For {a} people I use {amount} of {item}. How much for {b}?",
        "The {dish} serves {a} with {amount} of {item}. I cook for {b}. How much {item}?",
        "If {a} people need {amount} of {item}, how much do {b} people need?",
        "The recipe serves {a} and uses {amount} {item}. How much {item} for {b} people?",
        "I want to serve {b}, but the recipe with {amount} of {item} is for {a}. How much {item}?",
        "Scale {amount} of {item} from {a} to {b} people.",
    ),
    test=(
        "{amount} of {item} feed {a}. What do I need to feed {b}?",
        "We are {b} at the table, and the {dish} for {a} takes {amount} of {item}. How much {item}?",
        "The book says {amount} {item} for {a}. There are {b} of us. How much is it then?",
        "I have guests: {b} people. For {a} it would be {amount} of {item}. What do I take?",
        "{amount} {item} is enough for {a} servings. Tell me the amount for {b} servings.",
    ),
)
PIECES = Wordings(
    "scaling.pieces",
    train=(
        "{amount} of {item} make {a} {things}. How much for {b}?",
        "I need {amount} of {item} for {a} {things}. How much for {b} {things}?",
        "The recipe takes {amount} {item} for {a} {things}. I want {b}.",
        "{a} {things} need {amount} of {item}. How much do {b} {things} need?",
        "A recipe for {a} {things} has {amount} of {item}. I want to make {b} {things}. How much {item}?",
        "For {a} {things} I use {amount} of {item}. How much {item} for {b}?",
        "How much {item} for {b} {things}, if {a} {things} take {amount}?",
        "{amount} {item} is for {a} {things}. How much for {b} {things}?",
    ),
    test=(
        "With {amount} of {item} I get {a} {things}. What do I need to get {b}?",
        "My {things} recipe gives {a} pieces from {amount} of {item}. I want {b} pieces. How much {item}?",
        "To bake {a} {things} takes {amount} {item}. Tell me how much {b} take.",
        "I would like {b} {things}. For {a} you use {amount} of {item}. What do I take?",
    ),
)
TIMES = Wordings(
    "scaling.times",
    train=(
        "How much is {times} {amount} of {item}?",
        "My recipe has {amount} of {item}. I want to make it {times}. How much {item}?",
        "I make the recipe {times}. It needs {amount} {item}. How much is that?",
        "Give me {amount} of {item}, {times}.",
        "What is {amount} of {item} {times}?",
        "I cook a {dish} with {amount} of {item}, but {times}. How much {item} do I need?",
        "Take {amount} {item} {times}. How much?",
        "{amount} of {item}, {times}: how much is it?",
    ),
    test=(
        "The {dish} calls for {amount} of {item} and I make it {times}. What do I need?",
        "I want the {dish} {times}. It has {amount} {item}. How much {item} is it then?",
        "Tell me what {amount} of {item} is {times}.",
        "If I take {amount} of {item} {times}, how much do I have?",
    ),
)
FACTORS = {"doubled": "*2", "twice": "*2", "3 times": "*3", "4 times": "*4", "halved": "/2", "tripled": "*3"}
KINDS = {"servings": SERVINGS, "pieces": PIECES, "times": TIMES}


class Scaling:
    """An amount for more or fewer people, worked out by one call of the calculator."""

    name = "scaling"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(("servings", "servings", "servings", "pieces", "pieces", "times"))
        fields = drawn(kind, draw)
        while not on_side(split, scaled_expression(kind, fields)):
            fields = drawn(kind, draw)
        question = KINDS[kind].ask(split, draw, fields)
        expression = scaled_expression(kind, fields)
        result = Calculator()(expression)
        unit = fields["one"] if result == "1" else fields["many"]
        givens = [[fields["number"], fields["one"]]]
        if kind != "times":
            nouns = ("people", "servings", "pieces", fields["things"])
            givens += [[fields[name], noun] for name in "ab" for noun in nouns]
        if kind == "times" and "times" in fields["times"]:
            givens.append([fields["times"].split()[0], "times"])
        truth: dict[str, object] = {
            "kind": kind,
            "expression": expression,
            "unit": fields["one"],
            "givens": givens,
            "needs_unit": True,
        }
        answer = f"You need {result} {unit} of {fields['item']}."
        return Example(dialogue(question.text, by_calculator(expression, answer)), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_calculation(example, reply)


def drawn(kind: str, draw: random.Random) -> dict[str, str]:
    """What a question of this kind is about; no answer equals one of its numbers."""
    one, many, amounts, items = draw.choice(MEASURED)
    number = draw.choice(amounts)
    largest = 12 if kind == "servings" else 48
    a, b = draw.sample(range(2, largest + 1), 2)
    if kind == "pieces" and draw.random() < 0.85:  # people bake by the dozen
        a, b = draw.sample((6, 8, 10, 12, 15, 16, 18, 20, 24, 30, 36, 40, 48), 2)
    fields = {"number": number, "one": one, "many": many, "a": str(a), "b": str(b), "things": draw.choice(YIELDS)}
    fields |= {"item": draw.choice(items), "dish": draw.choice(DISHES), "times": draw.choice(sorted(FACTORS))}
    fields["amount"] = f"{number} {one if fraction(number) <= 1 else many}"
    value = Calculator().value(scaled_expression(kind, fields))
    return drawn(kind, draw) if value in (a, b, fraction(number)) else fields


def scaled_expression(kind: str, fields: Mapping[str, str]) -> str:
    """What the calculator is asked: amount * wanted / given, in the order in which the question has them."""
    if kind == "times":
        return fields["number"] + FACTORS[fields["times"]]
    return f"{fields['number']}*{fields['b']}/{fields['a']}"
