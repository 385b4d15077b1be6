"""Dishes that no cookbook has. The model looks, finds nothing, and says so instead of making something up."""

import random
import re

from nanochat import keyed
from nanochat.tasks.grading import grade_mentions, plain
from nanochat.tasks.kitchen import Kitchen
from nanochat.tasks.recipes import FACTS, not_found, query_for, question_of
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tokenizer.chat import Call, Message

STARTS = re.findall(
    "[a-z]+", "b bl br c cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr r s sk sl sn sp st t tr v w z"
)
VOWELS = ("a", "e", "i", "o", "u", "oo", "ee", "ai")
ENDS = re.findall("[a-z]+", "b bble d f g k l lk m mp n nk nip p rb rg rp ss t v x zz")
DISHES = (
    "stew",
    "soup",
    "pie",
    "cake",
    "salad",
    "curry",
    "bread",
    "tart",
    "pudding",
    "sauce",
    "pasta",
    "casserole",
    "",
)
WHOSE = ("moon", "unicorn", "dragon", "robot", "cloud", "paper", "mermaid", "thunder", "martian", "goblin")

ADMITS = (
    "no recipe",
    "not find",
    "couldn't find",
    "don't have",
    "do not have",
    "found nothing",
    "don't know",
    "do not know",
    "not know",
)


class UnknownDish:
    """A made-up dish: the right answer is to look for it and to admit that it is not there."""

    name = "unknown_dish"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(("make", "make", "make", "ingredients", *FACTS))
        dish = made_up(draw)
        while not on_side(split, dish) or self.kitchen.find.match(dish) is not None:
            dish = made_up(draw)
        question = question_of(kind).ask(split, draw, {"dish": dish})
        query = query_for(kind, question.fields["dish"])
        return Example(dialogue(question.text, not_found(query)), {"query": query}, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        calls = [part for part in reply.parts if isinstance(part, Call)]
        if "\n" in reply.text.strip() or len(reply.text) > 200:
            return Grade(0.0, "makes something up")
        grade = grade_mentions(reply, [ADMITS], (), len(example.reference.text))
        if not calls or calls[0].tool != "find" or plain(calls[0].argument) != plain(str(example.truth["query"])):
            return Grade(min(grade.reward, 0.5), f"{grade.reason}, but did not look for it")
        return grade


def made_up(draw: random.Random) -> str:
    """The name of a dish that does not exist, like "flurbnip stew"."""
    if draw.random() < 0.15:
        return f"{draw.choice(WHOSE)} {draw.choice(DISHES[:-1])}"
    syllables = (draw.choice(STARTS) + draw.choice(VOWELS) + draw.choice(ENDS) for _ in range(draw.randint(1, 2)))
    return f"{''.join(syllables)} {draw.choice(DISHES)}".strip()
