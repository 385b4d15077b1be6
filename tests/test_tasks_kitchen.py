"""Tasks about dishes: what is asked, what is found, and how answers about it are graded."""

import dataclasses
import time
import zipfile

import pytest

from nanochat.data.recipes import Recipe, parse_recipes, recipe_text
from nanochat.data.sources import COOKBOOK
from nanochat.tasks import Example, Kitchen, Recipes, catalogue, example_for, ingredient_f1, mixture, tools_for
from nanochat.tasks.follow_up import FollowUp, rescaled
from nanochat.tasks.kitchen import ingredient_lines, spoken_names
from nanochat.tasks.pantry import Pantry
from nanochat.tasks.recipes import grade_about, not_found
from nanochat.tasks.unknown import UnknownDish
from nanochat.tokenizer.chat import Call, Message, Output, Text, message
from nanochat.tools import CUT, NO_RECIPE, Find, run_call
from oracles.kitchen import KITCHEN
from oracles.wheels import wheel

HOME = Kitchen(KITCHEN)
SOUP, PANCAKES, CURRY = (HOME.recipes[title] for title in ("Tomato Soup", "Pancakes (North American)", "Chicken Curry"))


def reply(dish: str, text: str) -> Message:
    return Message("assistant", (Call("find", dish), Output(HOME.find(dish)), Text(text)))


def ask(kind: str, recipe: Recipe) -> Example:
    return Example((message("user", "?"), message("assistant", "!")), {"kind": kind, "title": recipe.title})


def reward(kind: str, recipe: Recipe, dish: str, text: str) -> float:
    return Recipes(HOME).grade(ask(kind, recipe), reply(dish, text)).reward


def test_spoken_names() -> None:
    assert spoken_names("Crème Brûlée II") == ["crème brûlée"]
    assert spoken_names("Frikadeller (Danish Meatballs)") == ["frikadeller", "danish meatballs"]
    assert spoken_names("Pancakes (Vegan)") == ["pancakes"]
    assert spoken_names("IV") == []


def test_whole_recipes() -> None:
    shown = recipe_text(SOUP)
    assert reward("make", SOUP, "tomato soup", shown) == 1
    assert reward("make", SOUP, "TOMATOE SOUP", shown.upper()) == 1
    assert 0.2 < reward("make", SOUP, "tomato soup", "\n".join(shown.split("\n")[:5])) < 1
    assert 0.2 < reward("make", SOUP, "tomato soup", shown + "\n4. Serve.") < 1
    assert reward("make", SOUP, "spicy tomato soup", shown) == 0  # another dish
    assert reward("make", SOUP, "tomato soup", "") == 0.2
    assert Recipes(HOME).grade(ask("make", SOUP), message("assistant", shown)).reward == 0  # from memory


def test_ingredient_lists() -> None:
    lines = "\n".join(f"- {line}" for line in SOUP.ingredients)
    assert reward("ingredients", SOUP, "tomato soup", lines) == 1
    assert reward("ingredients", SOUP, "tomato soup", lines.replace("- ", "* ")) == 1
    assert reward("ingredients", SOUP, "tomato soup", lines.replace("- ", "")) == 1
    assert reward("ingredients", SOUP, "tomato soup", recipe_text(SOUP)) == 1
    assert 0.2 < reward("ingredients", SOUP, "tomato soup", lines + "\n- 1 fish") < 1
    assert 0.2 < reward("ingredients", SOUP, "tomato soup", lines.replace("4 tomatoes", "40 tomatoes")) < 1
    assert reward("ingredients", SOUP, "tomato soup", lines + "\n" + lines) < 1


@pytest.mark.parametrize(
    ("kind", "recipe", "text", "right"),
    [
        ("minutes", SOUP, "It takes 30 minutes.", True),
        ("minutes", SOUP, "Half an hour.", True),
        ("minutes", SOUP, "0.5 hours", True),
        ("minutes", SOUP, "It takes 30.", False),
        ("minutes", SOUP, "It takes 300 minutes.", False),
        ("minutes", SOUP, "30 minutes or 1 hour", False),
        ("servings", SOUP, "It serves 4.", True),
        ("servings", SOUP, "Four people.", True),
        ("servings", SOUP, "It serves 14.", False),
        ("servings", SOUP, "It serves 4 or 6.", False),
        ("difficulty", SOUP, "Difficulty 1 of 5: very easy.", True),
        ("difficulty", SOUP, "Difficulty 2 of 5.", False),
        ("difficulty", SOUP, "Difficulty 5 of 5.", False),
    ],
)
def test_facts(kind: str, recipe: Recipe, text: str, right: bool) -> None:
    assert grade_about(HOME, recipe, kind, message("assistant", text)).right is right


def test_facts_that_a_recipe_does_not_state() -> None:
    silent = dataclasses.replace(SOUP, minutes=None, servings=None)
    for kind in ("minutes", "servings"):
        assert grade_about(HOME, silent, kind, message("assistant", "The recipe does not say.")).right
        assert not grade_about(HOME, silent, kind, message("assistant", "It takes 4 minutes.")).right
        assert not grade_about(HOME, silent, kind, message("assistant", "It is fine.")).right


def test_unknown_dishes() -> None:
    task = UnknownDish(HOME)
    example = task.example("test", 0)
    dish = str(example.truth["dish"])
    assert task.grade(example, Message("assistant", not_found(dish))).right
    honest = Message("assistant", (Call("find", dish), Output(NO_RECIPE), Text("Sorry, I could not find that one.")))
    assert task.grade(example, honest).right
    assert task.grade(example, message("assistant", "I have no recipe for that.")).reward == 0.5
    invented = Message("assistant", (Call("find", dish), Output(NO_RECIPE), Text("Take 4 eggs\n- 1 egg\n- salt")))
    assert task.grade(example, invented).reward == 0


def test_pantry() -> None:
    task = Pantry(HOME)
    example = task.example("train", 3)
    titles, items = example.truth["titles"], example.truth["items"]
    assert isinstance(titles, list) and isinstance(items, list)
    call = Call("find", f"with {', '.join(items)}")
    assert task.grade(example, Message("assistant", (call, Text(f"How about {', '.join(titles)}?")))).right
    assert task.grade(example, Message("assistant", (call, Text("How about air?")))).reward == 0
    assert task.grade(example, message("assistant", f"How about {', '.join(titles)}?")).reward == 0
    other = Call("find", "with tea")
    assert task.grade(example, Message("assistant", (other, Text("Green Tea.")))).reward <= 0.1


def test_rescaled_recipes() -> None:
    task = FollowUp(HOME)
    example = Example(
        (message("user", "?"), Message("assistant", rescaled(CURRY, 6))), {"kind": "rescale", "title": CURRY.title}
    )
    assert example.reference.text.split("\n") == [
        "For 6:",
        "- 1.5 pounds chicken",
        "- 3 onions",
        "- 1.5 cups coconut milk",
        "- 3 tablespoons curry powder",
        "- rice",
    ]
    assert task.grade(example, example.reference).right
    text = example.reference.text
    assert task.grade(example, message("assistant", text.replace("1.5 pounds", "1 1/2 pounds"))).right
    assert not task.grade(example, message("assistant", text.replace("1.5 pounds", "0.5 pounds"))).right
    assert not task.grade(example, message("assistant", text.replace("1.5 cups", "1.5 spoons"))).right
    assert not task.grade(example, message("assistant", text + "\n- 1 egg")).right


def test_ingredient_f1_is_against_the_whole_recipe() -> None:
    assert ingredient_f1(SOUP, recipe_text(SOUP)) == 1
    assert ingredient_f1(SOUP, "- 4 tomatoes\n- 1 onion, chopped") == pytest.approx(2 * 2 / 6)
    assert ingredient_f1(SOUP, recipe_text(CURRY)) == 0
    assert ingredient_f1(SOUP, "") == 0
    short = Kitchen(KITCHEN, limit=120)
    assert CUT in short.shown(SOUP)
    assert 0 < ingredient_f1(SOUP, short.shown(SOUP)) < 1


def test_ingredient_lines() -> None:
    assert ingredient_lines("Soup\n\nIngredients:\n- 1 egg\n- salt\n\nSteps:\n1. Boil - or fry.") == ["1 egg", "salt"]
    assert ingredient_lines("You need:\n- 1 egg\n* salt") == ["1 egg", "salt"]
    assert ingredient_lines(f"1 egg\n\nsalt\n{CUT}") == ["1 egg", "salt"]
    assert ingredient_lines("") == []


@pytest.fixture(scope="module")
def cookbook() -> list[Recipe]:
    with zipfile.ZipFile(wheel(COOKBOOK.location, COOKBOOK.revision, COOKBOOK.sha256)) as file:
        return parse_recipes(file.read(COOKBOOK.member))[0]


@pytest.fixture(scope="module")
def find(cookbook: list[Recipe]) -> Find:
    return Kitchen(cookbook).find


@pytest.mark.slow
def test_every_call_of_the_whole_cookbook_is_true(cookbook: list[Recipe], find: Find) -> None:
    """Thousands of examples of each stage: outputs are the tools' own, references are right, titles are found."""
    tasks, tools = catalogue(cookbook), tools_for(cookbook)
    calls = 0
    for stage in ("midtrain", "sft", "rl"):
        for index in range(1500):
            name, example = example_for(tasks, mixture(stage), index)
            assert tasks[name].grade(example, example.reference).right, example
            for turn in example.conversation:
                for part, after in zip(turn.parts, turn.parts[1:], strict=False):
                    if isinstance(part, Call):
                        assert after == Output(run_call(tools, str(part))), example
                        calls += 1
    assert calls > 3000
    assert [find.match(recipe.title) for recipe in cookbook] == [recipe.title for recipe in cookbook]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("tomatoe soup", "Tomato Soup"),
        ("PANCAKE", "Pancakes"),
        ("guacamole", "Guacamole"),
        ("a chocolate cake", "Chocolate Cake"),
        ("beef stroganoff", "Beef Stroganoff"),
        ("chiken noodle soup", "Chicken Noodle Soup"),
        ("danish meatballs", "Frikadeller"),
        ("creme brulee", "Crème Brûlée"),
        ("flurbnip stew", None),
        ("unicorn steak", None),
        ("xyzzy", None),
    ],
)
def test_people_find_what_they_mean(find: Find, query: str, words: str | None) -> None:
    find(query)
    began = time.perf_counter()
    title = find.match(query)
    assert time.perf_counter() - began < 0.05  # about 1 ms
    assert title is None if words is None else words in str(title)
