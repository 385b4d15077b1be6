"""Numbers and names as people read them."""

import math
import re
from collections.abc import Sequence

from nanochat.evaluate.figures import Figure

ABSENT = "–"
STAGE_TEXT = {
    "tokenizer": "learns the vocabulary",
    "pretrain": "reads text",
    "midtrain": "learns skills and the chat format",
    "sft": "learns to answer people",
    "rl": "practises on questions that a program can check",
}
# name -> (title, what it says)
FIGURES = {
    "bpb": ("Bits per byte", "bits needed for each byte of held-out text; lower is better"),
    "bpb_recipes": ("Bits per byte, recipes", "bits needed for each byte of held-out recipes; lower is better"),
    "bpb_wiki": ("Bits per byte, Wikipedia", "bits needed for each byte of held-out articles; lower is better"),
    "calculator_accuracy": ("Sums", "new numbers in wordings seen in training, right to the last digit"),
    "calculator_accuracy_new_wording": ("Sums, new wordings", "new numbers in wordings never seen in training"),
    "find_accuracy": ("Dishes looked up", "questions about held-out dishes where it looked up the right recipe"),
    "recipe_accuracy": (
        "Recipe questions",
        "questions about held-out dishes with nothing wrong or missing in the answer",
    ),
    "ingredient_f1": ("Ingredient lists", "agreement (F1) of the listed ingredients with the recipe's own"),
    "copy_accuracy": ("Copying", "texts of the question repeated without a slip"),
    "unknown_accuracy": ("Honest about the unknown", "made-up dishes where it looked, and said that it has no recipe"),
    "follow_up_accuracy": (
        "Follow-ups",
        "questions after a recipe that do not name it again, with nothing wrong or missing",
    ),
    "notes_accuracy": (
        "Kitchen notes",
        "questions about food, substitutes and small advice answered as the notes have it",
    ),
    "talk_accuracy": (
        "Talk and limits",
        "small talk, safety and what it cannot know, in new wordings, answered sensibly",
    ),
    "stop_rate": ("Answers that end", "answers the model ended by itself"),
    "wellformed_rate": ("Answers well formed", "answers with every call and output in its place"),
    "choice_accuracy": ("Multiple choice", "questions with lettered answers, by the likeliest letter"),
}
# Control characters, and those that turn the direction of the text after them.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# A compressor's or an n-gram's figure: which figure of a model it stands beside, and what made it.
BASELINE = re.compile(r"(bpb.*?)_(xz|trigram|(\d+)gram)")


def title(name: str) -> str:
    """The name of a figure in words.

    >>> title("bpb_novels"), title("spelling_accuracy")
    ('Bits per byte, novels', 'Spelling accuracy')
    """
    if name in FIGURES:
        return FIGURES[name][0]
    words = name.replace("_", " ")
    return f"Bits per byte, {words.removeprefix('bpb ')}" if words.startswith("bpb ") else words.capitalize()


def explanation(name: str) -> str:
    """What a figure says; nothing for one that is not ours."""
    return FIGURES[name][1] if name in FIGURES else ""


def is_baseline(name: str) -> bool:
    """Whether a figure is a compressor's or an n-gram's, to compare the model with."""
    return BASELINE.fullmatch(name) is not None


def beside(baseline: str) -> str:
    """The figure of a model that a baseline stands beside; "" for what is none.

    >>> beside("bpb_wiki_xz"), beside("bpb_trigram"), beside("bpb_wiki")
    ('bpb_wiki', 'bpb', '')
    """
    match = BASELINE.fullmatch(baseline)
    return match[1] if match else ""


def baseline_title(name: str) -> str:
    """What made a baseline.

    >>> baseline_title("bpb_wiki_xz"), baseline_title("bpb_5gram")
    ('xz', '5-gram')
    """
    match = BASELINE.fullmatch(name)
    return name if match is None else f"{match[3]}-gram" if match[3] else match[2]


def value_text(figure: Figure) -> str:
    """The value of a figure with as many digits as its unit deserves."""
    if not math.isfinite(figure.value):
        return "no number"
    if figure.unit == "share":
        return f"{percent(figure.value, figure.n)} %"
    return plain(figure.value) if figure.unit == "bits/byte" else f"{plain(figure.value)} {figure.unit}".strip()


def interval_text(figure: Figure) -> str:
    """`88 to 97 %`; nothing where there is no interval."""
    if not figure.has_interval:
        return ""
    if figure.unit == "share":
        return f"{percent(figure.low, figure.n)} to {percent(figure.high, figure.n)} %"
    return f"{plain(figure.low)} to {plain(figure.high)}"


def percent(share: float, n: int) -> str:
    """Whole per cent, or tenths where there are a thousand examples, or where rounding would claim none or all.

    >>> percent(0.941, 200), percent(0.995, 200), percent(1.0, 200)
    ('94', '99.5', '100')
    """
    whole = f"{100 * share:.0f}"
    claims = whole in ("0", "100") and 0 < share < 1
    return f"{100 * share:.1f}" if claims or n >= 1000 else whole


def plain(value: float) -> str:
    """Four digits that matter.

    >>> plain(1.45231), plain(27.12), plain(12345.6)
    ('1.452', '27.1', '12,346')
    """
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"


def amount(value: float | None) -> str:
    """A count, rounded where it is large.

    >>> amount(812), amount(2_500_000), amount(None)
    ('812', '2.50 million', '–')
    """
    if value is None:
        return ABSENT
    size, word = scale(value)
    return f"{three_digits(value / size)} {word}" if word else f"{value:,.0f}"


def short_amount(value: float | None) -> str:
    """A count for a table.

    >>> short_amount(2_500_000)
    '2.50 M'
    """
    size, word = scale(value or 0)
    return f"{three_digits((value or 0) / size)} {word[0].upper()}" if word else amount(value)


def scale(value: float) -> tuple[float, str]:
    """The unit to count in, and its name."""
    names = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
    return next(((size, word) for size, word in names if value >= size), (1.0, ""))


def three_digits(value: float) -> str:
    """A number with three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def duration(minutes: float | None) -> str:
    """A time as one reads it.

    >>> duration(0.5), duration(13.84), duration(61), duration(150)
    ('30 s', '13.8 min', '1 h 1 min', '2 h 30 min')
    """
    if minutes is None:
        return ABSENT
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    if minutes < 60:
        return f"{minutes:.1f} min"
    whole = round(minutes)
    return f"{whole // 60:,} h {whole % 60} min"


def spoken(minutes: float) -> str:
    """A time in a sentence.

    >>> spoken(14.8), spoken(61)
    ('14.8 minutes', '1 hour 1 minute')
    """
    words = re.sub(
        r" (min|s|h)\b", lambda unit: {"min": " minutes", "s": " seconds", "h": " hours"}[unit[1]], duration(minutes)
    )
    return re.sub(r"\b1 (minute|hour)s", r"1 \1", words)


def visible(text: object) -> str:
    """A text without the characters that are acted on instead of shown: each becomes a replacement mark."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def joined(words: Sequence[str]) -> str:
    """`a, b and c`"""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def article(noun: str) -> str:
    """`an AMD EPYC`: by how its first word is said."""
    spelled = noun[:2].isupper() or noun[1:2] == "-"
    vowel = noun[:1] in ("AEFHILMNORSXn8" if spelled else "aeioAEIO8")
    return f"{'an' if vowel else 'a'} {noun}"
