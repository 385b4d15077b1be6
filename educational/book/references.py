"""Sources: `references.bib`, and the page `references.md` that is made from it."""

import re
from dataclasses import dataclass

from educational.book.chapter import Book, Fault

ENTRY = re.compile(r"^@(\w+)\s*\{\s*([^,\s]+)\s*,", re.MULTILINE)
ACCENTS = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303", "c": "\u0327", "v": "\u030c"}
LETTERS = {
    "\\o": "ø",
    "\\O": "Ø",
    "\\l": "ł",
    "\\L": "Ł",
    "\\ss": "ß",
    "\\ae": "æ",
    "\\aa": "å",
    "\\&": "&",
    "\\i": "i",
}
HEAD = """# References

Made from `references.bib` by `make guide-sync`. Each entry's anchor is its key.
"""


@dataclass(frozen=True)
class Entry:
    kind: str
    key: str
    line: int
    fields: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.fields.get(name, "")


def entries(book: Book) -> dict[str, Entry]:
    """Key -> entry, of the whole bibliography."""
    if not book.bibliography.exists():
        return {}
    text = book.bibliography.read_text(encoding="utf-8")
    found = list(ENTRY.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    made = {}
    for match, end in zip(found, ends, strict=True):
        line = text[: match.start()].count("\n") + 1
        made[match[2]] = Entry(match[1].lower(), match[2], line, fields(text[match.end() : end]))
    return made


def fields(body: str) -> dict[str, str]:
    """`name = {value}` pairs; braces may lie in braces, and quotes or a bare number may take their place."""
    found, place = {}, 0
    while match := re.compile(r"\s*,?\s*([\w-]+)\s*=\s*").match(body, place):
        place = match.end()
        if body[place : place + 1] == "{":
            end = closing(body, place)
            value, place = body[place + 1 : end], end + 1
        elif body[place : place + 1] == '"':
            end = body.index('"', place + 1)
            value, place = body[place + 1 : end], end + 1
        else:
            word = re.compile(r"[^\s,}]*").match(body, place)
            value, place = (word[0], word.end()) if word else ("", place)
        found[match[1].lower()] = plain(value)
    return found


def closing(body: str, start: int) -> int:
    """Where the brace that opens at `start` closes."""
    depth = 0
    for place in range(start, len(body)):
        depth += {"{": 1, "}": -1}.get(body[place], 0)
        if depth == 0:
            return place
    return len(body)


def plain(value: str) -> str:
    """A field without TeX: accents as letters, no braces, one space between words."""
    import unicodedata

    def accented(match: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", match[2] + ACCENTS[match[1]])

    value = re.sub(r"\\(['`\"^~])\s*\{?\\?(\w)\}?", accented, value)
    value = re.sub(r"\\([cv])\s*\{(\w)\}", accented, value)
    for tex, letter in LETTERS.items():
        value = re.sub(
            re.escape(tex) + r"(?![a-zA-Z])(\{\})?\s?" if tex[1].isalpha() else re.escape(tex), letter, value
        )
    value = value.replace("---", "—").replace("--", "–").replace("~", " ").replace("$", "")
    return " ".join(re.sub(r"[{}]", "", value).split())


def people(authors: str) -> str:
    """`Last, First and ...` or `First Last and ...` as a list of names that can be read."""
    names = []
    for name in authors.split(" and "):
        last, comma, first = name.partition(", ")
        names.append(f"{first} {last}" if comma else name)
    names = ["others" if name == "others" else name for name in names]
    if len(names) > 6:
        names = [*names[:5], "others"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def rendered(entry: Entry) -> str:
    """One entry as a paragraph of Markdown, with its anchor."""
    where = next(
        (entry[name] for name in ("journal", "booktitle", "publisher", "howpublished", "institution") if entry[name]),
        "",
    )
    if entry["eprint"] and "arxiv" not in where.lower():
        where = f"{where}, arXiv:{entry['eprint']}" if where else f"arXiv:{entry['eprint']}"
    address = entry["url"] or (f"https://doi.org/{entry['doi']}" if entry["doi"] else "")
    if not address and entry["eprint"]:
        address = f"https://arxiv.org/abs/{entry['eprint']}"
    found = re.search(r"https?://[^\s,]+", where)
    if found and not address:
        address = found[0]
    if found:
        where = where.replace(found[0], "").replace("\\url", "").strip(" ,")
    title = f"[{escaped(entry['title'])}]({address})" if address else f"*{escaped(entry['title'])}*"
    parts = [f"{people(entry['author'])} ({entry['year'] or 'no date'})", title, escaped(where), escaped(entry["note"])]
    return f'<a id="{entry.key}"></a>\n' + ". ".join(part.rstrip(".") for part in parts if part) + "."


def escaped(text: str) -> str:
    return re.sub(r"([*_`\[\]<>\\])", r"\\\1", text)


def page(book: Book) -> str:
    """The whole of `references.md`, by author and year."""
    listed = sorted(entries(book).values(), key=lambda e: (last_name(e), e["year"], e.key))
    return HEAD + "".join(f"\n{rendered(entry)}\n" for entry in listed)


def last_name(entry: Entry) -> str:
    first = entry["author"].split(" and ")[0]
    return (first.partition(",")[0] if "," in first else first.split(" ")[-1]).casefold()


def faults(book: Book) -> list[Fault]:
    """Entries that lack what a reader needs to find them, and keys that are there twice."""
    if not book.bibliography.exists():
        return []
    name = book.bibliography.relative_to(book.root).as_posix()
    found = []
    for entry in entries(book).values():
        lacking = [field for field in ("author", "title", "year") if not entry[field]]
        if lacking:
            found.append(Fault(name, entry.line, f"{entry.key} has no {', '.join(lacking)}"))
    keys = [match[2] for match in ENTRY.finditer(book.bibliography.read_text(encoding="utf-8"))]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    return found + [Fault(name, 1, f"{key} is there {keys.count(key)} times: keep one") for key in twice]
