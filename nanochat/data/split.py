"""Which documents are held out: 1 in 20, decided by the title alone.

The decision is a hash of the title's family: what is left of it without case, accents, punctuation, parentheses,
word order, plural endings, small words, numerals at its end and words that name a variant. "Apple Pie I", "Apple pies,
II" and "Easy Apple Pie (Vegan)" are one family, so they fall on one side, on every machine and in every source; a model
that has read one of them is not tested on another.

Texts can be close where titles are not: the Cookbook's pancakes were written by copying. Measured over word 4-grams,
the one pair of recipes that shares more than 0.8 of them (Jaccard) is a pair of pancakes, and so are 32 of the 45 that
share more than half. Titles that name a dish of `SERIES` are therefore one family. Across the split no pair is then
left above 0.42, nor one where more than 0.62 of the shorter recipe stands in the longer. A test measures it.
"""

import re
import unicodedata
from collections.abc import Iterable

from nanochat.data.readers import Document
from nanochat.keyed import key

ONE_IN = 20
SERIES = frozenset({"pancake"})
ROMAN = re.compile(r"[ivx]+")
SMALL_WORDS = """a an the of and or with in on for from to by at de la le du des al alla con e y style recipe"""
VARIANTS = """basic best classic easy free gluten homemade imitation inspired original quick simple traditional vegan
    vegetarian"""
DROPPED = frozenset(SMALL_WORDS.split()) | frozenset(VARIANTS.split())


def held_out(title: str) -> bool:
    """Whether the document of that title is kept from training."""
    return key("held-out", family(title)) % ONE_IN == 0


def split_documents(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """(training, held out), both in the given order.

    A corpus too small for the draw still gets one family on each side, and one of a single family holds nothing out.
    """
    everything = list(documents)
    held = {family(document.title) for document in everything if held_out(document.title)}
    families = sorted({family(document.title) for document in everything}, key=lambda name: key("held-out", name))
    if len(held) in (0, len(families)):
        held = {families[0]} if len(families) > 1 else set()
    training = [document for document in everything if family(document.title) not in held]
    return training, [document for document in everything if family(document.title) in held]


def family(title: str) -> str:
    """The normal form that near-duplicates share.

    >>> family("Cookbook:Crêpes à l'Orange (Sweet) II"), family("orange crepe")
    ('crepe l orange', 'crepe orange')
    """
    whole = letters(title.removeprefix("Cookbook:"))
    words = re.findall(r"\w+", re.sub(r"\([^()]*\)", " ", whole)) or re.findall(r"\w+", whole)
    if len(words) > 1 and ROMAN.fullmatch(words[-1]):
        words.pop()
    kept = {singular(word) for word in words if word not in DROPPED} or {singular(word) for word in words}
    return next(iter(kept & SERIES), None) or " ".join(sorted(kept)) or title.strip()


def letters(text: str) -> str:
    """`text` without case and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in apart if not unicodedata.combining(sign))


def singular(word: str) -> str:
    """`word` without a plural ending, as far as a rule can tell; both numbers of a word end up the same."""
    if word.endswith(("ie", "ies")) and len(word) > 4:
        return f"{word.removesuffix('s')[:-2]}y"
    if word.endswith(("oes", "ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word
