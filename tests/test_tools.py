import itertools
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.errors import ToolError
from nanochat.tools import (
    CUT,
    MAX_DIGITS,
    NO_RECIPE,
    NOTHING,
    Calculator,
    Find,
    Notes,
    Wish,
    cut,
    plain_words,
    print_number,
    run_call,
    wish_of,
    words,
)

calculator = Calculator()


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("10/4*2", "5"),
        ("3/4*10/4", "1.875"),
        ("1 1/2*9/6", "2.25"),
        ("9/6 * 1 1/2", "2.25"),
        ("(350-32)*5/9", "176.67"),
        ("17*24", "408"),
        ("144/12+7", "19"),
        ("0.1+0.2", "0.3"),
        ("1,200*3", "3600"),
        ("2½*2", "5"),
        ("½+¼", "0.75"),
        ("6×7", "42"),
        ("8÷5", "1.6"),
        ("5−7", "-2"),
        ("-3**2", "-9"),
        ("2**-2", "0.25"),
        ("2^10", "1024"),
        ("17//5", "3"),
        ("-17//5", "-4"),
        ("17%5", "2"),
        ("-(2+3)*+4", "-20"),
        ("2/3", "0.67"),
        ("1/16", "0.0625"),
        ("1/32", "0.0313"),
        ("1/3000", "0.000333"),
        ("12*12=", "144"),
        ("10**29", "1" + "0" * 29),
    ],
)
def test_calculator_prints_as_people_write(expression: str, printed: str) -> None:
    assert calculator(expression) == printed


def test_calculator_is_exact() -> None:
    assert calculator.value("1/3+1/3+1/3") == 1
    assert calculator.value("0.1*3") == Fraction(3, 10)


HOSTILE = [
    "9**9**9",
    "9**99999999",
    "(((2**90)**90)**90)",
    "1e999",
    "10**30",
    "1/10**30",
    "2**0.5",
    "0**-1",
    "1/0",
    "5%0",
    "5//0",
    "(" * 60 + "1" + ")" * 60,
    "(" * 5000 + "1",
    "-" * 119 + "1",
    "+".join("1" * 60),
    "x",
    "a.b",
    "().__class__",
    "__import__('os').system('true')",
    "lambda: 1",
    "[1]*9",
    "'a'*9",
    "1 if 1 else 2",
    "1<2",
    "1,2",
    "f(1)",
    "1(2)",
    "(1)(2)",
    "1_000",
    "0x10",
    "1j",
    "True",
    "None",
    "...",
    "1;2",
    "1\n+2",
    "٣+٤",
    "١٢",
    "²",
    "1+",
    "1 2",
    "",
    "   ",
    "007",
    "1..2",
    "1.2.3",
    "\x00",
    "é",
    "9" * 119,
    "9" * 10**6,
    "1+" * 5 * 10**5 + "1",
    "(" * 10**6,
]


@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_hostile_expressions_are_refused_quickly(expression: str) -> None:
    calculator("1+1")
    began = time.thread_time()
    with pytest.raises(ToolError) as refused:
        calculator(expression)
    assert time.thread_time() - began < 0.02
    assert len(str(refused.value)) < 60


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="0123456789+-*/%(). ½x,^=eé", max_size=40))
def test_any_text_gives_a_short_answer_or_a_tool_error(text: str) -> None:
    began = time.thread_time()
    answer = run_call({"calculator": calculator}, "calculator " + text)
    assert time.thread_time() - began < 0.1
    assert answer and len(answer) <= 2 * MAX_DIGITS + 4


@settings(max_examples=300, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_printed_numbers_are_within_half_of_their_last_place(numerator: int, denominator: int) -> None:
    value = Fraction(numerator, denominator)
    printed = print_number(value)
    decimals = len(printed.partition(".")[2])
    assert abs(Fraction(printed) - value) <= Fraction(1, 2 * 10 ** max(decimals, 2))
    assert not printed.endswith(".") and (decimals == 0 or not printed.endswith("0"))


def test_run_call_never_raises() -> None:
    tools = {"calculator": calculator, "find": Find({"Tomato Soup": "soup"})}
    assert run_call(tools, "calculator 2+2") == "4"
    assert run_call(tools, "  find  tomato soup ") == "soup"
    assert run_call(tools, "rm -rf") == "error: no such tool; use calculator or find"
    assert run_call(tools, "") == "error: no such tool; use calculator or find"
    assert run_call({}, "calculator 2+2") == "error: no such tool; use none"
    assert run_call(tools, "calculator") == "error: write an expression, as in: calculator 10/4*2"
    assert run_call(tools, "find") == "error: name a dish, as in: find pancakes"
    assert run_call(tools, "calculator 1/0") == "error: division by zero"


MENU = {
    "Tomato Soup": "Tomato Soup\n- 4 tomatoes\n- 1 onion",
    "Spicy Tomato Soup": "Spicy Tomato Soup\n- 4 tomatoes\n- 1 chile",
    "Chicken Curry (Mild)": "Chicken Curry\n- 1 chicken\n- 2 onions\n- rice",
    "Frikadeller (Danish Meatballs)": "Frikadeller\n- 250 g veal\n- 1 onion",
    "Crème Brûlée II": "Crème Brûlée\n- 5 eggs\n- cream",
    "Pancakes (Vegan)": "Pancakes\n- flour\n- oat milk",
    "Pancakes": "Pancakes\n- flour\n- eggs\n- milk",
    "Simple Nachos": "Nachos\n- chips\n- cheese",
    "Nachos": "Nachos\n- chips\n- cheese\n- beans",
    "Beef Stew": "Beef Stew\n- 1 kg beef",
    "Blueberry Muffins": "Muffins\n- blueberries",
}


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("tomatoe soup", "Tomato Soup"),
        ("TOMATO SOUP", "Tomato Soup"),
        ("tomato soups please", "Tomato Soup"),
        ("spicy tomato soup", "Spicy Tomato Soup"),
        ("chicken curry", "Chicken Curry (Mild)"),
        ("chiken cury", "Chicken Curry (Mild)"),
        ("danish meatballs", "Frikadeller (Danish Meatballs)"),
        ("frikadeler", "Frikadeller (Danish Meatballs)"),
        ("creme brulee", "Crème Brûlée II"),
        ("a recipe for pancakes", "Pancakes"),
        ("vegan pancakes", "Pancakes (Vegan)"),
        ("simple nachos", "Simple Nachos"),
        ("nachos", "Nachos"),
        ("blueberry muffin", "Blueberry Muffins"),
    ],
)
def test_find_names_the_dish(query: str, title: str) -> None:
    find = Find(MENU)
    assert find.match(query) == title
    assert find(query) == MENU[title]


@pytest.mark.parametrize("query", ["flurbnip stew", "zorgle", "unicorn pie", "qx", "12", "moon cheese", "soup zz yy"])
def test_unknown_dishes_are_not_found(query: str) -> None:
    assert Find(MENU)(query) == NO_RECIPE


def test_find_with_ingredients() -> None:
    find = Find(MENU)
    assert find.holding("with flour, eggs and milk")[0] == "Pancakes"
    assert find.holding("with onions") == ["Frikadeller (Danish Meatballs)", "Tomato Soup", "Chicken Curry (Mild)"]
    assert find("with onions") == "You could make Frikadeller (Danish Meatballs), Tomato Soup or Chicken Curry (Mild)."
    assert find("WITH beef") == "You could make Beef Stew."
    assert find("with unobtainium") == NO_RECIPE
    with pytest.raises(ToolError):
        find("with")


@pytest.mark.parametrize(
    ("query", "dish", "wish"),
    [
        ("pancakes", "pancakes", Wish()),
        ("pancakes for 6", "pancakes", Wish(people=6)),
        ("pancakes times 1/2", "pancakes", Wish(times=Fraction(1, 2))),
        ("pancakes times 3", "pancakes", Wish(times=Fraction(3))),
        ("pancakes in grams", "pancakes", Wish(grams=True)),
        ("pancakes for 6 in grams", "pancakes", Wish(people=6, grams=True)),
        ("pancakes times 2/3 in grams", "pancakes", Wish(times=Fraction(2, 3), grams=True)),
        (" Pancakes FOR 12 In Grams ", "Pancakes", Wish(people=12, grams=True)),
        ("ingredients of pancakes", "pancakes", Wish(part="ingredients")),
        ("Time OF pancakes", "pancakes", Wish(part="time")),
        ("servings of pancakes", "pancakes", Wish(part="servings")),
        ("difficulty of pancakes", "pancakes", Wish(part="difficulty")),
        ("step 12 of pancakes", "pancakes", Wish(part="step 12")),
        ("ingredients of pancakes for 6 in grams", "pancakes", Wish("ingredients", 6, None, True)),
        ("cream of tomato soup", "cream of tomato soup", Wish()),
        ("step of pancakes", "step of pancakes", Wish()),
        ("time of", "time of", Wish()),
        ("soup for two for 999", "soup for two", Wish(people=999)),
        ("pancakes in grams for 6", "pancakes in grams", Wish(people=6)),  # the wish comes in one order
        ("pancakes for 1000", "pancakes for 1000", Wish()),
        ("pancakes for six", "pancakes for six", Wish()),
        ("pancakes times -2", "pancakes times -2", Wish()),
        ("for 6", "for 6", Wish()),
        ("in grams", "in grams", Wish()),
        ("", "", Wish()),
    ],
)
def test_wishes_are_read(query: str, dish: str, wish: Wish) -> None:
    assert wish_of(query) == (dish, wish)


SILLY = ["pancakes for 0", "pancakes for 000 in grams", "pancakes times 0", "pancakes times 1/0", "pancakes times 0/2"]
FOREIGN = [
    "step ٣ of pancakes",
    "pancakes for ٠",
    "pancakes times ٠",
    "pancakes times 1/٠",
    "pancakes times ²",
    "pancakes for 1٠",
]


def adapting(query: str) -> str:
    """What a kitchen answers that says how it was told to adapt a dish."""
    return run_call({"find": Find(MENU, adapt=lambda title, wish: f"{title}, {wish}")}, f"find {query}")


def test_find_adapts_what_it_finds() -> None:
    assert adapting("pancake for 6") == f"Pancakes, {Wish(people=6)}"
    assert adapting("chiken cury times 1/2 in grams") == f"Chicken Curry (Mild), {Wish('', None, Fraction(1, 2), True)}"
    assert adapting("step 2 of blueberry muffin") == f"Blueberry Muffins, {Wish(part='step 2')}"
    assert adapting("pancakes") == MENU["Pancakes"]
    assert adapting("flurbnip stew for 6") == NO_RECIPE
    assert adapting("with eggs for 6") == adapting("with eggs")
    assert Find(MENU)("pancakes for 6") == MENU["Pancakes"]
    assert Find(MENU).match("time of pancakes for 6 in grams") == "Pancakes"
    lines = "\n".join(["Pancakes:", *["- 1 egg"] * 20])
    assert Find(MENU, limit=60, adapt=lambda title, wish: lines)("pancakes for 6").endswith(f"- 1 egg\n{CUT}")


@pytest.mark.parametrize("query", SILLY)
def test_silly_amounts_are_refused(query: str) -> None:
    assert adapting(query) == "error: that many times is not possible"


@pytest.mark.parametrize("query", [*SILLY, *FOREIGN])
def test_a_query_that_wishes_nonsense_still_names_a_dish(query: str) -> None:
    """Graders ask which dish a model's call is about; whatever it wrote, there is an answer and no exception."""
    assert adapting(query)
    assert Find(MENU).match(query) in ("Pancakes", None)


PIECES = [
    "pancakes",
    "step ",
    "time",
    " of ",
    "what is",
    "with",
    " for ",
    " times ",
    " in grams",
    "0",
    "1",
    "12",
    "/",
    "٠",
    "½",
    "-",
    ".",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_any_query_gets_an_answer(query: str) -> None:
    assert adapting(query)
    Find(MENU).match(query)


SHELVES = {
    "what is": Notes(
        [
            (["a potato"], "A tuber."),
            (["a sweet potato"], "An orange root."),
            (["quinoa"], "A seed."),
            (["baking powder"], "It raises cakes."),
            (["baking soda"], "It needs something sour."),
            (["currants"], "Small raisins."),
        ],
        0.75,
        surplus=0.6,
    ),
    "tip": Notes(
        [
            (["boil-egg", "how long do I boil an egg?", "boiled eggs how long"], "Six minutes."),
            (["peel-egg", "how do I peel a boiled egg?"], "Under water."),
            (["burnt-rice", "I burned the rice"], "Do not scrape."),
        ],
        0.45,
        surplus=0.3,
    ),
}


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("what is quinoa", "A seed."),
        ("WHAT IS  Quinoa?", "A seed."),
        ("what is some quinoa please", "A seed."),
        ("what is the potatoes", "A tuber."),
        ("what is a sweet potato", "An orange root."),
        ("what is qinoa", "A seed."),
        ("what is a sweet potatoe", "An orange root."),
        ("what is bakng soda", "It needs something sour."),
        ("what is spicy tomato soup", NOTHING),  # a dish, but no note
        ("what is a xylophone", NOTHING),
        ("what is baking", NOTHING),
        ("what is a", NOTHING),
        ("what is a currant affair of the state", NOTHING),
        ("tip boil-egg", "Six minutes."),
        ("tip How long do I boil an egg", "Six minutes."),
        ("tip how long should I boil my eggs for breakfast", "Six minutes."),
        ("tip how do I best peel a boiled egg", "Under water."),
        ("tip the rice is burned", "Do not scrape."),
        ("tip I burned teh rcie", "Do not scrape."),
        ("tip tune my piano", NOTHING),
    ],
)
def test_notes_are_found_by_their_shelf(query: str, answer: str) -> None:
    find = Find(MENU, notes=SHELVES)
    assert find(query) == answer
    assert find.match(query) is None


def test_a_shelf_is_named_with_the_first_words() -> None:
    find = Find(MENU, notes=SHELVES)
    assert find("pancakes") == MENU["Pancakes"]
    assert (find.shelf("tips for rice"), find.shelf("TIP rice"), find.shelf("rice tip")) == (None, "tip", None)
    assert find("what is") == NO_RECIPE
    assert find("instead of milk") == NO_RECIPE  # no such shelf here
    assert Find(MENU)("what is quinoa") == NO_RECIPE


def test_every_name_of_a_note_finds_it() -> None:
    notes = [([f"{color} {fruit}", f"{fruit} that is {color}"], f"{color} {fruit}")
             for color in ("red", "green", "pale") for fruit in ("apple", "pear", "plum")]  # fmt: skip
    shelf = Notes(notes, threshold=0.9, surplus=0.3)
    for names, text in notes:
        assert [shelf(name) for name in names] == [text] * 2
        assert [shelf(f"The {name.upper()}S?") for name in names] == [text] * 2
    assert shelf("yellow apple") == NOTHING


def test_a_word_that_no_name_has_speaks_against_all_of_them() -> None:
    shelf = Notes([(["a potato"], "A tuber."), (["a leek"], "Green.")], threshold=0.7, surplus=0.6)
    assert shelf("potato") == "A tuber."
    assert shelf("piano") == shelf("") == shelf("a grand potato piano") == NOTHING


def test_the_order_of_words_decides_between_notes_that_have_the_same() -> None:
    shelf = Notes([(["cake pan"], "A pan."), (["pan cake"], "A cake.")], threshold=0.9, surplus=0.3)
    assert (shelf("a pan cake"), shelf("the cake pan")) == ("A cake.", "A pan.")


def test_a_rare_word_of_a_note_tells_more_than_a_common_one() -> None:
    notes = [([f"red {fruit}"], fruit) for fruit in ("apple", "pear", "plum")] + [(["green kiwi"], "kiwi")]
    assert Notes(notes, threshold=0.3, surplus=0.3)("red kiwi") == "kiwi"


def test_words_of_notes_keep_what_a_dish_would_drop() -> None:
    kept = ["how", "do", "i", "make", "chef", "nice", "recipe"]
    assert plain_words("How do I make the Chef's nice recipes, please?") == kept
    assert plain_words("a an the some please !") == []


def test_every_title_finds_itself() -> None:
    find = Find(MENU)
    assert [find.match(title) for title in MENU] == list(MENU)


def test_answers_are_cut_at_a_line() -> None:
    text = "Soup\n" + "\n".join(f"- {number} carrots" for number in range(100))
    answer = Find({"Soup": text}, limit=60)("soup")
    assert len(answer) <= 60
    assert answer.split("\n")[-1] == CUT
    assert text.startswith("\n".join(answer.split("\n")[:-1]))
    assert cut("a" * 50, 20) == CUT
    assert cut("short", 20) == "short"


def test_find_is_quick_on_three_thousand_entries() -> None:
    made = ["".join(parts) for parts in itertools.product("bdkl", "aeo", "mnrst", "aiu", "bdk", "oy")]
    parts = zip(made, made[7:], made[31:], strict=False)
    titles = [f"{first.title()} {second} {third}" for first, second, third in parts]
    titles = (titles * 3)[:3000]
    find = Find({f"{title} {number}": title for number, title in enumerate(titles)})
    find.match(titles[0])
    queries = [title[1:] + "e" for title in titles[:100]] + ["soup " * 1000, "q" * 10**6]
    began = time.thread_time()
    for query in queries:
        find(query)
    assert (time.thread_time() - began) / len(queries) < 0.02  # about 1 ms; the rest is margin


def test_words_have_one_normal_form() -> None:
    assert words("Crème Brûlée II, the Tomatoes") == words("creme brulee ii tomato")
    assert words("Berries, Peaches; radishes & boxes") == ["berry", "peach", "radish", "box"]
    assert words("hummus molasses asparagus") == ["hummus", "molass", "asparagus"]
    assert words("   !? ") == []


def test_chatter_around_a_dish_does_not_hide_it() -> None:
    plain, patient = Find(MENU), Find(MENU, chatter=["never", "made", "before", "tonight", "soup"])
    query = "blueberry muffins never made before tonight"
    assert (plain.match(query), patient.match(query)) == (None, "Blueberry Muffins")
    assert patient.match("tomato soup tonight") == "Tomato Soup"  # a title's word tells, whatever chatter says
    assert patient.match("never before tonight") is None
    assert patient.match("unicorn pie tonight") is None


def test_a_shelf_that_gives_way_to_a_dish_hears_how_it_is_wanted() -> None:
    unsure = {"tip": Notes([(["boil eggs"], "6 minutes.")], threshold=0.4, surplus=0.3, sure=0.75)}
    find = Find(MENU, adapt=lambda title, wish: f"{title}, {wish}", notes=unsure)
    assert find("tip boil eggs") == "6 minutes."
    assert find("tip how do i make tomato soup for 6") == f"Tomato Soup, {Wish(people=6)}"
    assert find("time of tip how do i make tomato soup") == f"Tomato Soup, {Wish('time')}"
    assert find("tip how do i make tomato soup") == MENU["Tomato Soup"]
