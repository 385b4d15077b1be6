"""How a text becomes tokens, step by step: pieces, then bytes, then one merge after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nanochat.errors import UsageError
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.bpe import compile_pattern, repair_surrogates, split

LONGEST_TEXT = 8_192  # characters
LONGEST_PIECE = 256  # bytes, whose merges are told one by one


@dataclass(frozen=True)
class Merge:
    """One merge: at place `at` of the ids, `left` and `right` became `new`, which was learned as number `rank`."""

    at: int
    left: int
    right: int
    new: int

    @property
    def rank(self) -> int:
        return self.new - 256


def pieces(tokenizer: Tokenizer, text: str) -> list[tuple[str, list[int]]]:
    """(piece, its ids) for each piece that the pattern cuts `text` into; together they are `encode(text)`."""
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"at most {LONGEST_TEXT:,} characters", f"{len(text):,}", "shorten the text")
    cut = split(compile_pattern(tokenizer.pattern), repair_surrogates(text))
    return [(piece, tokenizer.encode(piece)) for piece in cut]


def merges(tokenizer: Tokenizer, piece: str) -> tuple[list[int], list[Merge]]:
    """(the ids of the piece's bytes, the merges that lead from there to its tokens, in order).

    The book's page of byte pair encoding: the pair that was learned first goes first, the leftmost one first.
    """
    data = repair_surrogates(piece).encode()
    if not 0 < len(data) <= LONGEST_PIECE:
        raise UsageError(f"a piece of 1 to {LONGEST_PIECE} bytes", str(len(data)), "choose a shorter one")
    rank = {pair: number for number, pair in enumerate(tokenizer.merges)}
    begin = [tokenizer.byte_ids[byte] for byte in data]
    ids, done = list(begin), []
    while known := [(rank[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in rank]:
        number, at = min(known)
        done.append(Merge(at, ids[at], ids[at + 1], 256 + number))
        ids[at : at + 2] = [256 + number]
    return begin, done


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, object]]:
    """Tokens as the page shows them: id, text, bytes; a special token by its name."""
    names = {token: name for name, token in tokenizer.specials.items()}
    return [
        {"id": token, "text": tokenizer.decode([token]), "bytes": tokenizer.token_bytes(token).hex(" "),
         "special": token in names}
        for token in ids
    ]  # fmt: skip
