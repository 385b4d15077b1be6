"""Units of the kitchen: what they are called and what they are worth.

Factors: the international yard and pound agreement of 1959 (1 oz = 28.349523125 g) and the US customary cup, rounded to
what cookbooks print, since an answer in a kitchen is not better for eight digits.
"""

import re
from dataclasses import dataclass
from fractions import Fraction


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


def fraction(text: str) -> Fraction:
    """The value of a plain, decimal or mixed number: "2", "2.5", "3/4", "1 1/2"."""
    return sum((Fraction(part) for part in re.split(r"\s+", text.strip())), Fraction(0))
