"""The file `tokenizer.json`: a vocabulary as Hugging Face's `tokenizers` reads it. It is the only form we store.

The file spells tokens as text, but tokens are bytes, and many are not text. GPT-2's way round it, which everybody kept,
is an alphabet of 256 printable characters, one a byte: bytes that print as themselves in Latin-1 stay, the others move
to U+0100 and up. A space is "Ġ", a line's end "Ċ":

    >>> spell(" é\\n".encode())
    'ĠÃ©Ċ'

What the file says is what `bpe.py` does: cut by a regular expression (`Split`), spell the bytes (`ByteLevel`), merge.
`read` accepts that and nothing else, since a file that asks for lower case or a prefix would give other ids than ours.

One difference remains, and it is why we do not encode with `tokenizers` ourselves: it finds the special tokens in the
text too, so there whoever types "<|user_end|>" ends the user's turn.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nanochat.errors import TokenizerError
from nanochat.files import write_atomically

FILE = "tokenizer.json"
REMEDY = "copy the file again or train a tokenizer with `nanochat tokenizer`"


def byte_alphabet() -> str:
    """256 characters: the one at place b stands for byte b."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


ALPHABET = byte_alphabet()


class Parts(NamedTuple):
    """What a file holds, in the terms of `Tokenizer`."""

    pattern: str
    byte_ids: list[int]
    merges: list[tuple[int, int]]
    specials: dict[str, int]


def spell(data: bytes) -> str:
    """Bytes as characters of the alphabet."""
    return data.decode("latin-1").translate(ALPHABET)  # a str, too, maps code points: by position


def frame(pattern: str) -> dict[str, Any]:
    """All of the file that is the same for every vocabulary of ours."""
    pieces = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    spelling = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [pieces, spelling]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {},
            "merges": [],
        },
    }


def build(
    pattern: str, tokens: Sequence[bytes], merges: Sequence[tuple[int, int]], specials: Mapping[str, int]
) -> dict[str, Any]:
    """The file's contents. `tokens` are the ordinary ones, by id."""
    spelled = [spell(token) for token in tokens]
    document = frame(pattern)
    # Specials are in the vocabulary as well, so that every reader gives them our ids. No merge leads to them.
    document["model"]["vocab"] = {name: token for token, name in enumerate(spelled)} | dict(specials)
    document["model"]["merges"] = [[spelled[left], spelled[right]] for left, right in merges]
    document["added_tokens"] = [added(name, token) for name, token in specials.items()]
    return document


def added(name: str, token: int) -> dict[str, Any]:
    """One special token, to be found exactly as it is written."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token, "content": name, **flags}


def write(folder: Path, document: Mapping[str, Any]) -> None:
    """Put `document` into `folder`, whole or not at all. Raises TokenizerError where that fails."""
    path = folder / FILE
    try:
        write_atomically(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        remedy = "free some space or choose another folder"
        raise TokenizerError(f"to write {path}", error.strerror or str(error), remedy) from None


def read(folder: Path) -> Parts:
    """What `folder/tokenizer.json` holds. Raises TokenizerError where it is missing, damaged or of another kind."""
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return take_apart(document)
    except OSError as error:
        got = error.strerror or str(error)
        raise TokenizerError(f"a tokenizer in {path}", got, "train one with `nanochat tokenizer`") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Each of these is what some wrong shape of the JSON leads to below; the message says which place it was.
        got = f"{type(error).__name__}: {error}"[:200]
        raise TokenizerError(f"a byte-level BPE as nanochat writes it in {path}", got, REMEDY) from None


def take_apart(document: dict[str, Any]) -> Parts:
    """The parts that `build` put together. Raises ValueError and the like where `document` is not of that kind."""
    pattern = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    demand(isinstance(pattern, str), "a pattern that is no text")
    demand_frame(document, frame(pattern))
    specials = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    demand(document["added_tokens"] == [added(*item) for item in specials.items()], "added tokens that are not special")
    vocab = document["model"]["vocab"]
    demand(all(type(token) is int for token in [*vocab.values(), *specials.values()]), "ids that are no integers")
    demand(all(vocab.get(name, token) == token for name, token in specials.items()), "special tokens with two ids")
    merges = []
    for rank, merge in enumerate(document["model"]["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge  # until 2024 they were written as "a b"
        demand(vocab[left + right] == 256 + rank, f"merge {rank} out of order")
        merges.append((vocab[left], vocab[right]))
    ordinary = sorted(token for name, token in vocab.items() if name not in specials)
    demand(ordinary == list(range(256 + len(merges))), "tokens that no merge makes")
    return Parts(pattern, [vocab[character] for character in ALPHABET], merges, specials)


def demand_frame(document: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises ValueError where a part of the file that decides ids is not ours; parts that do not are ignored."""
    demand(document["normalizer"] == ours["normalizer"], "a normalizer")
    demand(document["pre_tokenizer"] == ours["pre_tokenizer"], "another pre_tokenizer")
    demand(document["decoder"]["type"] == ours["decoder"]["type"], "another decoder")
    for option, value in ours["model"].items():
        if option not in ("vocab", "merges"):
            demand(document["model"].get(option, value) == value, f"another {option} of the model")


def demand(holds: bool, fault: str) -> None:
    """Raises ValueError with the `fault` unless the file `holds` to what is demanded."""
    if not holds:
        raise ValueError(fault)
