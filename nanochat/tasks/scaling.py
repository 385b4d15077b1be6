"""Recipes for more or fewer people: "2 cups of flour serve 4, how much for 10?"."""

import random
from collections.abc import Mapping

from nanochat import keyed
from nanochat.tasks.arithmetic import by_calculator, grade_calculation
from nanochat.tasks.measures import fraction
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import wordings
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

SERVINGS = wordings("scaling.servings")
PIECES = wordings("scaling.pieces")
TIMES = wordings("scaling.times")
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
