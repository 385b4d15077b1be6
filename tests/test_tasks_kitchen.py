"""Tasks about dishes: what is asked, what is found, and how answers about it are graded."""

import dataclasses
import random
import re
import time
import zipfile
from fractions import Fraction

import pytest

from nanochat.data.recipes import Recipe, parse_recipes, recipe_text
from nanochat.data.sources import COOKBOOK
from nanochat.tasks import LIMIT, Example, Kitchen, Recipes, catalogue, example_for, ingredient_f1, mixture, tools_for
from nanochat.tasks.follow_up import NEXT, FollowUp, Talk
from nanochat.tasks.grading import SMALL, plain
from nanochat.tasks.kitchen import adapted, ingredient_lines, spoken_names
from nanochat.tasks.pantry import Pantry
from nanochat.tasks.recipes import FACTS, FOUND, grade_about, not_found
from nanochat.tasks.task import Split
from nanochat.tasks.unknown import UnknownDish
from nanochat.tokenizer import SPECIALS, prompt, render, train_tokenizer
from nanochat.tokenizer.chat import Call, Message, Output, Text, message
from nanochat.tools import CUT, NO_RECIPE, Find, Wish, cut, run_call, wish_of
from oracles.kitchen import KITCHEN
from oracles.wheels import wheel

HOME = Kitchen(KITCHEN)
SOUP, PANCAKES, CURRY = (HOME.recipes[title] for title in ("Tomato Soup", "Pancakes (North American)", "Chicken Curry"))


def reply(dish: str, text: str) -> Message:
    return Message("assistant", (Call("find", dish), Output(HOME.find(dish)), Text(text)))


def ask(kind: str, recipe: Recipe) -> Example:
    truth: dict[str, object] = {"kind": kind, "title": recipe.title, "shown": HOME.shown(recipe)}
    return Example((message("user", "?"), message("assistant", "!")), truth)


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
    assert grade_about(recipe, kind, "", message("assistant", text)).right is right


def test_facts_that_a_recipe_does_not_state() -> None:
    silent = dataclasses.replace(SOUP, minutes=None, servings=None)
    for kind in ("minutes", "servings"):
        assert grade_about(silent, kind, "", message("assistant", "The recipe does not say.")).right
        assert not grade_about(silent, kind, "", message("assistant", "It takes 4 minutes.")).right
        assert not grade_about(silent, kind, "", message("assistant", "It is fine.")).right


def test_unknown_dishes() -> None:
    task = UnknownDish(HOME)
    example = task.example("test", 0)
    dish = str(example.truth["query"])
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


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (
            "tomato soup for 8",
            "Tomato Soup for 8:\n- 8 tomatoes\n- 2 onions, chopped\n- 4 cups vegetable broth\n- 1 teaspoon salt",
        ),
        (
            "tomatoe soup times 1/2",
            "Tomato Soup, 1/2 times:\n- 2 tomatoes\n- 1/2 onion, chopped\n- 1 cup vegetable broth\n- 1/4 teaspoon salt",
        ),
        (
            "tomato soup in grams",
            "Tomato Soup, by weight:\n- 4 tomatoes\n- 1 onion, chopped\n- 480 ml vegetable broth\n- 1/2 teaspoon salt",
        ),
        (
            "tomato soup for 6 in grams",
            "Tomato Soup for 6, by weight:\n"
            "- 6 tomatoes\n- 1 1/2 onions, chopped\n- 720 ml vegetable broth\n- 3/4 teaspoon salt",
        ),
        (
            "frikadeller for 6",  # does not say how many it serves
            "Frikadeller (Danish Meatballs) for 6, if the recipe serves 4:\n"
            "- 375 g ground veal\n- 375 g ground pork\n- 1 1/2 eggs\n- Salt to taste",
        ),
        ("ingredients of green tea", "- 1 teaspoon tea leaves\n- 1 cup water"),
        ("ingredients of green tea for 3", "Green Tea for 3:\n- 3 teaspoons tea leaves\n- 3 cups water"),
        ("time of creme brulee", "It takes 1 hour 30 minutes."),
        ("time of apple pie", "The recipe does not say how long it takes."),
        ("servings of apple pie", "It serves 8."),
        ("servings of guacamole", "The recipe does not say how many it serves."),
        ("difficulty of apple pie", "Difficulty 3 of 5: medium."),
        ("difficulty of hummus", "The recipe does not say how hard it is."),
        ("step 2 of hummus", "Season."),
        ("step 3 of hummus", "It has 2 steps."),
        ("step 0 of hummus", "It has 2 steps."),
        ("tomato soup for 0", "error: that many times is not possible"),
        ("flurbnip stew for 6", NO_RECIPE),
    ],
)
def test_what_is_wished_of_a_recipe(query: str, answer: str) -> None:
    assert run_call(HOME.tools, f"find {query}") == answer


def test_amounts_that_cannot_be_scaled_are_marked() -> None:
    lines = ("2 cups flour", "1 cup plus 2 tablespoons oil", "1-inch piece ginger", "1 cup milk (110°F)", "salt")
    recipe = dataclasses.replace(SOUP, ingredients=lines, servings=2)
    assert adapted(recipe, Wish(people=3)).split("\n")[1:] == [
        "- 3 cups flour",
        "- 1 cup plus 2 tablespoons oil (not scaled)",
        "- 1-inch piece ginger (not scaled)",
        "- 1 1/2 cups milk",  # without the remark that could not be placed
        "- salt",
    ]
    for same in (Wish(people=2), Wish(times=Fraction(1)), Wish(grams=True)):
        assert "not scaled" not in adapted(recipe, same)
    assert adapted(recipe, Wish(people=3, grams=True)).split("\n")[1:3] == [
        "- 375 g flour",
        "- 1 cup plus 2 tablespoons oil (not scaled)",
    ]


@pytest.mark.parametrize("split", ["train", "test", "familiar"])
def test_questions_for_a_number_of_people(split: Split) -> None:
    """The number stands in the question, in digits or as a word, and in digits in the call."""
    task, words = Recipes(HOME), 0
    examples = [task.example(split, index) for index in range(400)]
    examples = [example for example in examples if example.truth["kind"] == "scaled"]
    assert len(examples) > 15
    for example in examples:
        call = example.reference.parts[0]
        assert isinstance(call, Call)
        _, wish = wish_of(call.argument)
        assert wish.people is not None
        assert wish == Wish(people=wish.people)
        asked = plain(example.question[-1].text).split()
        words += str(wish.people) not in asked
        assert str(wish.people) in asked or SMALL[wish.people] in asked
        assert without_words(HOME.find(call.argument)) == without_words(example.reference.text)
        assert example.reference.text == example.truth["shown"]
        another = re.sub(r"\d+$", str(wish.people + 1), call.argument)
        other = Message("assistant", (Call("find", another), Output(HOME.find(another)), Text(HOME.find(another))))
        assert not task.grade(example, other).right
    assert 0 < words < len(examples)


def test_in_training_the_dish_is_sometimes_named_before_it_is_asked_about_and_half_shown() -> None:
    short = Kitchen(KITCHEN, limit=160)
    task = Recipes(short)
    for split in ("train", "test"):
        examples = [task.example(split, index) for index in range(300)]
        in_two = [example for example in examples if example.wording.startswith("recipes.it.")]
        halved = [
            example
            for example in examples
            if without_words(str(example.truth["shown"]))
            != without_words(short.find(calls_of(example.reference)[0].argument))
        ]
        assert (len(in_two) > 30) == (len(halved) > 5) == (split == "train")
        assert all(". " in example.question[0].text or "?" in example.question[0].text for example in in_two)
        for example in halved:
            assert len(str(example.truth["shown"])) <= 80
            assert str(example.truth["shown"]).endswith(CUT)
            assert task.grade(example, example.reference).right
        altered = [example for example in examples if not is_true(example, short) and example not in halved]
        assert (len(altered) > 50) == (split == "train")
        if split == "test":
            assert not in_two and not halved and not altered


def is_true(example: Example, kitchen: Kitchen) -> bool:
    return example.truth["shown"] == kitchen.find(calls_of(example.reference)[0].argument)


def without_words(text: str) -> str:
    """`text` without the words that training may replace by others."""
    return re.sub("[A-Za-z]{4,}", "", text)


def calls_of(turn: Message) -> list[Call]:
    return [part for part in turn.parts if isinstance(part, Call)]


PARTS = {"minutes": "time", "servings": "servings", "difficulty": "difficulty", "ingredients": "ingredients"}


@pytest.mark.parametrize("split", ["train", "test", "familiar"])
def test_a_follow_up_looks_up_again_what_was_first_asked_for(split: Split) -> None:
    """The dish is in no question but the first; the words for it are those of the first call, wherever one is made."""
    task, kinds, longer = FollowUp(HOME), set(), 0
    for index in range(300):
        example = task.example(split, index)
        kind, title = str(example.truth["kind"]), str(example.truth["title"])
        kinds.add(kind)
        longer += len(example.conversation) > 4
        calls = [call for turn in example.conversation for call in calls_of(turn)]
        (dish,) = {wish_of(call.argument)[0] for call in calls}
        assert dish in example.conversation[0].text
        assert plain(dish) not in " | ".join(plain(turn.text) for turn in example.conversation[2::2])
        assert all(HOME.find.match(call.argument) == title for call in calls)
        assert len(calls_of(example.reference)) == (kind != "thanks")
        if kind == "thanks":
            continue
        assert example.truth["query"] == calls[-1].argument
        assert example.truth["shown"] == HOME.find(calls[-1].argument) == example.reference.text
        wish = wish_of(calls[-1].argument)[1]
        amounts = (wish.people is not None, wish.times is not None, wish.grams)
        if kind in ("rescale", "times", "grams"):
            assert amounts[("rescale", "times", "grams").index(kind)]
            assert not wish.part
        else:
            assert not any(amounts)
            assert wish.part.split() == PARTS.get(kind, "").split() or (
                kind == "step" and wish.part.startswith("step ")
            )
    assert kinds == set(NEXT)
    assert 30 < longer < 200


def test_a_wish_lasts_until_the_next_one() -> None:
    draw, talk = random.Random(0), Talk(HOME, CURRY, "curry dish")
    assert talk.about("make")[0] == Call("find", "curry dish")
    assert talk.about("minutes")[0] == Call("find", "time of curry dish")

    def then(kind: str) -> str:
        _, reply, wording = talk.goes_on(kind, NEXT[kind], "train", draw)
        assert wording.startswith(f"follow_up.{kind}.train.")
        return str(reply[0]).removeprefix("find ")

    assert then("grams") == "curry dish in grams"
    people = then("rescale")
    assert re.fullmatch(r"curry dish for \d+", people)
    assert then("grams") == f"{people} in grams"
    assert then("again") == "curry dish"
    assert [then(kind) for kind in PARTS] == [f"{part} of curry dish" for part in PARTS.values()]
    assert re.fullmatch(r"step [1-4] of curry dish", then("step"))
    assert then("grams") == f"{people} in grams"
    times = then("times")
    assert re.fullmatch(r"curry dish times (2|1/2|3)", times)
    assert then("grams") == f"{times} in grams"
    assert "welcome" in then("thanks")


def test_follow_ups_are_graded_by_what_is_looked_up_and_said() -> None:
    task, query = FollowUp(HOME), "chicken curry for 6"
    shown = HOME.find(query)
    truth: dict[str, object] = {"kind": "rescale", "title": CURRY.title, "shown": shown, "query": query}
    example = Example((message("user", "?"), reply(query, shown)), truth)

    def reward(query: str, text: str) -> float:
        return task.grade(example, reply(query, text)).reward

    assert shown.split("\n")[1] == "- 1 1/2 pounds chicken"
    assert reward(query, shown) == reward("CHICKEN CURY for 6", shown.upper()) == 1
    assert reward(query, shown.replace("3 onions", "2 onions")) < 1
    assert reward(query, shown + "\n- 1 egg") < 1
    assert reward("chicken curry", HOME.shown(CURRY)) < 1
    assert reward(query, "") == FOUND
    assert reward("beef stew for 6", shown) == 0
    assert task.grade(example, message("assistant", shown)).reward == 0
    for silly in ("chicken curry for 0", "chicken curry times 1/0", "", "with chicken", "what is curry"):
        parts = (Call("find", silly), Output("error"), Text(shown))
        assert task.grade(example, Message("assistant", parts)).reward < 1
    thanks = Example(example.conversation, truth | {"kind": "thanks"})
    assert task.grade(thanks, message("assistant", "You are welcome!")).right
    assert not task.grade(thanks, message("assistant", "Chicken Curry\n- 1 pound chicken")).right
    step = Example((message("user", "?"), reply(query, CURRY.steps[1])), truth | {"kind": "step"})
    assert task.grade(step, reply("chicken curry", CURRY.steps[1])).right
    assert not task.grade(step, reply("chicken curry", CURRY.steps[2])).right
    assert task.grade(step, message("assistant", CURRY.steps[1])).reward == 0
    for kind in FACTS:
        fact = Example((message("user", "?"), message("assistant", "!")), truth | {"kind": kind})
        answer = FACTS[kind].answer(CURRY)
        assert task.grade(fact, reply("chicken curry", answer)).right
        assert not task.grade(fact, reply("chicken curry", "It is 7.")).right


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
            assert name.endswith("_calls") or tasks[name].grade(example, example.reference).right, example
            for turn in example.conversation:
                for part, after in zip(turn.parts, turn.parts[1:], strict=False):
                    if isinstance(part, Call):
                        whole = run_call(tools, str(part))
                        halved = [cut(whole, LIMIT // 2)] if name in ("recipes", "chain") else []
                        assert isinstance(after, Output), example
                        assert without_words(after.text) in map(without_words, (whole, *halved)), example
                        calls += 1
    assert calls > 3000
    assert [find.match(recipe.title) for recipe in cookbook] == [recipe.title for recipe in cookbook]


@pytest.mark.slow
def test_conversations_about_the_whole_cookbook_fit_a_small_context(cookbook: list[Recipe]) -> None:
    """A question leaves most of 512 tokens to the answer, and few answers need more than are left."""
    texts = [recipe_text(recipe) for recipe in cookbook[::4]]
    tokenizer = train_tokenizer(texts, 4096 - len(SPECIALS))
    tasks = catalogue(cookbook)
    for name in ("follow_up", "chain", "recipes", "pantry", "knowledge", "how_to", "copy_recipes"):
        examples = [tasks[name].example(split, index) for split in ("train", "test") for index in range(200)]
        assert max(len(prompt(tokenizer, example.question)) for example in examples) <= 256
        whole = [len(render(tokenizer, example.conversation).ids) for example in examples]
        assert max(whole) <= 640
        assert sum(length > 512 for length in whole) <= 0.03 * len(whole)


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
