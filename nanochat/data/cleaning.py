"""Text as people type it, out of text as a wiki stores it.

`plain` settles typography: one dash, one quote, one space, one way to write a temperature, so that a small vocabulary
meets one form of each and not four. `unwiki` removes what a wiki's templates and markup left behind. Accents stay.
"""

import html
import re
import unicodedata

# Signs that a keyboard has, for those that typesetters and word processors put in their place.
TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "′": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "″": '"', "«": '"', "»": '"'}
    | {"–": "-", "‐": "-", "‑": "-", "‒": "-", "−": "-", "—": " - ", "―": " - "}
    | {"…": "...", "×": "x", "⁄": "/", "•": " ", "˚": "°", "º": "°"}
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff")  # soft hyphens, joiners, byte order marks: nothing to see
)
MARKUP = re.compile(r"[<{\[|*#:;•]|''|http|thumb")


def plain(text: str) -> str:
    """One line of `text` with plain dashes, quotes and spaces.

    >>> plain("Bake at 350 ˚F&nbsp;– 375° F — that’s hot…")
    "Bake at 350°F - 375°F - that's hot..."
    """
    text = unicodedata.normalize("NFC", html.unescape(text)).translate(TYPOGRAPHY)
    text = re.sub(r"(?<=\d) ?degrees (F|C)(?:ahrenheit|elsius)?\b", r"°\1", text)
    text = re.sub(r"(?<=\d)\s*°\s*(?=[FC]\b)", "°", text)
    return tidy(text)


def tidy(text: str) -> str:
    """`text` with one space between words, none before a comma and none inside parentheses."""
    text = re.sub(r"\(\s*(?:(?:or|about|approximately)\b)?[\s,;/]*\)", " ", text)  # "1 cup () raisins"
    text = re.sub(r"\(\s*[,;]?\s+", "(", text)
    text = re.sub(r"\s+([,;:!?)]|\.(?![\d.]))", r"\1", text)
    text = re.sub(r",(?=[a-zA-Z])", ", ", text)
    return " ".join(text.split())


def unwiki(text: str) -> str:
    """One line of wiki text without its markup: notes, tags, templates, links, captions, list signs, emphasis.

    >>> unwiki("#''Fry'' in [[Cookbook:Butter|butter]].<ref name='a'>Or oil.</ref>")
    'Fry in butter.'
    """
    if not MARKUP.search(text):
        return text.strip()
    text = re.sub(r"<ref[^>]*/>|<ref[^>]*>.*?(?:</ref>|$)", "", text)
    text = re.sub(r"<\s*/?\s*br\s*/?\s*>", " ", text)
    text = re.sub(r"</?[a-zA-Z][^<>]*>", "", text)  # but not "(<7)" or "< 40°F"
    text = re.sub(r"\{\{.*?(?:\}\}|$)|^\{\|.*$", "", text)
    text = re.sub(r"\[\[(?:[^\]|]*\|)?([^\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[?https?://[^\s\])]+[^\])]*\]?", "", text)
    # A picture's caption: glued to the sentence after it where it comes first, running to the end where it comes last.
    text = re.sub(r"^thumb\|.*?(?<=[a-z])(?=[A-Z])|^thumb(?=[A-Z])|\bthumb\|.*$", "", text)
    text = re.sub(r"^\W*'''(.+?)'''\s*(?=[A-Z])", lambda match: heading(match[1]), text)
    text = re.sub(r"'{2,}", "", text)
    text = re.sub(r"\(([^|()]*)\|([^|()]*)\)", r"(\2)", text)  # a link that lost its brackets
    return re.sub(r"^[\s*#:;•]+|\s[*#]+(?=[\sa-z])", "", text).strip()


def heading(words: str) -> str:
    """A bold opening, as text: with a colon, unless it ends in a sign of its own."""
    return f"{words} " if words.rstrip()[-1:] in ".:!?" else f"{words.rstrip()}: "
