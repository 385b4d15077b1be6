"""Amounts in kitchen text: one way to write them, a parser, a printer.

The Cookbook writes "3½ ounces (100g)", "1 &frac12; tbsp", "½–1 tsp", "4 to 6". `normal_amounts` writes all of them as
a calculator takes them: "3 1/2 ounces (100 g)", "1 1/2 tablespoons", "1/2-1 teaspoon", "4-6". Kitchen measures are
spelled out, metric ones are symbols. `quantity` reads such a line, `format_amount` prints a fraction, `scaled`
multiplies a line.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from nanochat.tools import VULGAR

VULGAR_SIGN = re.compile(f"((?<=[0-9]) ?)?([{''.join(VULGAR)}])")
AMOUNT = re.compile(f"[0-9{''.join(VULGAR)}]")
NUMBER = r"(?:\d+ \d+/\d+|\d+/\d+|\d+\.\d+|\.\d+|\d+)"

# What we write: what is written ("_" for a space).
METRIC = {
    "g": "g gr gm gms gram grams gramme grammes",
    "kg": "kg kgs kilo kilos kilogram kilograms",
    "mg": "mg milligram milligrams",
    "ml": "ml mls milliliter milliliters millilitre millilitres",
    "dl": "dl deciliter deciliters decilitre decilitres",
    "cl": "cl centiliter centiliters centilitre centilitres",
    "L": "l liter liters litre litres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
}
CUSTOMARY = {
    "teaspoon": "tsp tsps teaspoon teaspoons",
    "tablespoon": "tbsp tbsps tbs tbl tbls tblsp tablespoon tablespoons",
    "fluid ounce": "fl_oz fl._oz fluid_ounce fluid_ounces",
    "ounce": "oz ounce ounces",
    "pound": "lb lbs pound pounds",
    "cup": "cup cups",
    "pint": "pt pint pints",
    "quart": "qt qts quart quarts",
    "gallon": "gal gallon gallons",
}
CONTAINERS_AND_PIECES = """bag block bottle bowl box bunch can carton clove container cube dash drop ear fillet glass
    handful head jar knob leaf loaf pack package packet part piece pinch rib scoop sheet slab slice splash spoonful
    sprig stalk stick strip tin volume"""
COUNTED = tuple(CONTAINERS_AND_PIECES.split())
# Things that are counted by themselves, so that two of "1 small onion, diced" are "2 small onions, diced".
FOODS = """apple avocado banana breast carrot chicken chile chili cucumber egg eggplant leaf leek lemon lime mango olive
    onion orange peach pear pepper potato radish sausage scallion shallot tomato tortilla white yolk zucchini"""
THINGS = tuple(FOODS.split())
IRREGULAR = {"leaf": "leaves", "loaf": "loaves", "mango": "mangoes", "potato": "potatoes", "tomato": "tomatoes"}
SPELLINGS = {word.replace("_", " "): unit for unit, words in (METRIC | CUSTOMARY).items() for word in words.split()}


def plural(unit: str) -> str:
    """Two of `unit`. Symbols do not change."""
    if unit in METRIC:
        return unit
    words, last = unit[: unit.rfind(" ") + 1], unit[unit.rfind(" ") + 1 :]
    return words + (IRREGULAR.get(last) or last + ("es" if last.endswith(("ch", "sh", "x", "ss")) else "s"))


def either(words: Iterable[str]) -> str:
    """A pattern for any of `words`, the longest first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


UNIT_FORMS = {form: unit for unit in (*CUSTOMARY, *METRIC, *COUNTED) for form in (unit, plural(unit))}
THING_FORMS = {form: thing for thing in THINGS for form in (thing, plural(thing))}
UNIT = re.compile(rf"(?P<size>\(?{NUMBER}-[a-z]+\)? )?(?P<unit>{either(UNIT_FORMS)})(?![\w-]) *")
THING = re.compile(
    rf"(?P<words>(?:(?!(?:of|or|and|{either(UNIT_FORMS)})\b)[a-z-]+ ){{,3}})"
    rf"(?P<thing>{either(THING_FORMS)})(?=$|,| \(| or ) *"
)
# The full stop of an abbreviation goes, the one that ends a sentence stays.
MEASURE = re.compile(
    rf"(?P<number>(?:{NUMBER}-)?{NUMBER})(?P<gap>[ -]?)(?P<unit>{either(SPELLINGS)})"
    rf"(?:\.(?=\s+(?-i:[a-z(])|[,)/;]))?(?![\w-])",
    re.IGNORECASE,
)
# "15 oz can" -> "15-ounce can": the size of a can, not an amount of cans.
CONTAINER = re.compile(
    r"(\d) (ounce|pound|pint|quart|gallon)s?"
    r"(?=\)? (?:can|jar|package|packet|bag|box|bottle|tin|tub|carton|container)s?\b)"
)


@dataclass(frozen=True)
class Quantity:
    """The head of an ingredient line: `low` to `high` (equal where no range is given) of `unit`.

    The unit is a measure or what is counted, in the singular ("15-ounce can", "small onion"); "" where it is unknown.
    `str` prints the line again, so that a changed quantity is a changed line.
    """

    low: Fraction
    high: Fraction
    unit: str
    rest: str
    about: bool = False
    decimal: bool = False  # written 0.5, not 1/2

    def __str__(self) -> str:
        show = format_decimal if self.decimal or self.unit in METRIC else format_amount
        amount = show(self.low) if self.low == self.high else f"{show(self.low)}-{show(self.high)}"
        words = ["about"] * self.about + [amount, counted(self.unit, self.high), self.rest]
        return " ".join(word for word in words if word).replace(" ,", ",")


def quantity(line: str) -> Quantity | None:
    """The amount that opens a normalised ingredient line; None for a line that opens with none, or with a size.

    >>> quantity("1 1/2 cups (180 g) flour")
    Quantity(low=Fraction(3, 2), high=Fraction(3, 2), unit='cup', rest='(180 g) flour', about=False, decimal=False)
    """
    head = re.match(rf"(?P<about>[Aa]bout )?(?P<low>(?>{NUMBER}))(?:-(?P<high>(?>{NUMBER})))?(?P<rest>[ ,].*|$)", line)
    if head is None:
        return None
    low, high = fraction(head["low"]), fraction(head["high"] or head["low"])
    rest = head["rest"].lstrip(" ")
    unit, tail = leading_unit(rest)
    decimal = "." in head["low"] or "." in (head["high"] or "")
    return Quantity(low, high, unit, tail, head["about"] is not None, decimal) if 0 < low <= high else None


def leading_unit(text: str) -> tuple[str, str]:
    """The unit that `text` opens with, and what follows it; ("", text) where it opens with none."""
    if found := UNIT.match(text):
        return (found["size"] or "") + UNIT_FORMS[found["unit"]], text[found.end() :]
    if found := THING.match(text):
        return found["words"] + THING_FORMS[found["thing"]], text[found.end() :]
    return "", text


def fraction(text: str) -> Fraction:
    """The number that a NUMBER stands for: "1 1/2" is 3/2. A denominator of nought counts as no number: 0."""
    try:
        return sum((Fraction(part) for part in text.split()), Fraction(0))
    except ZeroDivisionError:
        return Fraction(0)


def format_amount(amount: Fraction) -> str:
    """A fraction as a cook writes it, exactly: 3/2 is "1 1/2"."""
    whole, part = divmod(amount.numerator, amount.denominator)
    if part == 0:
        return str(whole)
    return f"{whole} {part}/{amount.denominator}" if whole else f"{part}/{amount.denominator}"


def format_decimal(amount: Fraction) -> str:
    """A fraction with at most two decimals: 3/2 is "1.5", 100/3 is "33.33"."""
    return f"{float(amount):.2f}".rstrip("0").rstrip(".")


def counted(unit: str, amount: Fraction) -> str:
    """`unit` as it stands after `amount`: 1 cup and 1/2 cup, but 2 cups."""
    return plural(unit) if unit and amount > 1 else unit


def scaled(line: str, factor: Fraction) -> str | None:
    """`line` times `factor`, with the equivalents in parentheses; None where it holds amounts that we cannot place.

    >>> scaled("1 1/2 cups (180 g) flour", Fraction(2))
    '3 cups (360 g) flour'
    """
    found = quantity(line)
    if found is None:
        return None
    equivalents, rest = re.match(r"(\([^()]*\))?(.*)", found.rest, re.DOTALL).groups("")  # type: ignore[union-attr]
    if re.search(r"\d", rest):
        return None  # "1 cup plus 2 tablespoons": more than one amount
    if found.unit in CUSTOMARY or found.unit in METRIC:
        equivalents = MEASURE.sub(lambda match: times(match, factor), equivalents)
    # After a count the parentheses hold the size of each, as in "2 (14-ounce) cans": that stays.
    return str(replace(found, low=found.low * factor, high=found.high * factor, rest=equivalents + rest))


def times(match: re.Match[str], factor: Fraction) -> str:
    """A measure inside a line, times `factor`."""
    found = quantity(match[0])
    if found is None:
        return match[0]
    return str(replace(found, low=found.low * factor, high=found.high * factor))


def normal_amounts(text: str) -> str:
    """`text`, its typography already plain, with every amount in its one form.

    >>> normal_amounts("~1 ½ tbsp or 3 to 4 oz.")
    'about 1 1/2 tablespoons or 3-4 ounces.'
    """
    if not AMOUNT.search(text):
        return text
    text = re.sub(rf"(?<=\d) ea\b\.?(?= {AMOUNT.pattern})", " x", text)  # "12 ea. ½-inch slices": not twelve and a half
    text = VULGAR_SIGN.sub(lambda match: " " * (match[1] is not None) + VULGAR[match[2]], text)
    text = re.sub(r"~ ?(?=\d)|\b[Aa]pprox(?:imately)?\b\.? (?=\d)", "about ", text)
    text = re.sub(r"(?<![\d.,])(\d{1,3}),(\d{3})(?![\d,])", r"\1\2", text)
    text = re.sub(rf"({NUMBER}) ?- ?(?={NUMBER})", r"\1-", text)
    # "1-1/2 cups" falls, so it is no range: it is one and a half.
    text = re.sub(r"(?<![\d./-])([1-9]\d?)-(?=[1-7]/[2-8](?!\d))", r"\1 ", text)
    text = re.sub(rf"(?<!from )(?<!ratio )(?<!of )\b({NUMBER}) to (?={NUMBER}(?!\.?\d|:))", r"\1-", text)
    text = re.sub(rf"^({NUMBER}) or (?={NUMBER} [a-z])", r"\1-", text)
    text = re.sub(r"(?<=\d) ea\b\.?", "", text)
    return CONTAINER.sub(r"\1-\2", MEASURE.sub(normal_measure, text))


def normal_measure(match: re.Match[str]) -> str:
    """A number and a unit as we write them."""
    unit = SPELLINGS[match["unit"].lower()]
    if match["gap"] == "-":
        return f"{match['number']}-{unit}"  # "a 6-ounce fillet"
    last = re.findall(NUMBER, match["number"])[-1]
    return f"{match['number']} {counted(unit, fraction(last))}"


# ---------------------------------------------------------------------------------------------------------------------
# By weight
# ---------------------------------------------------------------------------------------------------------------------

# Grams of a US cup, rounded to what kitchen scales show: USDA FoodData Central's household weights and the weights that
# flour mills print. A name is looked for in the line; the longest that is found counts.
GRAMS_OF_A_CUP = {
    "flour": 125, "sugar": 200, "brown sugar": 210, "powdered sugar": 120, "confectioners' sugar": 120,
    "confectioner's sugar": 120, "icing sugar": 120, "butter": 225, "margarine": 225, "shortening": 190, "lard": 205,
    "ghee": 215, "rice": 190, "oats": 90, "oatmeal": 90, "cocoa": 85, "cornmeal": 150, "cornstarch": 125,
    "starch": 125, "bread crumbs": 110, "breadcrumbs": 110, "cheese": 110, "cheddar": 110, "mozzarella": 110,
    "parmesan": 100, "cream cheese": 230, "cottage cheese": 225, "ricotta": 250, "sour cream": 240, "yogurt": 245,
    "yoghurt": 245, "honey": 340, "syrup": 320, "molasses": 330, "peanut butter": 255, "mayonnaise": 225,
    "ketchup": 240, "mustard": 240, "jam": 320, "raisins": 150, "currants": 145, "dates": 150, "walnuts": 115,
    "pecans": 110, "almonds": 140, "cashews": 140, "peanuts": 145, "nuts": 120, "chocolate chips": 170,
    "chocolate": 170, "coconut": 85, "sesame seeds": 145, "onion": 150, "onions": 150, "carrot": 120, "carrots": 120,
    "celery": 110, "pepper": 150, "peppers": 150, "mushrooms": 80, "tomato": 180, "tomatoes": 180, "spinach": 30,
    "cabbage": 90, "peas": 145, "corn": 165, "beans": 180, "chickpeas": 165, "lentils": 190, "potatoes": 150,
    "apple": 120, "apples": 120, "bananas": 225, "banana": 225, "pumpkin": 240, "strawberries": 150,
    "blueberries": 150, "raspberries": 125, "cranberries": 100, "parsley": 30, "cilantro": 20, "basil": 25, "salt": 290,
    "ham": 140, "chicken": 140, "macaroni": 110, "pasta": 110, "semolina": 165, "bulgur": 140, "couscous": 175,
    "wheat germ": 115, "bran": 60, "marshmallows": 50, "graham cracker crumbs": 100,
}  # fmt: skip
LIQUIDS = """water milk buttermilk cream oil vinegar wine broth stock juice beer rum brandy vodka sherry whiskey coffee
    tea sauce vanilla extract half-and-half liqueur coconut_milk coconut_cream coconut_water rice_vinegar rice_wine
    apple_juice apple_cider cider tomato_juice tomato_sauce peanut_oil sesame_oil almond_milk almond_extract corn_oil
    chicken_stock chicken_broth pepper_sauce egg_whites"""
# What one of each customary unit is: grams of weight, milliliters of volume.
GRAMS = {"ounce": Fraction("28.35"), "pound": Fraction("453.6"), "stick": Fraction(113)}
MILLILITERS = {"tablespoon": 15, "fluid ounce": 30, "cup": 240, "pint": 475, "quart": 950, "gallon": 3785}
KNOWN_WEIGHT = re.compile(rf"\((?:about )?(?P<metric>(?:{NUMBER}-)?{NUMBER} (?:g|kg|ml|L))\)\s*(?P<rest>.*)", re.DOTALL)
BY_NAME = {name: Fraction(weight, 240) for name, weight in GRAMS_OF_A_CUP.items()} | {
    name.replace("_", " "): None for name in LIQUIDS.split()
}
NAME = re.compile(rf"\b(?:{either(BY_NAME)})\b", re.IGNORECASE)


def in_grams(line: str) -> str:
    """An ingredient line by weight, liquids in milliliters; as it is where nobody can know.

    Spoons of less than a tablespoon stay, and so does what is counted.

    >>> in_grams("1 1/2 cups flour"), in_grams("1/2 cup milk"), in_grams("8 ounces (225 g) beef"), in_grams("2 eggs")
    ('190 g flour', '120 ml milk', '225 g beef', '2 eggs')
    """
    found = quantity(line)
    if found is None or found.unit in METRIC:
        return line
    if known := KNOWN_WEIGHT.fullmatch(found.rest):
        thing = "" if found.unit in (*CUSTOMARY, *COUNTED) else counted(found.unit, found.high)
        if known["metric"].endswith("g") or measure_of("cup", known["rest"])[1] == "ml":
            return " ".join(w for w in (known["metric"], thing, known["rest"]) if w).replace(" ,", ",")
        found = replace(found, rest=known["rest"])
    if re.match(r"plus|and|or|\(", found.rest) or (found.unit == "stick" and "butter" not in found.rest):
        return line
    each, unit = measure_of(found.unit, found.rest)
    if each is None:
        return line
    low, high = handy(found.low * each), handy(found.high * each)
    amount = f"{low}" if low == high else f"{low}-{high}"
    return " ".join(word for word in ("about" * found.about, amount, unit, found.rest) if word)


def measure_of(unit: str, what: str) -> tuple[Fraction | None, str]:
    """(how many, "g" or "ml") one `unit` of `what` is; (None, "") where that is not known."""
    if unit in GRAMS:
        return GRAMS[unit], "g"
    if unit not in MILLILITERS:
        return None, ""
    volume = Fraction(MILLILITERS[unit])
    # What follows a comma is what is done to it, not what it is: "rice, cooked in milk".
    names = [match[0].lower() for match in NAME.finditer(what.partition(",")[0])]
    if unit == "fluid ounce":
        return volume, "ml"
    if not names:
        return None, ""
    if "powder" in what and "milk" in names:
        return None, ""
    density = BY_NAME[max(names, key=lambda name: (len(name.split()), names.index(name)))]
    return (volume, "ml") if density is None else (volume * density, "g")


def handy(amount: Fraction) -> int:
    """A weight as one weighs it: to 5 g from 50 g on, else to 1 g."""
    step = 5 if amount >= 50 else 1
    return max(1, step * round(amount / step))
