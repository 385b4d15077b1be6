"""From one unit of the kitchen into another: cups and spoons, grams and ounces, Celsius and Fahrenheit."""

import random
from collections.abc import Mapping

from nanochat import keyed
from nanochat.tasks.arithmetic import grade_calculation
from nanochat.tasks.measures import BRIDGES, BY_NAME, UNITS, Unit, convert, fraction
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import wordings
from nanochat.tokenizer.chat import Call, Message, Output, Text

AMOUNTS = wordings("units.amounts")
HEAT = wordings("units.heat")
CELSIUS = (" °C", "°C", " degrees Celsius", " C", " celsius")
FAHRENHEIT = (" °F", "°F", " degrees Fahrenheit", " F", " fahrenheit")
FORMULA = {"celsius": "({n}-32)*5/9", "fahrenheit": "{n}*9/5+32"}
ANSWER = {"celsius": "°C", "fahrenheit": "°F"}

SMALL = ("1/4", "1/2", "3/4", "1", "1 1/2", "2", "2 1/2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "16", "20")
LARGE = tuple(str(number) for number in (*range(25, 500, 25), *range(500, 3001, 100)))


def pairs() -> list[tuple[Unit, Unit, str]]:
    """(from, to, what is done to the number) for every pair that a kitchen needs."""
    found = []
    for one in UNITS:
        for other in UNITS:
            same = one.kind == other.kind and one != other and one.kind not in ("temperature", "money")
            ratio = fraction(other.worth) / fraction(one.worth)
            if same and ratio.denominator == 1 and ratio in (1000, *range(2, 61)):
                found += [(one, other, f"/{ratio}"), (other, one, f"*{ratio}")]
    for (name, into), factor in BRIDGES.items():
        there, back = BY_NAME[name], BY_NAME[into]
        found += [(there, back, f"*{factor}"), (back, there, f"/{factor}")]
    return found


PAIRS = pairs()


class Units:
    """A conversion, worked out by one call of the calculator, which knows the factors."""

    name = "units"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        heat = draw.random() < 0.3
        fields = drawn_heat(draw) if heat else drawn_amount(draw)
        while not on_side(split, fields["expression"]):
            fields = drawn_heat(draw) if heat else drawn_amount(draw)
        question = (HEAT if heat else AMOUNTS).ask(split, draw, fields)
        unit = BY_NAME[fields["unit"].lower()]
        asked = f"{fields['n']} {question.fields['of'].strip()} in {question.fields['to']}"
        result = convert(asked)
        truth: dict[str, object] = {
            "kind": "heat" if heat else "amounts",
            "expression": fields["expression"],
            "unit": unit.singular,
            "givens": [[fields["n"], fields["from_unit"]]],
        }
        reply = Call("calculator", asked), Output(result), Text(f"That is {result}.")
        return Example(dialogue(question.text, reply), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        return grade_calculation(example, reply)


def drawn_amount(draw: random.Random) -> Mapping[str, str]:
    """An amount, the unit it is in and the one that is wanted, under any of their names."""
    one, other, change = draw.choice(PAIRS)
    fine = one.singular in ("gram", "milliliter")
    n = draw.choice(LARGE if fine else SMALL)
    if change[0] == "/" and not fine and fraction(change[1:]) <= 60:  # mostly what divides well
        n = str(int(change[1:]) * draw.randint(1, 8)) if draw.random() < 0.6 else n
    of = draw.choice((one.plural, one.plural, *one.names[2:3]))
    to = draw.choice((other.plural, other.plural, other.plural, *other.names[2:3]))
    of = one.singular if of == one.plural and fraction(n) <= 1 else of
    return {"n": n, "of": of, "to": to, "from_unit": one.singular, "unit": other.singular, "expression": n + change}


def drawn_heat(draw: random.Random) -> Mapping[str, str]:
    """A temperature of an oven, a pot or a fridge."""
    into = draw.choice(("celsius", "fahrenheit"))
    to_celsius = into == "celsius"
    n = str(draw.choice(range(30, 501, 5)) if to_celsius else draw.choice(range(0, 261, 5)))
    of = draw.choice(FAHRENHEIT if to_celsius else CELSIUS)
    to = draw.choice((into, into.capitalize(), ANSWER[into], f"degrees {into.capitalize()}"))
    n, of = (n, of[1:]) if of.startswith(" ") else (n, of)
    unit, other = ("°C", "°F") if to_celsius else ("°F", "°C")
    return {"n": n, "of": of, "to": to, "from_unit": other, "unit": unit, "expression": FORMULA[into].format(n=n)}
