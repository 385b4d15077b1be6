"""What can be cooked with what is there: `find with eggs, flour` names recipes, and the answer passes them on."""

import re

from nanochat import keyed
from nanochat.tasks.grading import PARTIAL, plain, tidy
from nanochat.tasks.kitchen import Kitchen
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import wordings
from nanochat.tokenizer.chat import Call, Message, Output, Text
from nanochat.tools import NO_RECIPE

STAPLES = re.findall(
    "[a-z]+",
    """
    eggs flour milk butter sugar rice pasta potatoes onions garlic carrots tomatoes cheese chicken beef pork fish
    shrimp beans lentils spinach mushrooms cabbage corn peas cream yogurt apples bananas lemons oranges honey oats
    bread bacon ham tofu ginger coconut peanuts almonds chocolate pumpkin zucchini eggplant peppers celery
    broccoli salmon tuna turkey
    """,
)

WITH = wordings("pantry.with")


class Pantry:
    """Recipes from ingredients at hand: one call of `find with ...`, then its titles."""

    name = "pantry"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        while True:
            items = draw.sample(STAPLES, draw.choice((1, 2, 2, 3, 3, 4)))
            found = self.kitchen.find(f"with {listed(items)}")
            if on_side(split, *sorted(items)) and found != NO_RECIPE:
                break
        question = WITH.ask(split, draw, {"list": listed(items)})
        argument = f"with {question.fields['list']}"
        found = self.kitchen.find(argument)
        parts = (Call("find", argument), Output(found), Text(found))
        truth: dict[str, object] = {"items": items, "titles": self.kitchen.find.holding(argument)}
        return Example(dialogue(question.text, parts), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        titles, items = example.truth["titles"], example.truth["items"]
        assert isinstance(titles, list) and isinstance(items, list)
        calls = [part for part in reply.parts if isinstance(part, Call)]
        if not calls or calls[0].tool != "find" or not calls[0].argument.lower().startswith("with "):
            return Grade(0.0, "did not look for the ingredients")
        if self.kitchen.find.holding(calls[0].argument) != titles:
            return Grade(0.1, "looked for other ingredients")
        named = sum(f" {plain(title)} " in f" {plain(reply.text)} " for title in titles)
        if named < len(titles):
            return Grade(PARTIAL * named / len(titles), f"names {named} of {len(titles)}")
        return tidy(reply.text, len(example.reference.text))


def listed(items: list[str]) -> str:
    """ "eggs, flour and milk"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
