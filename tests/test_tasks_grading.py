"""Graders against right, wrong and tricky answers."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.tasks.choice import grade_choice
from nanochat.tasks.grading import (
    CONSOLATION,
    NO_UNIT,
    PARTIAL,
    grade_copy,
    grade_mentions,
    grade_number,
    line_f1,
    repeats,
    stated_numbers,
)
from nanochat.tokenizer.chat import Call, Message, Output, Text, message


def said(text: str) -> Message:
    return message("assistant", text)


def cups(text: str) -> float:
    """2 cups serve 4; for 10 people it is 5 cups."""
    givens = [(Fraction(2), "cup"), (Fraction(4), "people"), (Fraction(10), "people")]
    return grade_number(said(text), Fraction(5), unit="cup", givens=givens, needs_unit=True).reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("You need 5 cups.", 1),
        ("5 cups", 1),
        ("5 c", 0),
        ("FIVE CUPS!", 1),
        ("You need five cups of flour.", 1),
        ("5.0 cups", 1),
        ("2*10/4 = 5 cups", 1),
        ("2 cups serve 4, so for 10 people you need 5 cups.", 1),
        ("5", NO_UNIT),
        ("You need 5 of them.", NO_UNIT),
        ("", 0),
        ("You need flour.", 0),
        ("You need 2 cups.", 0),
        ("You need 10 cups.", 0),
        ("You need 50 cups.", 0),
        ("You need 5 grams.", 0),
        ("10 cups for 5 people.", 0),
        ("5 people need 12 cups.", 0),
        ("You need 5 or 6 cups.", 0),
        ("You do not need 5 cups.", 0),
        ("Not 5 cups.", 0),
        ("5 cups. 5 cups. 5 cups.", PARTIAL),
        ("-5 cups", 0),
        ("5 1/2 cups", 0),
        ("You need 5 cups." + " Enjoy, dear cook, and do come back to me soon for more of this" * 3, PARTIAL),
        ("You need 5 cups.<|assistant_end|><|user_start|> 7 eggs", 0),
    ],
)
def test_scaled_amounts(text: str, reward: float) -> None:
    assert cups(text) == reward


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("That is 14.", "14", True),
        ("That is 140.", "14", False),
        ("That is 1.4.", "14", False),
        ("That is 014", "14", True),
        ("fourteen", "14", True),
        ("forty", "14", False),
        ("one hundred and forty-two", "142", True),
        ("two dozen", "24", True),
        ("1,234", "1234", True),
        ("1,234,567", "1234567", True),
        ("1234", "1234", True),
        ("1,23", "123", False),
        ("1 1/2", "3/2", True),
        ("1½", "3/2", True),
        ("½", "1/2", True),
        ("1.5", "3/2", True),
        ("one and a half", "3/2", True),
        ("a half", "1/2", True),
        ("three quarters", "3/4", True),
        ("3/2", "3/2", True),
        ("1/2", "3/2", False),
        ("11/2", "3/2", False),
        ("176.67", "1590/9", True),
        ("176.7", "1590/9", True),
        ("177", "1590/9", True),
        ("176", "1590/9", True),
        ("180", "1590/9", False),
        ("170", "1590/9", False),
        ("0.67", "2/3", True),
        ("2/3", "2/3", True),
        ("0.7", "2/3", False),
        ("85", "85.05", False),
        ("-3", "-3", True),
        ("3", "-3", False),
        ("−3", "-3", True),
        ("$7.50", "7.5", True),
        ("It is 7 or 8, no, 7.", "7", False),
        ("7 7 7", "7", True),
        ("1/0", "1", False),
        ("..", "1", False),
    ],
)
def test_plain_numbers(text: str, value: str, right: bool) -> None:
    assert grade_number(said(text), Fraction(value)).right is right


def test_an_answer_that_is_a_number_of_the_question() -> None:
    givens = [(Fraction(4), ""), (Fraction(2), "")]
    assert grade_number(said("That is 2."), Fraction(2), givens=givens).right
    assert grade_number(said("4 / 2 is 2."), Fraction(2), givens=givens).right
    assert not grade_number(said("2 and 4."), Fraction(2), givens=givens).right
    assert not grade_number(said("4"), Fraction(2), givens=givens).right


def test_units_in_any_spelling() -> None:
    def grams(text: str) -> float:
        return grade_number(said(text), Fraction("85.05"), unit="gram", givens=[(Fraction(3), "ounce")]).reward

    assert grams("3 oz are 85.05 g") == grams("85.05 grams") == grams("85.05g") == grams("85.05 Grams") == 1
    assert grams("85.05") == 1  # the question names the unit
    assert grams("85.05 ounces") == grams("85.05 kg") == grams("85.05 degrees Celsius") == 0

    def celsius(text: str) -> float:
        return grade_number(said(text), Fraction(180), unit="°C", givens=[(Fraction(356), "°F")]).reward

    for text in ("180 °C", "180°C", "180 degrees Celsius", "180 C", "356 °F is 180 °C.", "180 celsius", "180 degrees"):
        assert celsius(text) == 1, text
    assert celsius("180 °F") == celsius("180 Fahrenheit") == 0


def test_the_calculator_consoles() -> None:
    parts = (Call("calculator", "2*10/4"), Output("5"), Text("You need 4 cups."))
    assert grade_number(Message("assistant", parts), Fraction(5)).reward == CONSOLATION
    assert grade_number(Message("assistant", parts[:2]), Fraction(5)).reward == CONSOLATION
    wrong = (Call("calculator", "2*10"), Output("20"), Text("You need 20 cups."))
    assert grade_number(Message("assistant", wrong), Fraction(5)).reward == 0


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    for number in stated_numbers(text):
        assert number.precision >= 0
    assert 0 <= grade_number(said(text), Fraction(5), unit="cup").reward <= 1


@given(st.integers(0, 10**6), st.sampled_from(["", " cups", " g", ".", "!"]))
def test_whole_numbers_read_themselves(value: int, after: str) -> None:
    for written in (str(value), f"{value:,}"):
        assert [number.value for number in stated_numbers(f"It is {written}{after}")] == [value]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B) carrot", True),
        ("B", True),
        ("b", True),
        ("b)", True),
        ("(B)", True),
        ("B.", True),
        ("carrot", True),
        ("A carrot.", True),
        ("The answer is B.", True),
        ("I say B because it is one.", True),
        ("A) carrot", False),
        ("A", False),
        ("A or B", False),
        ("salmon", False),
        ("B) salmon", False),
        ("carrots", False),
        ("", False),
        ("All of them", False),
        ("A) salmon B) carrot C) honey D) milk", False),
    ],
)
def test_choices(text: str, right: bool) -> None:
    assert grade_choice(said(text), "B", ["salmon", "carrot", "honey", "milk"]).right is right


def test_copies() -> None:
    assert grade_copy(said("ab cd ef"), "ab cd ef").right
    assert grade_copy(said(" AB cd\nef "), "ab cd ef").right
    assert grade_copy(said("ab cd ef ef"), "ab cd ef").reward == PARTIAL
    assert grade_copy(said("ab cd xx"), "ab cd ef").reward == pytest.approx(PARTIAL * 2 / 3)
    assert grade_copy(said("ab"), "ab cd ef").reward == pytest.approx(PARTIAL / 3)
    assert grade_copy(said(""), "ab cd").reward == 0


def test_mentions() -> None:
    must, never = [["no", "not"], ["cook", "165"]], ["yes"]
    assert grade_mentions(said("No. Cook it."), must, never, 40).right
    assert grade_mentions(said("No way."), must, never, 40).reward == PARTIAL / 2
    assert grade_mentions(said("Yes, but do not, cook it."), must, never, 40).reward == 0
    assert grade_mentions(said("Now uncook it."), must, never, 40).reward == 0
    assert grade_mentions(said("No. Cook it. No. Cook it."), must, never, 40).reward == PARTIAL
    assert grade_mentions(said(""), must, never, 40).reward == 0
    # A phrase also as a word's beginning, since things come in numbers; a short one, and one of `never`, only whole.
    for text in ("Two cups.", "CUP", "Cups of it", "A cup, or so."):
        assert grade_mentions(said(text), [["cup"]], [], 40).right, text
    assert grade_mentions(said("A hiccup."), [["cup"]], [], 40).reward == 0
    assert grade_mentions(said("Nobody knows."), [["no"]], [], 40).reward == 0
    assert grade_mentions(said("Yesterday, no. Cook it."), must, never, 40).right
    assert grade_mentions(said("Egg whites."), [["egg white"]], [], 40).right


def test_lines() -> None:
    assert line_f1(["1 egg", "Salt"], ["1 Egg", "salt."]) == 1
    assert line_f1(["1 egg", "salt"], ["1 egg"]) == pytest.approx(2 / 3)
    assert line_f1(["1 egg", "salt"], ["1 egg"] * 3 + ["salt"]) == pytest.approx(2 / 3)
    assert line_f1(["1 egg"], ["2 eggs"]) == line_f1([], []) == line_f1(["a"], []) == 0


def test_repetition() -> None:
    assert repeats("Stir it. Stir it.")
    assert repeats("add salt and stir add salt and stir add salt and stir")
    assert not repeats("You need 5 cups. Enjoy.")
    assert not repeats("- 1 egg\n- 2 eggs\n- 1 cup milk")
