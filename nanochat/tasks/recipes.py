"""Questions about a dish: the model calls `find`, then copies what was asked for out of the recipe that comes back."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nanochat import keyed
from nanochat.data.recipes import Recipe, duration_text
from nanochat.tasks.grading import grade_mentions, grade_number, line_f1, stated_numbers
from nanochat.tasks.kitchen import Kitchen, ingredient_lines
from nanochat.tasks.task import Example, Grade, Split, dialogue
from nanochat.tasks.wording import Question, Wordings
from nanochat.tokenizer.chat import Call, Message, Output, Part, Text
from nanochat.tools import NO_RECIPE

FOUND = 0.2  # for calling `find` with the right dish, whatever is said then
DIFFICULTY = {1: "very easy", 2: "easy", 3: "medium", 4: "hard", 5: "very hard"}
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

MAKE = Wordings(
    "recipes.make",
    train=(
        "How do I make {dish}?",
        "How do you make {dish}?",
        "How to make {dish}?",
        "Recipe for {dish}",
        "{dish} recipe",
        "I want to make {dish}.",
        "I want to cook {dish}. How?",
        "Give me a recipe for {dish}.",
        "Can you give me the recipe for {dish}?",
        "How can I cook {dish}?",
        "Do you have a recipe for {dish}?",
        "Please show me how to make {dish}.",
        "I need a recipe for {dish}.",
        "Tell me how to make {dish}.",
        "{dish}, please!",
        "{dish}",
        "I would like to bake {dish}.",
        "Find {dish}.",
        "What is the recipe for {dish}?",
    ),
    test=(
        "Could you explain how {dish} is made?",
        "We would love to have {dish} tonight. How does it go?",
        "Teach me to make {dish}.",
        "Look up {dish} for me.",
        "My guests want {dish}. What do I do?",
        "I have never made {dish} before, can you help?",
        "Any idea how to prepare {dish}?",
    ),
)
INGREDIENTS = Wordings(
    "recipes.ingredients",
    train=(
        "What are the ingredients of {dish}?",
        "What do I need for {dish}?",
        "What is in {dish}?",
        "Which ingredients are in {dish}?",
        "What goes into {dish}?",
        "Ingredients for {dish}?",
        "{dish} ingredients",
        "List the ingredients of {dish}.",
        "What must I buy for {dish}?",
        "What do I need to make {dish}?",
        "Give me the ingredients for {dish}.",
        "Tell me what is in {dish}.",
    ),
    test=(
        "I am at the shop and want to make {dish}. What do I get?",
        "Write me a shopping list for {dish}.",
        "What does one put in {dish}?",
        "Which things do I have to have at home for {dish}?",
        "{dish}: what is it made of?",
    ),
)
TIME = Wordings(
    "recipes.time",
    train=(
        "How long does {dish} take?",
        "How long do I need for {dish}?",
        "How much time does {dish} take?",
        "How many minutes does it take to make {dish}?",
        "What time do I need to cook {dish}?",
        "How long must I cook {dish}?",
        "Is {dish} quick to make?",
        "Time for {dish}?",
    ),
    test=(
        "If I start {dish} now, when do we eat?",
        "Do I have enough time for {dish}? How long is it?",
        "Tell me how long {dish} keeps me in the kitchen.",
        "How long until {dish} is ready?",
    ),
)
SERVINGS = Wordings(
    "recipes.servings",
    train=(
        "How many people does {dish} serve?",
        "How many servings does {dish} make?",
        "For how many people is {dish}?",
        "How many does the recipe for {dish} serve?",
        "How many can eat {dish}?",
        "How many portions of {dish} does it make?",
        "Servings of {dish}?",
        "{dish}: for how many people?",
    ),
    test=(
        "How many guests can I feed with {dish}?",
        "Is {dish} enough for a family? How many does it serve?",
        "Tell me the number of servings of {dish}.",
        "If I make {dish}, how many plates do I set?",
    ),
)
HARD = Wordings(
    "recipes.difficulty",
    train=(
        "Is {dish} hard to make?",
        "How hard is {dish}?",
        "How difficult is {dish}?",
        "Is {dish} easy?",
        "Is {dish} difficult to cook?",
        "How easy is it to make {dish}?",
        "Difficulty of {dish}?",
        "Can a beginner make {dish}?",
    ),
    test=(
        "I am new to cooking. Is {dish} too much for me?",
        "How much skill does {dish} take?",
        "Would I manage {dish}? How hard is it?",
        "Tell me how difficult {dish} is.",
    ),
)


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


def ingredients_answer(shown: str) -> str:
    """The ingredient lines of a recipe as `find` shows it."""
    return "\n".join(f"- {line}" for line in ingredient_lines(shown))


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
KINDS = ("make",) * 4 + ("ingredients",) * 3 + tuple(FACTS)


class Recipes:
    """How to make a dish, what goes into it, how long it takes, how many it serves, how hard it is."""

    name = "recipes"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(KINDS)
        among = stating(self.kitchen.side(split), kind) if kind in FACTS and draw.random() < 0.8 else None
        recipe, question = asked(self.kitchen, question_of(kind), split, draw, among or None)
        shown = self.kitchen.shown(recipe)
        parts = (Call("find", question.fields["dish"]), Output(shown), Text(answer_to(kind, recipe, shown)))
        truth: dict[str, object] = {"kind": kind, "title": recipe.title}
        return Example(dialogue(question.text, parts), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        if not self.found(example, reply):
            return Grade(0.0, "did not find the dish")
        return grade_about(self.kitchen, self.recipe(example), str(example.truth["kind"]), reply)

    def recipe(self, example: Example) -> Recipe:
        """The recipe that the question is about."""
        return self.kitchen.recipes[str(example.truth["title"])]

    def found(self, example: Example, reply: Message) -> bool:
        """Whether the reply's first call finds this very recipe, whatever is said then."""
        return finds(self.kitchen, self.recipe(example).title, reply)


def question_of(kind: str) -> Wordings:
    """The wordings of a kind of question."""
    return FACTS[kind].wordings if kind in FACTS else {"make": MAKE, "ingredients": INGREDIENTS}[kind]


def answer_to(kind: str, recipe: Recipe, shown: str) -> str:
    """The reference answer to a question of this kind, given what `find` shows of the recipe."""
    if kind in FACTS:
        return FACTS[kind].answer(recipe)
    return shown if kind == "make" else ingredients_answer(shown)


def stating(recipes: Sequence[Recipe], fact: str) -> list[Recipe]:
    """The recipes that state a fact, which most do not."""
    return [recipe for recipe in recipes if getattr(recipe, fact) is not None]


def asked(
    kitchen: Kitchen, wordings: Wordings, split: Split, draw: random.Random, among: Sequence[Recipe] | None = None
) -> tuple[Recipe, Question]:
    """A recipe and a question about it, whose words for the dish, typos included, make `find` find it."""
    recipe, name = kitchen.dish(split, draw, among)
    question = wordings.ask(split, draw, {"dish": name}, slips=("dish",))
    while kitchen.find.match(question.fields["dish"]) != recipe.title:
        question = wordings.ask(split, draw, {"dish": recipe.title})
    return recipe, question


def finds(kitchen: Kitchen, title: str, reply: Message) -> bool:
    """Whether the reply's first call is `find`, with words that find this very recipe."""
    calls = [part for part in reply.parts if isinstance(part, Call)]
    return bool(calls) and calls[0].tool == "find" and kitchen.find.match(calls[0].argument) == title


def grade_about(kitchen: Kitchen, recipe: Recipe, kind: str, reply: Message) -> Grade:
    """How well the text answers a question of this kind about this recipe; at least FOUND."""
    text = reply.text
    if kind == "make":
        share = line_f1(kitchen.shown(recipe).split("\n"), text.split("\n"))
        return Grade(1.0, "right") if share == 1 else Grade(FOUND + 0.6 * share, f"{share:.0%} of the lines")
    if kind == "ingredients":
        share = line_f1(ingredient_lines(kitchen.shown(recipe)), ingredient_lines(text))
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


def not_found(dish: str) -> tuple[Part, ...]:
    """The honest reply to a question about a dish that `find` does not know."""
    return Call("find", dish), Output(NO_RECIPE), Text(f"I have no recipe for {dish}. Is it spelled right?")
