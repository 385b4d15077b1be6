"""Units of the kitchen: what they are called and what they are worth.

Factors: the international yard and pound agreement of 1959 (1 oz = 28.349523125 g) and the US customary cup, rounded to
what cookbooks print, since an answer in a kitchen is not better for eight digits.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from nanochat.errors import ToolError
from nanochat.tools import print_number


@dataclass(frozen=True)
class Unit:
    """A unit: its names (the first two are singular and plural), its kind, and its worth in the kind's base unit."""

    names: tuple[str, ...]
    kind: str
    worth: str

    @property
    def singular(self) -> str:
        return self.names[0]

    @property
    def plural(self) -> str:
        return self.names[1]


UNITS = (
    Unit(("milliliter", "milliliters", "ml", "millilitre", "millilitres"), "metric volume", "1"),
    Unit(("liter", "liters", "l", "litre", "litres"), "metric volume", "1000"),
    Unit(("teaspoon", "teaspoons", "tsp", "tsps"), "volume", "1"),
    Unit(("tablespoon", "tablespoons", "tbsp", "tbsps"), "volume", "3"),
    Unit(("fluid ounce", "fluid ounces", "fl oz"), "volume", "6"),
    Unit(("cup", "cups"), "volume", "48"),
    Unit(("pint", "pints", "pt"), "volume", "96"),
    Unit(("quart", "quarts", "qt"), "volume", "192"),
    Unit(("gallon", "gallons", "gal"), "volume", "768"),
    Unit(("gram", "grams", "g", "gr"), "metric mass", "1"),
    Unit(("kilogram", "kilograms", "kg", "kilo", "kilos"), "metric mass", "1000"),
    Unit(("ounce", "ounces", "oz"), "mass", "1"),
    Unit(("pound", "pounds", "lb", "lbs"), "mass", "16"),
    Unit(("second", "seconds", "sec", "secs"), "time", "1"),
    Unit(("minute", "minutes", "min", "mins"), "time", "60"),
    Unit(("hour", "hours", "h", "hr", "hrs"), "time", "3600"),
    Unit(("day", "days"), "time", "86400"),
    Unit(("°C", "°C", "celsius", "c", "centigrade"), "temperature", "1"),
    Unit(("°F", "°F", "fahrenheit", "f"), "temperature", "1"),
    Unit(("dollar", "dollars", "$", "usd", "bucks"), "money", "100"),
    Unit(("cent", "cents"), "money", "1"),
)

BY_NAME = {name.lower(): unit for unit in UNITS for name in unit.names}

# From one family of units into the other.
BRIDGES = {
    ("cup", "milliliter"): "240",
    ("tablespoon", "milliliter"): "15",
    ("teaspoon", "milliliter"): "5",
    ("fluid ounce", "milliliter"): "30",
    ("ounce", "gram"): "28.35",
    ("pound", "gram"): "454",
}


def unit_named(name: str) -> Unit | None:
    """The unit that `name` means, in any spelling of ours; None for any other word."""
    return BY_NAME.get(name.lower().strip(". "))


def amount(number: str, unit: Unit) -> str:
    """A number with its unit, as one says it.

    >>> amount("1", BY_NAME["cups"]), amount("2.5", BY_NAME["cup"]), amount("180", BY_NAME["c"])
    ('1 cup', '2.5 cups', '180 °C')
    """
    if unit.singular == "dollar":
        return f"${number}"
    return f"{number} {unit.singular if number in ('1', '1/2', '1/3', '1/4', '2/3', '3/4') else unit.plural}"


ASKED = re.compile(
    r"\s*([\d./ ]+?)\s*(?:degrees?\s+)?((?:°|[^\W\d]).*?) (?:in|into|to|as) (?:degrees?\s+)?(.+?)\s*", re.IGNORECASE
)


def convert(asked: str) -> str:
    """The answer to "3 ounces in grams". Raises ToolError for units that are unknown or of two kinds.

    >>> convert("3 ounces in grams"), convert("350 °F in celsius"), convert("2 tablespoons in teaspoons")
    ('85.05 grams', '176.67 °C', '6 teaspoons')
    """
    found = ASKED.fullmatch(asked)
    one, other = (unit_named(found[2]), unit_named(found[3])) if found else (None, None)
    if found is None or one is None or other is None:
        raise ToolError("write an amount and two units, as in: calculator 3 ounces in grams")
    try:
        value = converted(fraction(found[1]), one, other)
    except (ValueError, ZeroDivisionError):
        raise ToolError("that is not a number") from None
    return amount(print_number(value), other)


def converted(value: Fraction, one: Unit, other: Unit) -> Fraction:
    """`value` of one unit in another. Raises ToolError where they measure different things."""
    if {one.kind, other.kind} == {"temperature"}:
        if one is other:
            return value
        return (value - 32) * 5 / 9 if other.singular == "°C" else value * 9 / 5 + 32
    if one.kind == other.kind:
        return value * fraction(one.worth) / fraction(other.worth)
    # The bridge that starts at one of the two units, else any between their kinds: kitchens round each on its own.
    ends = {one.singular, other.singular}
    for (name, into), factor in sorted(BRIDGES.items(), key=lambda bridge: bridge[0][0] not in ends):
        customary, metric = BY_NAME[name], BY_NAME[into]
        if (one.kind, other.kind) == (customary.kind, metric.kind):
            each = fraction(factor) / fraction(customary.worth)
            return value * fraction(one.worth) * each / fraction(other.worth)
        if (one.kind, other.kind) == (metric.kind, customary.kind):
            each = fraction(factor) / fraction(customary.worth)
            return value * fraction(one.worth) / each / fraction(other.worth)
    raise ToolError(f"{one.plural} and {other.plural} measure different things")


def fraction(text: str) -> Fraction:
    """The value of a plain, decimal or mixed number: "2", "2.5", "3/4", "1 1/2"."""
    return sum((Fraction(part) for part in re.split(r"\s+", text.strip())), Fraction(0))
