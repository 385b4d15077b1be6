"""Tools that the model may call: a calculator, and `find`, which looks things up in the Cookbook and in our notes.

A tool is a function from one line of text to a text. The model writes `calculator 10/4*2` between `<|call_start|>` and
`<|call_end|>`; the engine runs `run_call` on it and feeds the answer back between `<|output_start|>` and
`<|output_end|>`. What a model writes is not to be trusted: the calculator walks Python's syntax tree itself, over the
few node types below, and every size is bounded before anything is computed. Nothing is ever evaluated by Python.
"""

import ast
import difflib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from typing import Protocol

from nanochat.errors import ToolError

MAX_EXPRESSION = 120  # characters
MAX_DEPTH = 20  # nested operations
MAX_DIGITS = 30  # in a numerator or denominator, of intermediate results too
MAX_EXPONENT = 100
EXACT_DECIMALS = 4  # a result that ends within so many decimals is printed exactly
ROUNDED_DECIMALS = 2  # any other is rounded to so many, or to three significant digits where that shows more
NO_RECIPE = "no recipe found"
NOTHING = "nothing found"


class Tool(Protocol):
    """Text in, text out. Raises ToolError with a message that the model may read."""

    name: str

    def __call__(self, argument: str) -> str: ...


def run_call(tools: Mapping[str, Tool], text: str) -> str:
    """The answer to a call written as "tool argument"; "error: ..." for a call that cannot be answered."""
    name, _, argument = text.strip().partition(" ")
    if name not in tools:
        return f"error: no such tool; use {' or '.join(tools) or 'none'}"
    try:
        return tools[name](argument.strip())
    except ToolError as error:
        return f"error: {error}"


# ---------------------------------------------------------------------------------------------------------------------
# The calculator
# ---------------------------------------------------------------------------------------------------------------------

# How people write, as Python writes it. A mixed number binds closest: 1 1/2*9/6 is (1+1/2)*9/6.
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "⁄": "/", "^": "**"})
# "½" is written "1/2" by Unicode's compatibility form.
VULGAR = {sign: unicodedata.normalize("NFKC", sign).replace("⁄", "/") for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
MIXED = re.compile(r"(?<![\d./)])(\d+)\s+(\d+/\d+)(?![\d.])")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
CONVERSION = re.compile(r"[^\W\d] (?:in|into|to|as) ", re.IGNORECASE)
ALLOWED = re.compile(r"[0-9+\-*/%(). ]+")


class Calculator:
    """Exact arithmetic on one line: `+ - * / // % **`, parentheses, decimals, fractions and mixed numbers.

    >>> Calculator()("3/4*10/4"), Calculator()("1 1/2*9/6"), Calculator()("(350-32)*5/9")
    ('1.875', '2.25', '176.67')

    Computed with fractions, printed as people write: whole numbers plain, a decimal exactly where it ends within four
    places, else rounded to two. Decimals and not cooks' fractions (1 7/8), so that one result has one form, which the
    model has only to copy.
    """

    name = "calculator"

    def __init__(self, convert: Callable[[str], str] | None = None) -> None:
        self.convert = convert  # what answers "3 ounces in grams"

    def __call__(self, argument: str) -> str:
        if self.convert is not None and CONVERSION.search(argument):
            return self.convert(argument[:MAX_EXPRESSION])
        return print_number(self.value(argument))

    def value(self, argument: str) -> Fraction:
        """The exact value of `argument`. Raises ToolError."""
        if len(argument) > MAX_EXPRESSION:
            raise ToolError("the expression is too long")
        text = as_python(argument)
        if not text:
            raise ToolError("write an expression, as in: calculator 10/4*2")
        if not ALLOWED.fullmatch(text):
            raise ToolError("use only numbers and + - * / // % ** ( )")
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ToolError("that is not an expression") from None
        try:
            return evaluate(tree.body, text, depth=0)
        except ZeroDivisionError:
            raise ToolError("division by zero") from None


def as_python(text: str) -> str:
    """`text` with mixed numbers, vulgar fractions, thousand separators and signs as Python writes them."""
    text = text.strip().removesuffix("=").translate(SIGNS)
    for sign, written in VULGAR.items():
        text = text.replace(sign, f" {written}")
    text = THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    return MIXED.sub(r"(\1+\2)", text.strip())


def evaluate(node: ast.expr, text: str, depth: int) -> Fraction:
    """The value of a syntax tree made of numbers, signs and operations; ToolError for any other node."""
    if depth > MAX_DEPTH:
        raise ToolError("the expression is nested too deeply")
    match node:
        case ast.Constant(value=int() | float()):
            # From the text, not from the float that Python read: 0.1 is one tenth.
            return bounded(Fraction(text[node.col_offset : node.end_col_offset]))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, text, depth + 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return evaluate(operand, text, depth + 1)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATIONS:
            operate = OPERATIONS[type(operator)]
            return bounded(operate(evaluate(left, text, depth + 1), evaluate(right, text, depth + 1)))
    raise ToolError("that is not an expression")


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """`base ** exponent` for whole exponents, refused before it is computed where it would be too large."""
    if exponent.denominator != 1:
        raise ToolError("only whole exponents")
    if abs(exponent) > MAX_EXPONENT:
        raise ToolError("the exponent is too large")
    digits = math.log10(max(abs(base.numerator), base.denominator)) * abs(int(exponent))
    if digits > MAX_DIGITS:
        raise ToolError("the number is too large")
    return Fraction(base ** int(exponent))


OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: a % b,
    ast.Pow: power,
}


def bounded(value: Fraction) -> Fraction:
    """`value`, or ToolError where it has too many digits."""
    if max(abs(value.numerator), value.denominator) >= 10**MAX_DIGITS:
        raise ToolError("the number is too large")
    return value


def print_number(value: Fraction) -> str:
    """`value` as people write it: "5", "1.875", "176.67".

    >>> print_number(Fraction(-5, 2)), print_number(Fraction(1, 3)), print_number(Fraction(1, 3000))
    ('-2.5', '0.33', '0.000333')
    """
    scale: int = 10**EXACT_DECIMALS
    if value.denominator == 1:
        return str(value.numerator)
    exact = (value * scale).denominator == 1
    decimals = EXACT_DECIMALS if exact else ROUNDED_DECIMALS
    if not exact and abs(value) < Fraction(1, 10):
        decimals = 3 - math.ceil(math.log10(abs(value)))
    with localcontext() as context:
        context.prec = 3 * MAX_DIGITS
        number = Decimal(value.numerator) / Decimal(value.denominator)
        written = format(number.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP), "f")
    return written.rstrip("0").rstrip(".")


# ---------------------------------------------------------------------------------------------------------------------
# Finding a dish
# ---------------------------------------------------------------------------------------------------------------------

MAX_QUERY = 100  # characters of a query that are looked at
MAX_QUERY_WORDS = 12
ONLY_QUERY, ONLY_TITLE = 0.6, 0.4
WITH = "with "  # how a query for ingredients begins
# "time of pancakes", "step 2 of pancakes", "pancakes for 6", "pancakes times 1/2 in grams"
ADAPTED = re.compile(
    r"(?:(?P<part>ingredients|time|servings|difficulty|step \d{1,2}) of )?(?P<dish>.*?)"
    r"(?: for (?P<people>\d{1,3})| times (?P<times>\d{1,2}(?:/\d{1,2})?))?(?P<grams> in grams)?",
    re.IGNORECASE | re.ASCII,
)
SUGGESTIONS = 3  # titles that "find with ..." names
CUT = "(shortened)"

# Words that say nothing about which dish is meant.
STOP = frozenset(
    re.findall(
        "[a-z]+",
        "a an the of for to in on with and or my me some please recipe recipes how do i make cook bake prepare good "
        "nice easy simple best classic homemade dish s",
    )
)


@dataclass(frozen=True)
class Wish:
    """What of a recipe is wanted ("" for all of it), and how: for so many people, or so many times, and by weight."""

    part: str = ""
    people: int | None = None
    times: Fraction | None = None
    grams: bool = False


class Find:
    """The text of the entry whose title is nearest to a name: `find tomatoe soup` answers with Tomato Soup.

    `find ingredients of pancakes`, `find step 2 of pancakes`, `find pancakes for 6`, `find pancakes times 1/2` and
    `find pancakes in grams` answer with what `adapt` makes of the entry. A query that begins with the name of a shelf
    of `notes`, as `find what is quinoa`, is answered from there.

    Titles and query are compared as sets of words, each weighed by how rare it is among the titles; a query word that
    no title has stands for the words most like it, and says nothing if it is one of `chatter`. The score is the weight
    of what they share, divided by itself plus 0.6 of what only the query has and 0.4 of what only the title has
    (Tversky 1977): between 0 and 1, and below `threshold` the answer is "no recipe found". `find with chicken, rice`
    names the titles whose text holds the most of these instead. Answers are cut at a line to at most `limit`
    characters.
    """

    name = "find"

    def __init__(
        self,
        entries: Mapping[str, str],
        limit: int = 700,
        threshold: float = 0.55,
        adapt: Callable[[str, Wish], str] | None = None,
        notes: Mapping[str, Callable[[str], str]] | None = None,
        chatter: Collection[str] = (),
    ) -> None:
        self.adapt, self.notes, self.chatter = adapt, dict(notes or {}), frozenset(chatter)
        self.entries = dict(entries)
        self.limit = limit
        self.threshold = threshold
        self.titles = {title.casefold(): title for title in self.entries}
        # "Frikadeller (Danish Meatballs)" answers to its whole title, to the name before the bracket and the one in it.
        named = [(title, name) for title in self.entries for name in title_names(title)]
        self.names = [(title, frozenset(words(name))) for title, name in named if words(name)]
        self.having: dict[str, list[int]] = defaultdict(list)
        for number, (_, parts) in enumerate(self.names):
            for part in sorted(parts):
                self.having[part].append(number)
        self.similar = Similar(self.having)

    def __call__(self, argument: str) -> str:
        argument = argument[:MAX_QUERY].strip()
        if not words(argument):
            raise ToolError("name a dish, as in: find pancakes")
        if argument.lower().startswith(WITH):
            titles = self.holding(argument)
            return f"You could make {either(titles)}." if titles else NO_RECIPE
        shelf = self.shelf(argument)
        if shelf is not None:
            return self.noted(shelf, argument[len(shelf) :])
        wish, title = wish_of(argument)[1], self.match(argument)
        return NO_RECIPE if title is None else self.shown(title, wish)

    def shown(self, title: str, wish: Wish) -> str:
        """What is wished of an entry, cut to the limit."""
        return cut(self.entries[title] if self.adapt is None or wish == Wish() else self.adapt(title, wish), self.limit)

    def noted(self, shelf: str, question: str) -> str:
        """What a shelf of notes says; the recipe, where the shelf is not sure and the question names a dish."""
        notes = self.notes[shelf]
        if isinstance(notes, Notes) and not notes.is_sure(question):
            title = self.match(question.strip())
            if title is not None:
                return self.shown(title, wish_of(question)[1])
        return notes(question)

    def shelf(self, query: str) -> str | None:
        """The shelf of notes that a query names with its first words."""
        return next((name for name in self.notes if query.lower().startswith(f"{name} ")), None)

    def match(self, query: str) -> str | None:
        """The best title for `query`; None where none is near enough, or where the query names ingredients.

        Of equals, a title without brackets and then the first entry.
        """
        if query.lower().startswith(WITH) or self.shelf(query) is not None:
            return None
        try:
            query = wish_of(query)[0]
        except ToolError:
            return None
        query = query[len(self.shelf(query) or "") :].strip()  # "time of tip how do I make pancakes"
        if query.casefold() in self.titles:
            return self.titles[query.casefold()]
        told = [word for word in words(query[:MAX_QUERY]) if word in self.having or word not in self.chatter]
        asked = [self.readings(word) for word in dict.fromkeys(told[:MAX_QUERY_WORDS])]
        total = sum(weight for _, weight in asked)
        shared: dict[int, float] = defaultdict(float)
        for readings, weight in asked:
            closest: dict[int, float] = {}
            for word, likeness in readings.items():
                for number in self.having[word]:
                    closest[number] = max(closest.get(number, 0.0), likeness)
            for number, likeness in closest.items():
                shared[number] += weight * likeness
        best, found = (0.0, False), None
        for number, both in sorted(shared.items()):
            title = self.names[number][0]
            score = both / (both + ONLY_QUERY * max(0.0, total - both) + ONLY_TITLE * (self.weights[number] - both))
            if (score, "(" not in title) > best:
                best, found = (score, "(" not in title), title
        return found if best[0] >= self.threshold else None

    def readings(self, word: str) -> tuple[dict[str, float], float]:
        """The title words that `word` may mean with how alike they are, and how much `word` weighs."""
        if word in self.having:
            return {word: 1.0}, self.weight(word)
        near = self.similar.to(word)
        # An unknown word weighs as much as the rarest known one, so that a made-up dish is not its last word.
        return near, self.weight(max(near, key=near.__getitem__)) if near else self.weight("")

    def weight(self, word: str) -> float:
        """How much a word tells: the logarithm of the share of names without it, from about 1 up."""
        return 1 + math.log(len(self.names) / (1 + len(self.having.get(word, ()))) + 1)

    @cached_property
    def weights(self) -> list[float]:
        """What the words of each name weigh together."""
        return [sum(map(self.weight, sorted(parts))) for _, parts in self.names]

    def holding(self, query: str) -> list[str]:
        """Up to three titles whose entries hold the most of the words of `query`, which begins with "with".

        Of equals, those that name the most of them in the title, then the shortest.
        """
        asked = set(words(query[len(WITH) :])[:MAX_QUERY_WORDS])
        counts: Counter[str] = Counter()
        for word in asked:
            counts.update(self.holders.get(word, ()))
        enough = max(1, math.ceil(len(asked) / 2))
        found = [title for title, count in counts.items() if count >= enough]
        found.sort(key=lambda title: (-counts[title], -len(asked & self.named[title]), len(self.entries[title]), title))
        return found[:SUGGESTIONS]

    @cached_property
    def named(self) -> dict[str, set[str]]:
        """Title -> its words."""
        return {title: set(words(title)) for title in self.entries}

    @cached_property
    def holders(self) -> dict[str, list[str]]:
        """Word -> the titles of the entries that hold it; made when it is first asked for."""
        holders: dict[str, list[str]] = defaultdict(list)
        for title, text in self.entries.items():
            for word in sorted(set(words(text))):
                holders[word].append(title)
        return dict(holders)


def either(names: Sequence[str]) -> str:
    """ "Pancakes, Waffles or Bread"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def wish_of(query: str) -> tuple[str, Wish]:
    """The dish that a query names and how it is wanted.

    >>> wish_of("ingredients of apple pie for 12 in grams")
    ('apple pie', Wish(part='ingredients', people=12, times=None, grams=True))
    """
    found = ADAPTED.fullmatch(query.strip())
    if found is None or not found["dish"].strip():
        return query, Wish()
    people, times = found["people"], found["times"]
    if (people and int(people) < 1) or (times and re.search(r"^0|/0", times)):
        raise ToolError("that many times is not possible")
    part = (found["part"] or "").lower()
    wish = Wish(part, int(people) if people else None, Fraction(times) if times else None, bool(found["grams"]))
    return found["dish"].strip(), wish


class Notes:
    """One shelf of short notes, each under several names; the one whose name shares most with a question.

    As for dishes, rare words weigh more; here what the question has beyond the name counts less against it, since
    people ask in whole sentences.
    """

    def __init__(
        self, notes: Sequence[tuple[Sequence[str], str]], threshold: float, surplus: float, sure: float = 0.0
    ) -> None:
        self.sure = sure  # from this score on nobody else need be asked
        self.texts = [text for _, text in notes]
        self.names = [
            (number, frozenset(plain_words(name))) for number, (names, _) in enumerate(notes) for name in names
        ]
        self.exact = {" ".join(plain_words(name)): number for number, (names, _) in enumerate(notes) for name in names}
        self.counts = Counter(word for _, name in self.names for word in name)
        self.similar = Similar(self.counts)
        self.threshold, self.surplus = threshold, surplus

    def __call__(self, question: str) -> str:
        found, score = self.match(question)
        return self.texts[found] if score >= self.threshold else NOTHING

    def is_sure(self, question: str) -> bool:
        """Whether a note fits so well that it must be meant."""
        return self.match(question)[1] >= self.sure

    def match(self, question: str) -> tuple[int, float]:
        """(number of the note nearest to `question`, how near it is, from 0 to 1)."""
        asked = plain_words(question[:MAX_QUERY])
        if " ".join(asked) in self.exact:
            return self.exact[" ".join(asked)], 1.0
        known = {word if word in self.counts else next(iter(self.similar.to(word)), word) for word in asked}
        total = sum(map(self.weight, sorted(known)))
        best, found = 0.0, 0
        for number, name in self.names:
            both = sum(map(self.weight, sorted(name & known)))
            only_name = sum(map(self.weight, sorted(name - known)))
            score = both / (both + self.surplus * (total - both) + ONLY_QUERY * only_name) if both else 0.0
            if score > best:
                best, found = score, number
        return found, best

    def weight(self, word: str) -> float:
        """How much a word tells: more where fewer names have it."""
        return math.log(1 + len(self.names) / (1 + self.counts[word]))


class Similar:
    """Words of a vocabulary that are spelled like a given one, by the letter pairs they share."""

    def __init__(self, vocabulary: Mapping[str, object]) -> None:
        self.having: dict[str, list[str]] = defaultdict(list)
        for word in vocabulary:
            for pair in pairs(word):
                self.having[pair].append(word)

    def to(self, word: str, at_least: float = 0.78, most: int = 4) -> dict[str, float]:
        """Up to `most` words that are at least so alike (difflib's ratio, from 0 to 1)."""
        if len(word) < 3:
            return {}
        shared: Counter[str] = Counter()
        for pair in pairs(word):
            shared.update(self.having.get(pair, ()))
        likely = [other for other, _ in shared.most_common(20)]
        ratios = {other: difflib.SequenceMatcher(None, word, other).ratio() for other in likely}
        near = sorted((-ratio, other) for other, ratio in ratios.items() if ratio >= at_least)
        return {other: -ratio for ratio, other in near[:most]}


def pairs(word: str) -> list[str]:
    """The letter pairs of a word, its ends marked; in order, so that counts have one order everywhere."""
    padded = f"^{word[:30]}$"
    return list(dict.fromkeys(padded[i : i + 2] for i in range(len(padded) - 1)))


def title_names(title: str) -> list[str]:
    """The names a title answers to: the whole, and what stands before and within its brackets."""
    before, bracket, within = title.partition("(")
    return [title, before, within.partition(")")[0]] if bracket else [title]


def words(text: str) -> list[str]:
    """The words of a text in their normal form: small letters, no accents, singular, without stop words.

    >>> words("Crème Brûlée II, the Tomatoes")
    ['creme', 'brulee', 'ii', 'tomato']
    """
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign)).replace("'", "").replace("’", "")
    found = re.findall(r"[^\W_]+", plain)
    return [singular(word) for word in found if word not in STOP]


def plain_words(text: str) -> list[str]:
    """The words of a note's name or a question: small letters, singular, without articles."""
    found = re.findall(r"[^\W_]+", text.lower().replace("'", "").replace("’", ""))
    return [singular(word) for word in found if word not in ("a", "an", "the", "some", "please")]


def singular(word: str) -> str:
    """A word without its plural ending, roughly: "tomatoes" -> "tomato", "berries" -> "berry"."""
    for ending, instead in (("ies", "y"), ("oes", "o"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def cut(text: str, limit: int) -> str:
    """`text`, or as many of its lines as fit into `limit` characters with a last line that says it is shortened."""
    if len(text) <= limit:
        return text
    lines = text[: max(0, limit - len(CUT))].split("\n")[:-1]
    while lines and (not lines[-1] or lines[-1].endswith(":")):  # a heading with nothing under it
        lines.pop()
    return "\n".join([*lines, CUT])
