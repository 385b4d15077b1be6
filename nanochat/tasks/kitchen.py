"""The Cookbook as the tasks see it: recipes on both sides of the held-out split, what people call them, and `find`."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, cached_property

from nanochat.data.quantities import format_amount, in_grams, scaled
from nanochat.data.recipes import Recipe, duration_text, recipe_text
from nanochat.data.split import held_out
from nanochat.tasks.measures import convert
from nanochat.tasks.spelling import LETTERS
from nanochat.tasks.task import Split
from nanochat.tasks.wording import LEADS, TAILS, rows_of
from nanochat.tools import CUT, NO_RECIPE, Calculator, Find, Notes, Tool, Wish, title_names, words

# Of a recipe, `find` shows about so many characters: with the answer that repeats them, some 350 tokens of 512.
LIMIT = 600


def limit_for(context: int) -> int:
    """How many characters of a recipe a model with this context can take in and repeat."""
    return LIMIT * context // 512


SPOKEN_RATE = 0.85  # how often a dish is called by a short name where one is known, and not by its whole title


class Kitchen:
    """Recipes by title, and by how people ask for them."""

    def __init__(self, recipes: Sequence[Recipe], limit: int = LIMIT) -> None:
        self.recipes = {recipe.title: recipe for recipe in recipes}
        texts = {title: fitted_text(recipe, limit) for title, recipe in self.recipes.items()}
        self.find = Find(texts, limit, adapt=self.adapted, notes=shelves(), chatter=chatter())

    def adapted(self, title: str, wish: Wish) -> str:
        """What is wished of the recipe of this title."""
        return adapted(self.recipes[title], wish)

    @property
    def tools(self) -> dict[str, Tool]:
        """What the assistant may call. `find` knows every recipe, those of the held-out side too."""
        return {"calculator": Calculator(convert), "find": self.find}

    @cached_property
    def sides(self) -> dict[bool, list[Recipe]]:
        """held out? -> the recipes of that side."""
        sides: dict[bool, list[Recipe]] = {False: [], True: []}
        for recipe in self.recipes.values():
            sides[held_out(recipe.title)].append(recipe)
        for empty in (False, True):  # a handful of recipes may all be on one side
            if not sides[empty]:
                sides[empty].append(sides[not empty].pop())
        return sides

    def side(self, split: Split) -> list[Recipe]:
        """The recipes that questions of `split` are about."""
        return self.sides[split != "train"]

    def dish(self, split: Split, draw: random.Random, among: Sequence[Recipe] | None = None) -> tuple[Recipe, str]:
        """A recipe and a name for it, as somebody would ask for it, by which `find` finds this very recipe."""
        recipe = draw.choice(self.side(split) if among is None else among)
        names = [name for name in spoken_names(recipe.title) if self.find.match(name) == recipe.title]
        return recipe, draw.choice(names) if names and draw.random() < SPOKEN_RATE else recipe.title

    @cached_property
    def words(self) -> list[str]:
        """The words of training's ingredients and steps."""
        lines = (line for recipe in self.side("train") for line in (*recipe.ingredients, *recipe.steps))
        return sorted({word for line in lines for word in re.findall("[A-Za-z]{4,12}", line)}) or ["word"]

    def altered(self, text: str, draw: random.Random) -> str:
        """`text` with other words in its lines of ingredients and steps, here and there.

        A model knows the recipes that it learned from by heart, and would repeat them without looking.
        """

        def other(found: re.Match[str]) -> str:
            return draw.choice(self.words) if draw.random() < OTHER_WORDS else found[0]

        return "\n".join(
            re.sub("[A-Za-z]{4,}", other, line) if re.match(r"- |\d", line) else line for line in text.split("\n")
        )

    def shown(self, recipe: Recipe) -> str:
        """What `find` answers for this recipe."""
        return self.find(recipe.title)


# Shelves of notes, by the words that a query for them begins with.
WHAT, INSTEAD, TIP = "what is", "instead of", "tip"
OTHER_WORDS = 0.2  # share of the words that are others, where a text is altered
SUPPOSED = 4  # people that a recipe is taken to serve where it does not say


@cache
def shelves() -> dict[str, Callable[[str], str]]:
    """Our own notes: what things are, what replaces what, and small advice, named by the ways to ask for it."""
    return {
        WHAT: Notes([([row["item"]], row["reply"]) for row in rows_of("knowledge.jsonl")], 0.75, surplus=0.6),
        INSTEAD: Notes([([row["item"]], row["reply"]) for row in rows_of("substitutions.jsonl")], 0.6, surplus=0.6),
        TIP: Notes([(row["train"], row["replies"][0]) for row in rows_of("howto.jsonl")], 0.42, surplus=0.3, sure=0.75),
        **LETTERS,
    }


@cache
def chatter() -> frozenset[str]:
    """The words in which people wrap the name of a dish: a call that took some of them along still means the dish."""
    about = [row["train"] for row in rows_of("wordings.jsonl") if row["name"].startswith("recipes.")]
    said = [re.sub(r"{\w+}", " ", wording) for wordings in (*about, LEADS, TAILS) for wording in wordings]
    return frozenset(word for text in said for word in words(text))


DIFFICULTY = {1: "very easy", 2: "easy", 3: "medium", 4: "hard", 5: "very hard"}


def time_answer(recipe: Recipe) -> str:
    """How long it takes, or that the recipe does not say."""
    if recipe.minutes is None:
        return "The recipe does not say how long it takes."
    return f"It takes {duration_text(recipe.minutes)}."


def servings_answer(recipe: Recipe) -> str:
    """How many it serves, or that the recipe does not say."""
    return "The recipe does not say how many it serves." if recipe.servings is None else f"It serves {recipe.servings}."


def difficulty_answer(recipe: Recipe) -> str:
    """How hard it is, or that the recipe does not say."""
    if recipe.difficulty is None:
        return "The recipe does not say how hard it is."
    return f"Difficulty {recipe.difficulty} of 5: {DIFFICULTY[recipe.difficulty]}."


def step_answer(recipe: Recipe, number: int) -> str:
    """One step, or how many there are."""
    return recipe.steps[number - 1] if 1 <= number <= len(recipe.steps) else f"It has {len(recipe.steps)} steps."


def adapted(recipe: Recipe, wish: Wish) -> str:
    """What is wished of a recipe, as one would say it."""
    if wish.part.startswith("step"):
        return step_answer(recipe, int(wish.part.split()[1]))
    if wish.part in ("time", "servings", "difficulty"):
        return {"time": time_answer, "servings": servings_answer, "difficulty": difficulty_answer}[wish.part](recipe)
    if wish.people or wish.times or wish.grams:
        return amounts(recipe, wish)
    return "\n".join(f"- {line}" for line in recipe.ingredients)


def amounts(recipe: Recipe, wish: Wish) -> str:
    """The ingredients of a recipe for so many people, so many times over, or by weight.

    A line whose amounts nobody can scale for sure stays as it is, and says so.
    """
    factor, head = Fraction(1), recipe.title
    if wish.people:
        factor = Fraction(wish.people, recipe.servings or SUPPOSED)
        head += f" for {wish.people}" + ("" if recipe.servings else f", if the recipe serves {SUPPOSED}")
    elif wish.times:
        factor = wish.times
        head += f", {format_amount(factor)} times"
    lines = [scaled_or_marked(line, factor) for line in recipe.ingredients]
    if wish.grams:
        head, lines = f"{head}, by weight", [in_grams(line) for line in lines]
    return "\n".join([f"{head}:", *(f"- {line}" for line in lines)])


def scaled_or_marked(line: str, factor: Fraction) -> str:
    """`line` times `factor`, or with a mark where its amounts cannot be placed; one without amounts as it is."""
    if factor == 1 or not re.search(r"\d", line):
        return line
    return scaled(line, factor) or scaled(without_remarks(line), factor) or f"{line} (not scaled)"


def without_remarks(line: str) -> str:
    """An ingredient line without what stands in brackets."""
    return re.sub(r"\s*\([^()]*\)", "", line)


def fitted_text(recipe: Recipe, limit: int) -> str:
    """The recipe's text; where it is longer than `limit`, without remarks in brackets, to leave room for its steps."""
    text = recipe_text(recipe)
    if len(text) <= limit:
        return text
    lines = map(without_remarks, recipe.ingredients)
    return recipe_text(replace(recipe, ingredients=tuple(line for line in lines if line)))


def spoken_names(title: str) -> list[str]:
    """How people would name the dish: without brackets and numerals, in small letters.

    >>> spoken_names("Frikadeller II (Danish Meatballs)"), spoken_names("Garum (Boiled)")
    (['frikadeller', 'danish meatballs'], ['garum'])
    """
    whole, *parts = title_names(title)
    names = [parts[0], *(name for name in parts[1:] if " " in name)] if parts else [whole]
    plain = (re.sub(r"\b[IVX]+$", "", name.strip(" ,")).strip(" ,").lower() for name in names)
    return list(dict.fromkeys(name for name in plain if name))


def ingredient_lines(text: str) -> list[str]:
    """The ingredient lines of a recipe or an answer: those under "Ingredients:", else those with a dash, else all."""
    body = re.split(r"^Ingredients:\s*$", text, maxsplit=1, flags=re.MULTILINE)[-1]
    body = re.split(r"^Steps:\s*$", body, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.strip() for line in body.split("\n") if line.strip() and line.strip() not in (CUT, NO_RECIPE)]
    dashed = [line[1:].strip() for line in lines if line[0] in "-*•"]
    return dashed or lines
