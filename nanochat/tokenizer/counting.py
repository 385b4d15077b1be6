"""What `training.count_pieces` returns, three times as fast: `PATTERN` cuts a megabyte at once, by arrays.

A regular expression walks through a text character by character. But where our pieces begin can be seen nearly
everywhere from two neighbours: a letter after a line's end begins a word, a letter after a letter does not. So each
character becomes a number, its kind (letter, digit, space, ...), and a table says for each pair of kinds whether a
piece begins at the second. What two neighbours cannot tell is put right afterwards, at the few places where it matters.

Equal pieces are then counted by sorting. A piece of up to seven bytes and its length fit into one 64-bit number, and
NumPy sorts a million such numbers in a hundredth of a second. Longer pieces, one in six, are counted one by one.

Texts are taken in batches of a megabyte, which stay in the processor's cache. NumPy works without Python's lock, so
that one thread per core works at once.

Only `PATTERN` is known here; texts with another pattern, and those in which accents follow punctuation (there a mark is
read now as a letter and now as a sign), are left to the regular expression.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped]

from nanochat.tokenizer.bpe import PATTERN, compile_pattern, repair_surrogates, split

Array = npt.NDArray[Any]

BATCH = 1 << 20  # characters
SHORT = 7  # bytes: the eighth holds the length
MOST_ARRAYS = 256  # of a tally, before they are made one
NO_KEYS, NO_TIMES = np.empty(0, "<u8"), np.empty(0, np.int64)

# Kinds of characters. SPACE is " " alone; LINE is what ends a line, BLANK any other white space; EDGE a text's border.
EDGE, LETTER, MARK, DIGIT, SIGN, LINE, BLANK, SPACE = range(8)
CLASSES = ((LETTER, r"\p{L}"), (MARK, r"\p{M}"), (DIGIT, r"\p{N}"), (BLANK, r"\s"), (LINE, r"[\r\n]"), (SPACE, " "))
CONTRACTIONS = ("s", "d", "m", "t", "ll", "ve", "re")


class Pieces(NamedTuple):
    """Distinct pieces and how often each was seen: number n is `data[ends[n - 1] : ends[n]]`, seen `times[n]` times."""

    data: Array  # uint8: the bytes of all pieces, one after the other
    ends: Array  # int64
    times: Array  # int64


def count_pieces(texts: Iterable[str], pattern: str = PATTERN, workers: int = 1) -> Pieces:
    """How often each piece occurs in the texts, cut by `pattern`; `workers` threads do it.

    Holds in memory the distinct pieces and a few batches. Raises TokenizerError for a pattern that cannot be used.
    """
    splitter = compile_pattern(pattern)
    count = count_batch if pattern == PATTERN else count_plainly
    total = Tally()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Tally]] = deque()
        for batch in batches(texts):
            waiting.append(pool.submit(count, batch, splitter))
            if len(waiting) > 2 * workers:
                total.add(waiting.popleft().result())
        for future in waiting:
            total.add(future.result())
    return total.pieces()


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of about a megabyte, those in ASCII by themselves: they need a quarter of the memory."""
    held: dict[bool, list[str]] = {True: [], False: []}
    sizes = {True: 0, False: 0}
    for text in texts:
        kind = text.isascii()
        held[kind].append(text if kind else repair_surrogates(text))
        sizes[kind] += len(text) + 1
        if sizes[kind] >= BATCH:
            yield held[kind]
            held[kind], sizes[kind] = [], 0
    yield from filter(None, held.values())


class Tally:
    """Counts of pieces: short ones as numbers in arrays, long ones by their bytes."""

    def __init__(self) -> None:
        self.keys: list[Array] = []
        self.times: list[Array] = []
        self.long = Counter[bytes]()

    def add(self, other: "Tally") -> None:
        """Take in the counts of other texts."""
        self.keys += other.keys
        self.times += other.times
        self.long.update(other.long)
        if len(self.keys) > MOST_ARRAYS:
            self.collapse()

    def collapse(self) -> None:
        """One array instead of many: the same key may stand in each."""
        keys, times = np.concatenate([NO_KEYS, *self.keys]), np.concatenate([NO_TIMES, *self.times])
        order = np.argsort(keys)
        keys = keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=np.uint64(0)))  # no key is 0: each holds its length
        self.keys, self.times = [keys[first]], [np.add.reduceat(times[order], first) if len(first) else times]

    def pieces(self) -> Pieces:
        """The distinct pieces."""
        self.collapse()
        keys = self.keys[0]
        lengths = (keys >> np.uint64(56)).astype(np.int64)
        short = keys.view(np.uint8).reshape(-1, 8)[np.arange(8) < lengths[:, None]]
        long = np.frombuffer(b"".join(self.long), np.uint8)
        long_lengths = np.fromiter(map(len, self.long), np.int64, len(self.long))
        long_times = np.fromiter(self.long.values(), np.int64, len(self.long))
        ends = np.cumsum(np.concatenate([lengths, long_lengths]))
        return Pieces(np.concatenate([short, long]), ends, np.concatenate([self.times[0], long_times]))


def count_plainly(texts: Sequence[str], splitter: "regex.Pattern[str]") -> Tally:
    """The pieces of some texts, cut by a regular expression."""
    pieces = [piece.encode() for text in texts for piece in split(splitter, text)]
    stops = np.cumsum([0, *map(len, pieces)])
    return tally_of(b"".join(pieces), stops[:-1], stops[1:])


def count_batch(texts: Sequence[str], splitter: "regex.Pattern[str]") -> Tally:
    """The pieces of some texts, cut as `PATTERN` does; `splitter` is for what arrays cannot tell."""
    joined = "\0".join(["", *texts, ""])
    ascii_only = joined.isascii()
    data = joined.encode()
    codes: Array = np.frombuffer(data, np.uint8) if ascii_only else np.frombuffer(joined.encode("utf-32-le"), "<u4")
    kinds = kinds_of_characters()[codes]
    edges = np.cumsum([0, *(len(text) + 1 for text in texts)])
    kinds[edges] = EDGE
    odd = unclear(kinds, edges)
    for number in odd:
        kinds[edges[number] : edges[number + 1]] = EDGE
    kinds[kinds == MARK] = LETTER
    starts = np.flatnonzero(begins(codes, kinds))
    inner = kinds[starts[:-1]] != EDGE
    if not ascii_only:  # places in the text become places in its bytes
        width = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
        starts = (np.cumsum(width) - width)[starts]
    tally = tally_of(data, starts[:-1][inner], starts[1:][inner])
    tally.add(count_plainly([texts[number] for number in odd], splitter))
    return tally


@cache
def kinds_of_characters() -> Array:
    """The kind of each code point, asked of the library that cuts by `PATTERN`."""
    characters = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    table = np.full(len(characters), SIGN, np.uint8)
    for kind, expression in CLASSES:
        for run in regex.finditer(f"(?:{expression})+", characters):
            table[run.start() : run.end()] = kind
    return table


def unclear(kinds: Array, edges: Array) -> Array:
    """The texts in which a mark follows a sign: there `PATTERN` may read the mark as a sign, or as a letter."""
    places = np.flatnonzero((kinds[1:] == MARK) & (kinds[:-1] == SIGN)) if (kinds == MARK).any() else np.empty(0)
    return np.unique(np.searchsorted(edges, places, side="right") - 1)


@cache
def neighbours() -> tuple[Array, Array]:
    """For each two neighbours, at 8 x left + right: whether a piece begins (at the right one, at the left one)."""
    right, left = np.zeros((8, 8), np.bool_), np.zeros((8, 8), np.bool_)
    right[EDGE], right[:, EDGE] = True, True
    for kind in (LETTER, DIGIT, SIGN):
        right[kind, [LINE, BLANK, SPACE, DIGIT, SIGN]] = True
    right[[DIGIT, LINE], LETTER] = True  # after a blank or a sign it belongs to the same piece as they
    right[[LINE, BLANK, SPACE], DIGIT] = True
    right[[LINE, BLANK], SIGN] = True  # it takes a space with it, and no other blank
    right[SIGN, [SIGN, LINE]] = False
    right[DIGIT, DIGIT] = False
    left[[[BLANK], [SPACE]], [LETTER, DIGIT, SIGN]] = True  # the last blank before a word leaves those before it
    return right.ravel(), left.ravel()


def begins(codes: Array, kinds: Array) -> Array:
    """Whether a piece begins at each character."""
    right, left = neighbours()
    pairs = kinds[:-1] * np.uint8(8) + kinds[1:]
    found = np.empty(len(kinds), np.bool_)
    found[0] = True
    found[1:] = right[pairs]
    found[:-1] |= left[pairs]
    # A sign goes with the letters after it ("(word") if it stands alone: not in "((word", nor in " (word".
    at = np.flatnonzero(pairs == 8 * SIGN + LETTER) + 1
    found[at] = (kinds[at - 2] == SIGN) | (kinds[at - 2] == SPACE)
    # Digits go in twos.
    at = np.flatnonzero(kinds == DIGIT)
    number = np.arange(len(at))
    run = np.maximum.accumulate(np.where(np.diff(at, prepend=-1) == 1, 0, number))
    found[at] = (number - run) % 2 == 0
    indented(kinds, pairs, found)
    contracted(codes, kinds, found)
    return found


def indented(kinds: Array, pairs: Array, found: Array) -> None:
    """Blanks after a line's end begin a piece, unless they stand between blank lines, which are one piece with them.

    A line's end that follows a sign belongs to the sign, and not to the blank lines.
    """
    at = np.flatnonzero((pairs == 8 * LINE + SPACE) | (pairs == 8 * LINE + BLANK)) + 1
    lines = np.flatnonzero((kinds[1:] == LINE) & (kinds[:-1] != LINE)) + 1
    taken = kinds[lines[np.searchsorted(lines, at) - 1] - 1] == SIGN
    stops = np.flatnonzero((pairs // 8 >= BLANK) & (pairs % 8 < BLANK)) + 1
    found[at] |= taken | (kinds[stops[np.searchsorted(stops, at)]] != LINE)


def contracted(codes: Array, kinds: Array, found: Array) -> None:
    """What follows 's, 'd, 'm, 't, 'll, 've, 're begins a piece, where the apostrophe begins one itself."""
    at = np.flatnonzero(codes == ord("'"))
    at = at[(kinds[at] == SIGN) & (kinds[at - 1] != SIGN) & (kinds[at - 1] != SPACE)]
    one, two = (np.take(codes, at + ahead, mode="clip") | 0x20 for ahead in (1, 2))  # small letters
    for word in CONTRACTIONS:
        same = (one == ord(word[0])) & ((two == ord(word[1])) if len(word) == 2 else True)
        found[at[same] + 1 + len(word)] = True


def tally_of(data: bytes, starts: Array, stops: Array) -> Tally:
    """The counts of the pieces `data[start:stop]`."""
    lengths = stops - starts
    short = lengths <= SHORT
    words = np.ndarray(len(data), "<u8", data + bytes(8), strides=(1,))  # the eight bytes from each place on
    sizes = lengths[short].astype(np.uint64)
    keys = words[starts[short]] & ((np.uint64(1) << (8 * sizes)) - np.uint64(1)) | sizes << np.uint64(56)
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=np.uint64(0)))
    tally = Tally()
    tally.keys.append(keys[first])
    tally.times.append(np.diff(first, append=len(keys)))
    long = zip(starts[~short].tolist(), stops[~short].tolist(), strict=True)
    tally.long.update([data[start:stop] for start, stop in long])
    return tally
