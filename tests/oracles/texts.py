"""Texts that tokenizers stumble over, and one to learn from."""

import unicodedata
from pathlib import Path

import nanochat
from nanochat.keyed import rng

SCRIPTS = (
    "Grüße aus Köln, naïve façade, İstanbul ıŞıK, ǅ ﬁ ſ ẞ",
    "Съешь ещё этих мягких французских булок, да выпей чаю",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "敏捷的棕色狐狸跳过懒狗。いろはにほへと ちりぬるを、カタカナ。다람쥐 헌 쳇바퀴에 타고파",
    "हिन्दी में लिखना, বাংলা, தமிழ், ไทยไม่มีช่องว่าง, မြန်မာ",
    "نص عربيّ مع تشكيل ١٢٣٤٥, עִבְרִית ״שלום״",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 (╯°□°)╯︵ ┻━┻",
    "e\u0301 vs \u00e9, Z\u0351\u036b\u0343a\u0329\u032b\u0343l\u034e\u0323go",
    "\u200bzero\u200dwidth\ufeff, \x00\x1c\x1f\x7f\x85\xa0",
)
PROGRAM = (
    "def f(x):\n\tif x >= 10_000 and not x%2:   # don't\n\t\treturn {'a':[1,2,345,6789]}\r\n\r\n\r\n  \n      pass\n"
)
CONTRACTIONS = "I'm you're she'd we'll they've it's can't I'M YOU'RE SHE'D WE'LL THEY'VE IT'S CAN'T 'tis 'ſ ''s 'x"
LETTERS = "aAzZéßñЖ字あक가ع"
OTHERS = "0159²½٣Ⅷ  \t\n\r\u2003\u3000'’\"!?.,;:-–—_/\\|<>(){}[]@#$%^&*+=~`´\u0301\u200d\ufe0f👍🏽😀"


def every_character(size: int = 300) -> list[str]:
    """All that Unicode holds, in code order, cut into texts of `size` characters.

    Left out are code points that mean nothing yet to this Python: libraries differ in how new their tables are, and
    with them in what they call a letter. So a text may be cut otherwise there, and only there.
    """
    known = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    return ["".join(known[start : start + size]) for start in range(0, len(known), size)]


def mixed(number: int, seed: int = 0) -> list[str]:
    """`number` random texts of all kinds of pieces."""
    known = "".join(every_character())
    draw = rng(seed, "mixed texts")
    makers = (
        lambda: draw.choice(SCRIPTS),
        lambda: draw.choice(CONTRACTIONS.split()),
        lambda: "".join(draw.choices(known, k=draw.randrange(1, 8))),
        lambda: "".join(draw.choices(LETTERS, k=draw.randrange(1, 8))),
        lambda: "".join(draw.choices(OTHERS, k=draw.randrange(1, 8))),
        lambda: "".join(draw.choices(LETTERS + OTHERS, k=draw.randrange(1, 20))),
        lambda: draw.choice(LETTERS + OTHERS) * draw.randrange(1, 60),
        lambda: str(draw.randrange(10 ** draw.randrange(1, 15))),
        lambda: draw.choice(PROGRAM.splitlines(keepends=True)),
    )
    return ["".join(draw.choice(makers)() for _ in range(draw.randrange(1, 12))) for _ in range(number)]


def long_runs(length: int) -> list[str]:
    """One character, or a few, again and again."""
    return [
        unit * (length // len(unit)) for unit in ("a", " ", "\n", "0", "=", "ab", "é", "字", "👍", " \n", "' ", "xyz ")
    ]


def english() -> list[str]:
    """Some hundred kilobytes to learn from that are always at hand: this package's own source."""
    return [path.read_text(encoding="utf-8") for path in sorted(Path(nanochat.__file__).parent.rglob("*.py"))]
