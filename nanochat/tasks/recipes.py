"""Questions about a dish: the model asks `find` for what is wanted of it, then repeats what comes back.

What is wanted stands in the call. A model this small forgets it while it reads a whole recipe, and answers a question
for the ingredients with the number of servings (LOG.md, 2026-11-22).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nanochat import keyed
from nanochat.data.recipes import Recipe
from nanochat.tasks.grading import SMALL, grade_mentions, grade_number, line_f1, stated_numbers
from nanochat.tasks.kitchen import Kitchen, difficulty_answer, ingredient_lines, servings_answer, time_answer
from nanochat.tasks.task import Example, Grade, Split, dialogue
from nanochat.tasks.wording import Question, Wordings, templates, wordings
from nanochat.tokenizer.chat import Call, Message, Output, Part, Text
from nanochat.tools import NO_RECIPE, cut

FOUND = 0.2  # for calling `find` with the right dish, whatever is said then
NOT_SAID = (
    "does not say",
    "doesn't say",
    "not say",
    "not given",
    "not stated",
    "not known",
    "don't know",
    "do not know",
)
MINUTES = {"minute": 1, "hour": 60, "day": 1440}

MAKE = wordings("recipes.make")
INGREDIENTS = wordings("recipes.ingredients")
TIME = wordings("recipes.time")
SERVINGS = wordings("recipes.servings")
HARD = wordings("recipes.difficulty")


@dataclass(frozen=True)
class Fact:
    """Something that a recipe may state: how people ask for it, and what the answer is."""

    wordings: Wordings
    answer: Callable[[Recipe], str]


FACTS = {
    "minutes": Fact(TIME, time_answer),
    "servings": Fact(SERVINGS, servings_answer),
    "difficulty": Fact(HARD, difficulty_answer),
}
SCALED = wordings("recipes.scaled")
KINDS = ("make",) * 5 + ("ingredients",) * 3 + ("scaled", *FACTS)


class Recipes:
    """How to make a dish, what goes into it, how long it takes, how many it serves, how hard it is."""

    name = "recipes"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(KINDS)
        among = stating(self.kitchen.side(split), kind) if kind in FACTS and draw.random() < 0.8 else None
        n = draw.randint(2, 16)
        recipe, question = asked(
            self.kitchen, said_in(kind, split, draw), split, draw, among or None, {"n": number_as_said(n, draw)}
        )
        query = query_for(kind, question.fields["dish"]) + (f" for {n}" if kind == "scaled" else "")
        shown = self.kitchen.find(query)
        if split == "train" and draw.random() < BRIEF:
            shown = cut(shown, self.kitchen.find.limit // 2)
        if split == "train" and draw.random() < ALTERED:
            shown = self.kitchen.altered(shown, draw)
        parts = (Call("find", query), Output(shown), Text(shown))
        truth: dict[str, object] = {"kind": kind, "title": recipe.title, "shown": shown}
        return Example(dialogue(question.text, parts), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        if not self.found(example, reply):
            return Grade(0.0, "did not find the dish")
        return grade_about(self.recipe(example), str(example.truth["kind"]), str(example.truth["shown"]), reply)

    def recipe(self, example: Example) -> Recipe:
        """The recipe that the question is about."""
        return self.kitchen.recipes[str(example.truth["title"])]

    def found(self, example: Example, reply: Message) -> bool:
        """Whether the reply's first call finds this very recipe, whatever is said then."""
        return finds(self.kitchen, self.recipe(example).title, reply)


BRIEF = 0.25  # how often, in training, half of a recipe is enough: what to ask for is harder than to repeat it
ALTERED = 0.6  # how often, in training, some words of what `find` shows are others: what is known by heart is not read
IN_TWO = 0.25  # how often, in training, the dish is named in one sentence and asked about in the next


def said_in(kind: str, split: Split, draw: random.Random) -> Wordings:
    """Wordings of this kind of question. In training some are put together: "It is raining and I feel like {dish}." and
    "How is it made?", since people tell a story first and ask about "it" then."""
    if split == "test" or draw.random() >= IN_TWO:
        return question_of(kind)
    told = templates("wordings.jsonl", "train")
    together = f"{draw.choice(told['recipes.about'])} {draw.choice(told[f'recipes.it.{kind}'])}"
    return Wordings(f"recipes.it.{kind}", (together,), ())


def question_of(kind: str) -> Wordings:
    """The wordings of a kind of question."""
    return FACTS[kind].wordings if kind in FACTS else {"make": MAKE, "ingredients": INGREDIENTS, "scaled": SCALED}[kind]


def query_for(kind: str, dish: str) -> str:
    """What `find` is asked for a question of this kind about this dish."""
    named = {"minutes": "time"}.get(kind, kind)
    return dish if kind in ("make", "scaled") else f"{named} of {dish}"


def number_as_said(n: int, draw: random.Random) -> str:
    """A number in digits, or seldom as a word."""
    return SMALL[n] if n < len(SMALL) and draw.random() < 0.5 else str(n)


def stating(recipes: Sequence[Recipe], fact: str) -> list[Recipe]:
    """The recipes that state a fact, which most do not."""
    return [recipe for recipe in recipes if getattr(recipe, fact) is not None]


def asked(
    kitchen: Kitchen,
    wordings: Wordings,
    split: Split,
    draw: random.Random,
    among: Sequence[Recipe] | None = None,
    fields: Mapping[str, str] | None = None,
) -> tuple[Recipe, Question]:
    """A recipe and a question about it, whose words for the dish, typos included, make `find` find it."""
    recipe, name = kitchen.dish(split, draw, among)
    question = wordings.ask(split, draw, {"dish": name, **(fields or {})}, slips=("dish",))
    while kitchen.find.match(question.fields["dish"]) != recipe.title:
        question = wordings.ask(split, draw, {"dish": recipe.title, **(fields or {})})
    return recipe, question


def finds(kitchen: Kitchen, title: str, reply: Message) -> bool:
    """Whether the reply's first call is `find`, with words that find this very recipe."""
    calls = [part for part in reply.parts if isinstance(part, Call)]
    return bool(calls) and calls[0].tool == "find" and kitchen.find.match(calls[0].argument) == title


def grade_about(recipe: Recipe, kind: str, shown: str, reply: Message) -> Grade:
    """How well the text answers a question of this kind about a recipe, given what `find` shows; at least FOUND."""
    text = reply.text
    if kind in ("make", "scaled"):
        share = line_f1(shown.split("\n"), text.split("\n"))
        return Grade(1.0, "right") if share == 1 else Grade(FOUND + 0.6 * share, f"{share:.0%} of the lines")
    if kind == "ingredients":
        share = line_f1(ingredient_lines(shown), ingredient_lines(text))
        return Grade(1.0, "right") if share == 1 else Grade(FOUND + 0.6 * share, f"{share:.0%} of the ingredients")
    grade = grade_fact(recipe, kind, reply)
    return Grade(max(FOUND, grade.reward), grade.reason)


def grade_fact(recipe: Recipe, kind: str, reply: Message) -> Grade:
    """Whether the text states the fact that the recipe does, or admits that it states none."""
    value, expected = getattr(recipe, kind), len(FACTS[kind].answer(recipe))
    if value is None:
        stated = stated_numbers(reply.text)
        return Grade(0.0, "made it up") if stated else grade_mentions(reply, [NOT_SAID], (), expected)
    if kind == "minutes":
        return grade_minutes(value, reply)
    scale = [(Fraction(5), "")] if kind == "difficulty" else []
    return grade_number(reply, Fraction(value), unit="", givens=scale, expected_length=expected)


def grade_minutes(minutes: int, reply: Message) -> Grade:
    """Whether the times in the text add up to so many minutes ("1 hour 30 minutes" is 90)."""
    stated = stated_numbers(reply.text)
    if not stated or any(number.unit not in MINUTES for number in stated):
        return Grade(0.0, "no time")
    total = sum(number.value * MINUTES[number.unit] for number in stated)
    return Grade(1.0, "right") if total == minutes else Grade(0.0, f"{float(total):g} minutes is not the time")


def ingredient_f1(recipe: Recipe, text: str) -> float:
    """F1 between the ingredient lines of `text` and those of the true, whole recipe."""
    return line_f1(recipe.ingredients, ingredient_lines(text))


UNKNOWN = "I have no recipe for that. Is it spelled right?"


def not_found(dish: str) -> tuple[Part, ...]:
    """The honest reply to a question about a dish that `find` does not know."""
    return Call("find", dish), Output(NO_RECIPE), Text(UNKNOWN)
