"""Copying out of the context: the skill that makes `find` useful. Nothing here can be answered from memory.

A transformer learns to copy by a sudden turn, when its induction heads form (Olsson et al., 2022, arXiv:2209.11895);
random strings bring the turn about soonest, since nothing but copying helps there.
"""

import dataclasses
import random
import re
from collections.abc import Sequence

from nanochat import keyed
from nanochat.data.recipes import Recipe, recipe_text
from nanochat.tasks.grading import grade_copy, grade_number, line_f1, lines_of
from nanochat.tasks.kitchen import Kitchen, ingredient_lines
from nanochat.tasks.measures import fraction
from nanochat.tasks.task import Example, Grade, Split, dialogue
from nanochat.tasks.wording import wordings
from nanochat.tokenizer.chat import Message

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
LETTERS = "bcdfghjklmnpqrstvwxzaeiou0123456789"

REPEAT = wordings("copy_strings.repeat")
ITEM = wordings("copy_strings.item")
ABOUT = {
    "ingredients": wordings("copy_recipes.ingredients"),
    "step": wordings("copy_recipes.step"),
    "how many": wordings("copy_recipes.how_many"),
    "title": wordings("copy_recipes.title"),
}


class CopyStrings:
    """Random words and letters, said again: whole lines, or one item of a list."""

    name = "copy_strings"

    def __init__(self, kitchen: Kitchen) -> None:
        found = {word for recipe in kitchen.side("train") for line in recipe.ingredients for word in line.split()}
        self.words = sorted(word for word in found if re.fullmatch("[A-Za-z]{2,12}", word)) or list(ALPHABET)

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        if draw.random() < 0.7:
            text = self.line(draw, draw.randint(3, 16))
            question = REPEAT.ask(split, draw, {"text": text}, keep=("text",))
            return Example(dialogue(question.text, text), {"expected": text}, question.wording)
        items = [self.line(draw, draw.randint(1, 4)) for _ in range(draw.randint(2, 6))]
        k = draw.randint(1, len(items))
        text = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
        question = ITEM.ask(split, draw, {"text": text, "k": k}, keep=("text",))
        return Example(dialogue(question.text, items[k - 1]), {"expected": items[k - 1]}, question.wording)

    def line(self, draw: random.Random, length: int) -> str:
        """So many words in a row: real ones, or strings of letters and digits, or both."""
        share = draw.choice((0.0, 0.3, 1.0))
        made = ("".join(draw.choices(LETTERS, k=draw.randint(1, 6))) for _ in range(length))
        return " ".join(draw.choice(self.words) if draw.random() < share else word for word in made)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_copy(reply, str(example.truth["expected"]))


class CopyRecipes:
    """A recipe stands in the question: its ingredients, one step, how many steps, its name."""

    name = "copy_recipes"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(("ingredients", "ingredients", "ingredients", "step", "step", "how many", "title"))
        recipe = shortened(draw.choice(self.kitchen.side(split)), draw, self.kitchen.find.limit)
        k = draw.randint(1, len(recipe.steps))
        question = ABOUT[kind].ask(split, draw, {"text": recipe_text(recipe), "k": k}, keep=("text",))
        answer = {
            "ingredients": "\n".join(f"- {line}" for line in recipe.ingredients),
            "step": recipe.steps[k - 1],
            "how many": f"{len(recipe.steps)} steps.",
            "title": recipe.title,
        }[kind]
        return Example(dialogue(question.text, answer), {"kind": kind, "expected": answer}, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        expected = str(example.truth["expected"])
        if example.truth["kind"] == "ingredients":
            share = line_f1(lines_of(expected), ingredient_lines(reply.text))
            return Grade(1.0, "right") if share == 1 else Grade(0.6 * share, f"{share:.0%} of the ingredients")
        if example.truth["kind"] == "how many":
            return grade_number(reply, fraction(expected.split()[0]), unit="step", expected_length=len(expected))
        return grade_copy(reply, expected)


def shortened(recipe: Recipe, draw: random.Random, limit: int) -> Recipe:
    """`recipe` with fewer ingredients and steps, so that its text has at most about `limit` characters."""
    ingredients = fitting(recipe.ingredients, limit * draw.uniform(0.2, 0.5))
    steps = fitting(recipe.steps, limit * draw.uniform(0.2, 0.4))
    longest = limit // 2
    cut = (line if len(line) <= longest else f"{line[:longest].rpartition(' ')[0]}." for line in steps)
    return dataclasses.replace(recipe, ingredients=tuple(ingredients), steps=tuple(cut))


def fitting(lines: Sequence[str], room: float) -> list[str]:
    """As many of the first lines as have room together; at least one."""
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 3
        if kept and room < 0:
            break
        kept.append(line)
    return kept
