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
from nanochat.tasks.wording import Wordings
from nanochat.tokenizer.chat import Message

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
LETTERS = "bcdfghjklmnpqrstvwxzaeiou0123456789"

REPEAT = Wordings(
    "copy_strings.repeat",
    train=(
        "Repeat: {text}",
        "Say this again: {text}",
        "Copy this: {text}",
        "Write exactly this: {text}",
        "Please repeat after me: {text}",
        "Copy the next line.\n{text}",
        "What did I say? I said: {text}",
        "{text}\nSay that again.",
        "{text}\nCopy the line above.",
        "Echo: {text}",
    ),
    test=(
        "Give me this back word for word: {text}",
        "Type what follows: {text}",
        "{text}\nNow write the same.",
        "I say it and you say it too: {text}",
    ),
)
ITEM = Wordings(
    "copy_strings.item",
    train=(
        "{text}\nWhat is item {k}?",
        "{text}\nSay item {k}.",
        "Here is a list.\n{text}\nWhat stands at {k}?",
        "List:\n{text}\nCopy line {k}.",
        "{text}\nWhich one is number {k}?",
        "{text}\nGive me number {k}.",
        "Read item {k} of this list.\n{text}",
        "{text}\nTell me item {k}.",
    ),
    test=(
        "Look at this.\n{text}\nWhat does number {k} say?",
        "{text}\nI need only item {k}.",
        "From these, write number {k}.\n{text}",
        "{text}\nWhat comes at place {k}?",
    ),
)
ABOUT = {
    "ingredients": Wordings(
        "copy_recipes.ingredients",
        train=(
            "{text}\n\nWhat are the ingredients?",
            "{text}\n\nList the ingredients.",
            "{text}\n\nWhat do I need?",
            "{text}\n\nWhat goes into it?",
            "What are the ingredients of this?\n\n{text}",
            "{text}\n\nGive me the ingredients.",
            "{text}\n\nWhich ingredients are in it?",
            "List what I need for this recipe.\n\n{text}",
        ),
        test=(
            "{text}\n\nWrite my shopping list.",
            "{text}\n\nWhat do I have to buy?",
            "What must I have at home for this?\n\n{text}",
            "{text}\n\nCopy only the ingredients.",
        ),
    ),
    "step": Wordings(
        "copy_recipes.step",
        train=(
            "{text}\n\nWhat is step {k}?",
            "{text}\n\nRead step {k}.",
            "{text}\n\nSay step {k}.",
            "{text}\n\nWhat do I do in step {k}?",
            "{text}\n\nTell me step {k}.",
            "What is step {k} of this?\n\n{text}",
            "{text}\n\nStep {k}?",
            "{text}\n\nGive me step {k}.",
        ),
        test=(
            "{text}\n\nI am at step {k}. What now?",
            "{text}\n\nWhat does step {k} say?",
            "Read step {k} of the recipe to me.\n\n{text}",
            "{text}\n\nCopy only step {k}.",
        ),
    ),
    "how many": Wordings(
        "copy_recipes.how_many",
        train=(
            "{text}\n\nHow many steps are there?",
            "{text}\n\nHow many steps does it have?",
            "{text}\n\nCount the steps.",
            "{text}\n\nHow many steps is this recipe?",
            "How many steps are in this?\n\n{text}",
            "{text}\n\nThe number of steps?",
            "{text}\n\nIn how many steps is it done?",
            "{text}\n\nTell me how many steps it has.",
        ),
        test=(
            "{text}\n\nWhat is the number of the last step?",
            "{text}\n\nHow many steps must I do?",
            "I want to know how many steps this has.\n\n{text}",
            "{text}\n\nSteps in all?",
        ),
    ),
    "title": Wordings(
        "copy_recipes.title",
        train=(
            "{text}\n\nWhat is this dish called?",
            "{text}\n\nWhat is the name of the dish?",
            "{text}\n\nWhat do I cook here?",
            "{text}\n\nWhich recipe is this?",
            "What is this recipe?\n\n{text}",
            "{text}\n\nName the dish.",
            "{text}\n\nWhat is the title?",
            "{text}\n\nTell me the name of this recipe.",
        ),
        test=(
            "{text}\n\nWhat is being made?",
            "Which dish do you see here?\n\n{text}",
            "{text}\n\nRead me the title.",
            "{text}\n\nWhat would you call this dish?",
        ),
    ),
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
