r"""Byte-level byte-pair encoding: a text becomes a list of small integers, and comes back unchanged.

A model needs a finite alphabet. Bytes are one: 256 of them write every text there is, in every script. But each says
little, five or six make an English word, and a model pays for every step that it takes. So we start from the bytes and
give the pairs that stand side by side most often a number of their own, again and again: a *merge* is a pair of ids
(left, right) and the id that replaces it. Merge number i makes id 256 + i. The list of merges, in the order in which
they were learned, is the whole tokenizer.

Encoding takes three steps.

1. A regular expression, `PATTERN`, cuts the text into pieces (a word with the space before it, two digits, a run of
   punctuation). Merges never reach across a cut, so "dog." and "dog!" share the token for "dog".
2. Each piece becomes its UTF-8 bytes: one id a byte.
3. While any two neighbours are a pair we know, the pair that was *learned first* is merged, the leftmost one first.

Learning from "low lower lowest" (how is told in `training.py`) gives four merges:

    l + o  -> 256 "lo"        256 + w -> 257 "low"        " " + 257 -> 258 " low"        258 + e -> 259 " lowe"

    >>> tokenizer = Tokenizer([(108, 111), (256, 119), (32, 257), (258, 101)])
    >>> tokenizer.encode("low lower slow")
    [257, 259, 114, 32, 115, 257]
    >>> tokenizer.decode([257, 259, 114])
    'low lower'

" lower" became 259 and 114 ("r"): it stood in the text once only, which taught no merge. " slow" was never seen, and
still it has tokens: " ", "s" and the "low" that was learned elsewhere.

*Special* tokens, such as `<|bos|>`, mark where documents and turns begin and end. No text encodes to one: `encode`
knows bytes and merges, and specials are neither. Whoever types "<|bos|>" gets seven ordinary characters. Special ids
are put in by code that means them (`special("<|bos|>")`), and that is why a user cannot forge a turn.

Why merges are pairs of *ids* and not of strings: so they are in Hugging Face's `tokenizers`, and nothing is lost,
since two merges never spell the same bytes. (Inside a token every merge happened as if the token stood alone: merges
go left to right, and none that crossed its border can have happened. So its bytes alone decide which pair it was.)

Sources: P. Gage, "A New Algorithm for Data Compression" (1994); R. Sennrich et al., arXiv:1508.07909, for words;
A. Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), for bytes and the cut into pieces.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import chain, pairwise
from operator import index
from pathlib import Path

import regex  # type: ignore[import-untyped]

from nanochat.errors import TokenizerError
from nanochat.tokenizer.tokenizer_json import build, read, spell, write

Pair = tuple[int, int]

# What a piece may be, tried in this order at every position:
PATTERN = "|".join(
    (
        r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])",  # the end of a contraction: 's 'd 'm 't 'll 've 're
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",  # a word with its accents, and one character before it, most often a space
        r"\p{N}{1,2}",  # one or two digits: 4,096 tokens have room for all 100 pairs and not for all 1,000 triples
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation, with a space before it and the line's end after it
        r"\s*[\r\n]+",  # blank lines
        r"\s+(?!\S)",  # spaces, but for the last one, which belongs to the word that follows
        r"\s+",
    )
)

LONG_PIECE = 32  # bytes; from here on a heap is quicker than looking at every pair for every merge
CACHED_PIECES = 1 << 18  # pieces whose ids are remembered: about 60 MB when full
CACHED_LENGTH = 64  # characters; longer pieces hardly come twice
NEVER = 1 << 62  # stands where a pair makes no token
GONE = -1  # stands where an id was merged into the one before it


class Tokenizer:
    """A vocabulary: 256 bytes, then the merges, then the special tokens. Nothing in it changes after construction.

    `byte_ids[b]` is the id of byte b: b itself in vocabularies of our own, a permutation of 0..255 in GPT-2's.
    """

    def __init__(
        self,
        merges: Iterable[Pair],
        *,
        pattern: str = PATTERN,
        specials: Mapping[str, int] | None = None,
        byte_ids: Sequence[int] = range(256),
    ) -> None:
        """Raises TokenizerError for merges out of order, ids that clash, a pattern that is no regular expression."""
        self.merges = [(left, right) for left, right in merges]
        self.pattern = pattern
        self.specials = dict(sorted((specials or {}).items(), key=lambda item: item[1]))
        self.byte_ids = list(byte_ids)
        self.vocab_size = 1 + max([255 + len(self.merges), *self.specials.values()])
        self._splitter = compile_pattern(pattern)
        ordinary = spell_tokens(self.merges, self.byte_ids)
        check_specials(self.specials, ordinary)
        self._bytes = dict(enumerate(ordinary)) | dict.fromkeys(self.specials.values(), b"")
        self._shown = self._bytes | {token: name.encode() for name, token in self.specials.items()}
        self._pieces = PieceCache(self.byte_ids, {pair: 256 + rank for rank, pair in enumerate(self.merges)})

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]!r})"

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, read as ordinary text throughout: what looks like a special token is just characters."""
        return self._encode(repair_surrogates(text))

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes; those of `encode` where they are UTF-8. A byte that is not counts as punctuation."""
        # Python can carry such a byte inside a str, as a lone surrogate. `PieceCache` makes it the byte again.
        return self._encode(data.decode("utf-8", "surrogateescape"))

    def _encode(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._pieces.__getitem__, split(self._splitter, text))))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: special tokens by their names, bytes that are not UTF-8 as U+FFFD."""
        return look_up(self._shown, ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ordinary tokens among `ids`: the inverse of `encode_bytes`."""
        return look_up(self._bytes, ids)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one token stands for; b"" for a special one."""
        return look_up(self._bytes, [token])

    def special(self, name: str) -> int:
        """The id of a special token. Raises TokenizerError where this vocabulary has none of that name."""
        if name not in self.specials:
            got = f"one with {', '.join(self.specials) or 'none'}"
            raise TokenizerError(f"a vocabulary with the special token {name}", got, "train a tokenizer that has it")
        return self.specials[name]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides ids: tokenizers with equal fingerprints encode alike."""
        decides = [self.pattern, self.byte_ids, self.merges, list(self.specials.items())]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `folder/tokenizer.json`, atomically; Hugging Face's `tokenizers` and `transformers` read it too."""
        ordinary = [self._bytes[token] for token in range(256 + len(self.merges))]
        write(folder, build(self.pattern, ordinary, self.merges, self.specials))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """What `save` wrote. Raises TokenizerError where the file is missing, damaged or of another kind."""
        parts = read(folder)
        return cls(parts.merges, pattern=parts.pattern, specials=parts.specials, byte_ids=parts.byte_ids)

    @classmethod
    def from_ranks(
        cls, ranks: Mapping[bytes, int], pattern: str, specials: Mapping[str, int] | None = None
    ) -> "Tokenizer":
        """A vocabulary given as tiktoken has it, the bytes of each token and its rank; the ids are the ranks."""
        byte_ids, merges = merges_from_ranks(ranks)
        return cls(merges, pattern=pattern, specials=specials, byte_ids=byte_ids)


class PieceCache(dict[str, tuple[int, ...]]):
    """The ids of each piece met so far: text repeats itself, so nearly every piece is looked up and not merged."""

    def __init__(self, byte_ids: Sequence[int], table: Mapping[Pair, int]) -> None:
        super().__init__()
        self.byte_ids, self.table = byte_ids, table

    def __missing__(self, piece: str) -> tuple[int, ...]:
        data = piece.encode("utf-8", "surrogateescape")
        ids = tuple(merge([self.byte_ids[byte] for byte in data], self.table))
        if len(piece) <= CACHED_LENGTH:
            if len(self) >= CACHED_PIECES:
                self.clear()
            self[piece] = ids
        return ids


def merge(ids: list[int], table: Mapping[Pair, int]) -> list[int]:
    """One piece's ids after all merges: the pair that was learned first goes first, its leftmost occurrence first.

    `table` maps a pair to its id; the lower the id, the earlier it was learned.

    >>> merge([1, 2, 3, 1, 2], {(2, 3): 256, (1, 2): 257})
    [1, 256, 257]
    """
    if len(ids) >= LONG_PIECE:
        return merge_long(ids, table)
    while len(ids) > 1:
        new, at = min((table.get(pair, NEVER), at) for at, pair in enumerate(pairwise(ids)))
        if new == NEVER:
            break
        ids[at : at + 2] = [new]
    return ids


def merge_long(ids: list[int], table: Mapping[Pair, int]) -> list[int]:
    """What `merge` returns, in about n steps: a megabyte of one letter takes seconds and not days.

    The ids are a linked list, so that a merge moves nothing. A heap holds the ids that can be made, the one learned
    first on top, and `waiting` the places where. Some places are stale when their turn comes, a neighbour having been
    merged away; they are passed over. A merge adds places for later ids only: the pairs it creates contain `new`, and
    what is made of `new` was learned after it. All places for one id are added while one earlier id is made (or
    at the start), from left to right, and so they need no sorting.
    """
    ids, end = list(ids), len(ids)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    waiting: dict[int, list[int]] = defaultdict(list)
    for at, pair in enumerate(pairwise(ids)):
        if pair in table:
            waiting[table[pair]].append(at)
    queue = sorted(waiting)
    while queue:
        new = heappop(queue)
        for at in waiting.pop(new):
            right = after[at]
            if right == end or table.get((ids[at], ids[right])) != new:
                continue
            ids[at], ids[right] = new, GONE
            after[at] = after[right]
            if after[at] < end:
                before[after[at]] = at
            for left, right in ((before[at], at), (at, after[at])):
                if left < 0 or right == end or (made := table.get((ids[left], ids[right]))) is None:
                    continue
                if made not in waiting:
                    heappush(queue, made)
                waiting[made].append(left)
    return [token for token in ids if token != GONE]


def split(splitter: "regex.Pattern[str]", text: str) -> list[str]:
    """The pieces of `text`, in order and complete: what the pattern leaves out between two matches is a piece too."""
    pieces: list[str] = splitter.findall(text)
    if sum(map(len, pieces)) == len(text):
        return pieces
    pieces, end = [], 0
    for match in splitter.finditer(text):
        pieces += [text[end : match.start()], match.group()]
        end = match.end()
    return [piece for piece in [*pieces, text[end:]] if piece]


def compile_pattern(pattern: str) -> "regex.Pattern[str]":
    """The regular expression, ready for use. Raises TokenizerError where it is none, or has groups that capture."""
    try:
        splitter = regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise TokenizerError("a regular expression to split text by", f"{pattern!r} ({error})", "correct it") from None
    if splitter.groups:
        raise TokenizerError("a pattern without capturing groups", repr(pattern), "write (?:...) instead of (...)")
    return splitter


def repair_surrogates(text: str) -> str:
    """`text` with half a surrogate pair, which is no text, as U+FFFD, and two halves that meet as their character.

    JSON can spell such halves (`"\\ud83d"`), and so does text that was cut inside an emoji by another program.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def spell_tokens(merges: Sequence[Pair], byte_ids: Sequence[int]) -> list[bytes]:
    """The bytes of each ordinary token. Raises TokenizerError for a merge of ids that do not exist before it."""
    if sorted(byte_ids) != list(range(256)):
        raise TokenizerError("the ids 0 to 255 for the 256 bytes", "others", "the vocabulary is damaged: make it again")
    tokens = [b""] * 256
    for byte, token in enumerate(byte_ids):
        tokens[token] = bytes([byte])
    for left, right in merges:
        if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
            got = f"({left}, {right}) as merge {len(tokens) - 256}"
            raise TokenizerError(
                "merges of tokens that come before them", got, "the vocabulary is damaged: make it again"
            )
        tokens.append(tokens[left] + tokens[right])
    if len(set(tokens)) < len(tokens):
        raise TokenizerError("tokens that differ", "one twice", "the vocabulary is damaged: make it again")
    return tokens


def check_specials(specials: Mapping[str, int], ordinary: Sequence[bytes]) -> None:
    """Raises TokenizerError where a special token's id or name is taken."""
    if len(set(specials.values())) < len(specials) or any(token < len(ordinary) for token in specials.values()):
        got = ", ".join(f"{name} {token}" for name, token in specials.items())
        raise TokenizerError(f"special tokens with ids of their own, from {len(ordinary)} on", got, "renumber them")
    spelled = set(map(spell, ordinary))
    for name in specials:
        # In a file both would be one string, and then ordinary text could make the special token.
        if not name or name in spelled:
            remedy = "give it another name, like <|name|>"
            raise TokenizerError("special tokens that no ordinary token spells", repr(name), remedy)


def look_up(table: Mapping[int, bytes], ids: Iterable[int]) -> bytes:
    """The entries of `ids`, joined. Raises TokenizerError for an id that the vocabulary does not have."""
    try:
        return b"".join([table[index(token)] for token in ids])
    except KeyError as error:
        got = f"the id {error.args[0]}"
        raise TokenizerError(
            f"ids of a vocabulary of {len(table)}", got, "decode with the tokenizer that encoded"
        ) from None


def merges_from_ranks(ranks: Mapping[bytes, int]) -> tuple[list[int], list[Pair]]:
    """(the ids of the 256 bytes, the merges) of a vocabulary that is given as bytes and ranks.

    Which pair a token was made of is not written there. But its bytes, encoded with the merges learned before it, come
    down to two ids: they are the pair. Raises TokenizerError where they do not.
    """
    remedy = "give the ranks of a byte-level BPE, without special tokens"
    tokens = sorted(ranks, key=ranks.__getitem__)
    if [ranks[token] for token in tokens] != list(range(len(tokens))):
        raise TokenizerError("the ranks 0, 1, 2, ... without a gap", f"{len(tokens)} others", remedy)
    if len(tokens) < 256 or any(len(token) != 1 for token in tokens[:256]):
        raise TokenizerError("the 256 bytes as the first ranks", "others", remedy)
    byte_ids = [ranks[bytes([byte])] for byte in range(256)]
    table: dict[Pair, int] = {}
    for token in tokens[256:]:
        parts = merge([byte_ids[byte] for byte in token], table)
        if len(parts) != 2:
            raise TokenizerError("tokens that are two earlier ones", f"{token!r}, which is {len(parts)}", remedy)
        table[parts[0], parts[1]] = ranks[token]
    return byte_ids, list(table)
