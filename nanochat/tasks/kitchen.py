"""The Cookbook as the tasks see it: recipes on both sides of the held-out split, what people call them, and `find`."""

import random
import re
from collections.abc import Sequence
from functools import cached_property

from nanochat.data.recipes import Recipe, recipe_text
from nanochat.data.split import held_out
from nanochat.tasks.task import Split
from nanochat.tools import CUT, NO_RECIPE, Calculator, Find, Tool, title_names

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
        self.find = Find({title: recipe_text(recipe) for title, recipe in self.recipes.items()}, limit)

    @property
    def tools(self) -> dict[str, Tool]:
        """What the assistant may call. `find` knows every recipe, those of the held-out side too."""
        return {"calculator": Calculator(), "find": self.find}

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

    def shown(self, recipe: Recipe) -> str:
        """What `find` answers for this recipe."""
        return self.find(recipe.title)


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
