"""Recipes out of the Wikibooks Cookbook, and the one text layout that they have everywhere.

`parse_recipes` reads the JSON that the wheel carries. What a field says is normalised here and in `quantities`; what
cannot be understood becomes None, never a guess. Decisions, so that they are made once:

- serves "6-8" or "6 or more": the lower number, since that many are surely served; a yield in cups or cookies is no
  number of servings; "Varies" is None;
- time "15-20 minutes": the upper one, since a cook who plans wants to be done by then; "overnight" is 8 hours; parts
  such as "Prep: 10 minutes" and "Cooking: 20 minutes" add up; a total, where one is given, wins if it is longer.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanochat.data.cleaning import plain, unwiki
from nanochat.data.quantities import NUMBER, fraction, normal_amounts, quantity
from nanochat.errors import DataError

MINUTES = {"minute": 1, "hour": 60, "day": 1440, "week": 10080, "month": 43200}
UNIT = r"(?P<unit>min(?:ute)?s?|h(?:ou)?rs?|h|days?|weeks?|months?)\b"
DURATION = re.compile(rf"(?:(?P<first>{NUMBER})(?P<plus> ?\+ ?| ?- ?| to | or ))?(?P<last>{NUMBER})\+? ?{UNIT}", re.I)
NIGHT = 8 * 60
ALTERNATIVE = re.compile(r"^[\s,.]*(?:or|to|up to|-)\s")


@dataclass(frozen=True)
class Recipe:
    """One dish. `minutes` and `servings` as the module's docstring says; `difficulty` is 1 (easy) to 5."""

    title: str
    category: str | None
    servings: int | None
    minutes: int | None
    difficulty: int | None
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]


def recipe_text(recipe: Recipe) -> str:
    """The layout that the model learns, that `find` returns and that answers use.

    Title; what is known of servings, time and difficulty; ingredients as "- " lines; steps as "1. " lines.
    """
    facts = [
        f"Serves {recipe.servings}." if recipe.servings else "",
        f"Takes {duration_text(recipe.minutes)}." if recipe.minutes else "",
        f"Difficulty {recipe.difficulty} of 5." if recipe.difficulty else "",
    ]
    known = " ".join(fact for fact in facts if fact)
    ingredients = "\n".join(f"- {line}" for line in recipe.ingredients)
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(recipe.steps, 1))
    parts = [recipe.title, known, f"Ingredients:\n{ingredients}", f"Steps:\n{steps}"]
    return "\n\n".join(part for part in parts if part)


def parse_recipes(data: bytes) -> tuple[list[Recipe], dict[str, int]]:
    """Every usable recipe of the Cookbook's JSON, in its order, and how many were dropped for which reason."""
    recipes, dropped = parse_once(data)
    return list(recipes), dict(dropped)


@functools.lru_cache(maxsize=1)
def parse_once(data: bytes) -> tuple[tuple[Recipe, ...], tuple[tuple[str, int], ...]]:
    """`parse_recipes`, done once a process: it takes seconds, and every stage asks."""
    try:
        entries = list(json.loads(data).values())
        drafts = [parse_recipe(entry) for entry in entries]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError("recipes as JSON objects with title, ingredients and steps", repr(error)) from error
    recipes: list[Recipe] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for recipe in drafts:
        reason = unusable(recipe) or ("title seen before" if recipe.title.casefold() in seen else "")
        if reason:
            dropped[reason] += 1
            continue
        seen.add(recipe.title.casefold())
        recipes.append(recipe)
    return tuple(recipes), tuple(dropped.items())


def unusable(recipe: Recipe) -> str:
    """Why `recipe` is dropped; "" where it is kept."""
    if recipe.title.startswith("Policy/") or not recipe.title:
        return "not a recipe"
    return "no ingredients" if not recipe.ingredients else "no steps" if not recipe.steps else ""


def parse_recipe(entry: Mapping[str, Any]) -> Recipe:
    """One entry of the JSON, normalised. It may lack ingredients or steps."""
    difficulty = re.search(r"[1-5]", entry.get("difficulty") or "")
    return Recipe(
        title=clean_title(entry["title"]),
        category=clean_category(entry.get("category") or ""),
        servings=parse_servings(entry.get("servings") or ""),
        minutes=parse_minutes(entry.get("time") or ""),
        difficulty=int(difficulty[0]) if difficulty else None,
        ingredients=tuple(line for raw in entry["ingredients"] if (line := clean_ingredient(raw))),
        steps=tuple(line for raw in entry["steps"] if (line := clean_step(raw))),
    )


def clean_title(raw: str) -> str:
    """The dish's name: "Cookbook:Appam (Fermented Rice Pancake)" without its name space."""
    return plain(unwiki(raw.removeprefix("Cookbook:")))


def clean_category(raw: str) -> str | None:
    """ "Recipes for dessert" and "Dessert recipes" are both "Dessert"."""
    name = re.sub(r"^Recipes (?:for|using|with) |(?: recipes)$", "", plain(raw), flags=re.IGNORECASE)
    return name[:1].upper() + name[1:] or None


def clean_ingredient(raw: str) -> str:
    """An ingredient line as `quantity` reads it; "" where markup was all there was."""
    line = normal_amounts(plain(unwiki(raw)))
    # "1/2 lb (225 ) cumin": the template that would have named the unit is gone, and a number alone misleads.
    line = re.sub(r" ?\((?:about )?[\d.]+\)(?=(?: [a-z]|$))", "", line)
    line = re.sub(r"(?<=[a-z])\((e?s)\)", r"\1", line)  # "1-2 pinch(es)"
    return str(quantity(line) or line) if re.search(r"\w", line) else ""


def clean_step(raw: str) -> str:
    """A step that ends in a full stop (or a sign of its own); "" where markup was all there was."""
    line = normal_amounts(plain(mend(unwiki(raw))))
    if not re.search(r"\w", line):
        return ""
    return line if line[-1] in '.:;!?"' else f"{line.rstrip(',-')}."


def mend(text: str) -> str:
    """`text` without the preposition in front of a temperature or a size that a lost template has left blank."""
    text = re.sub(r",? (?:to|at|about|of) (?=[.;,])", "", text)
    return re.sub(r"\b([Aa]n?|the) , ?", r"\1 ", text)


def parse_servings(raw: str) -> int | None:
    """How many are served, as the module's docstring decides; None where the field does not say.

    >>> parse_servings("6–8 servings"), parse_servings("Varies"), parse_servings("16 (or 8, twice!)")
    (6, None, 16)
    """
    text = normal_amounts(plain(re.sub(r"\(.*?\)", "", raw)))
    number = re.match(r"(?:about |approximately |serves |>|~)*(\d+)\b(?P<rest>.*)$", text, re.IGNORECASE)
    # "4 persons" serves four; "25 fritters" and "2 cups" are yields.
    if number is None or not re.fullmatch(
        r"(?:-\d+)?(?: or (?:\d+|more))?\s*(?:servings?|persons?|people)?(?: as .*)?", number["rest"], re.IGNORECASE
    ):
        return None
    return int(number[1]) or None


def parse_minutes(raw: str) -> int | None:
    """How long the dish takes, as the module's docstring decides; None where the field does not say.

    >>> parse_minutes("Prep: 10 minutes<br/>Cooking: 15–20 minutes"), parse_minutes("1½ hours")
    (30, 90)
    """
    added, longest = 0.0, 0.0
    for part in re.split(r"<\s*/?\s*br\s*/?\s*>", raw):
        text = normal_amounts(plain(unwiki(part)))
        minutes = line_minutes(re.sub(r"\(.*?\)", "", text))
        if re.match(r"(?!total)[a-z ]+:", text, re.IGNORECASE):
            added += minutes
        else:  # a line without a label, or a total, speaks for the whole
            longest = max(longest, minutes)
    return round(max(added, longest)) or None


def line_minutes(text: str) -> float:
    """The minutes that one line adds up to: 80 for "1 hour 20 minutes" and for "20 minutes plus 1 hour baking"."""
    text = re.sub(r"\b[Aa]n? (?=hour)", "1 ", text)
    text = re.sub(r"\b(?:[Oo]vernight|all night)\b", f"{NIGHT} minutes", text)
    total, end = 0.0, 0
    for match in DURATION.finditer(text):
        unit = next(name for name in MINUTES if name.startswith(match["unit"].lower()[0:2].rstrip("r")))
        first, last = float(fraction(match["first"] or "0")), float(fraction(match["last"]))
        amount = MINUTES[unit] * (first + last if "+" in (match["plus"] or "") else max(first, last))
        total = max(total, amount) if ALTERNATIVE.match(text[end : match.start()]) and end else total + amount
        end = match.end()
    return total


def duration_text(minutes: int) -> str:
    """Minutes as people say them: 90 is "1 hour 30 minutes"."""
    days, rest = divmod(minutes, 1440)
    hours, rest = divmod(rest, 60)
    amounts = {"day": days, "hour": hours, "minute": rest}
    return " ".join(f"{number} {unit}{'s' * (number > 1)}" for unit, number in amounts.items() if number)
