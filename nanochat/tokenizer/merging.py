"""What `training.learn_merges` returns, six times as fast: rounds of merges at once, as operations on arrays.

Python takes microseconds for each place that a merge touches; on a hundred megabytes of text there are millions.
NumPy handles a place in nanoseconds, but each call costs a microsecond before it begins, and one merge needs dozens
of calls while it touches a hundred places. So we merge many pairs at once, and the question is when that is allowed:
the merges must come out as if they had been made one after the other.

Take the most frequent pairs in order. The next one may join the round if it shares no border with a pair that is in it:
once "t" + "h" is merged, "h" + "e" has lost places, and so has all else that begins with "h" or ends in "t", but not
"e" + "r". Where a border is shared the round ends, and the next one looks again. Forty merges a round are usual.

What if a pair that the round makes, such as " " + "th", is so frequent that it comes before "e" + "r"? Then " " + "t",
at least as frequent, came before it too and ended the round, since it ends in "t". The one exception is twins: of "aaa"
a + a makes "aa" + "a", which comes from a + a itself. So a pair of twins is the last of its round.

Counts are not kept up to date. A merge never raises the count of a pair that was there before it, so an old count is an
upper bound; a pair near the top is counted again, at the places where it was last seen, before it is believed.

The pieces stand in one long array, a border (-1) before and after each. A merge writes its new id on the left place and
takes the right one out of a linked list.
"""

from collections.abc import Callable

import numpy as np

from nanochat.tokenizer.bpe import Pair
from nanochat.tokenizer.counting import Array, Pieces

BORDER = -1  # stands between pieces
GONE = -2  # stands where an id was merged into the one before it
LOOK = 256  # so many of the most frequent pairs are looked at for a round


class Pairs:
    """Every pair that was seen so far, a row each: its count when last counted, and where in `pool` its places are."""

    def __init__(self) -> None:
        self.rows = 0
        self.left = np.empty(1024, np.int64)
        self.right = np.empty(1024, np.int64)
        self.count = np.empty(1024, np.int64)
        self.start = np.empty(1024, np.int64)
        self.stop = np.empty(1024, np.int64)
        self.stale = np.empty(1024, np.bool_)  # whether the count may be too high

    def add(self, left: Array, right: Array, count: Array, start: Array, stop: Array) -> Array:
        """Append rows; their numbers."""
        first, self.rows = self.rows, self.rows + len(left)
        values = {"left": left, "right": right, "count": count, "start": start, "stop": stop, "stale": False}
        for name, value in values.items():
            column = getattr(self, name)
            if self.rows > len(column):
                column = np.concatenate([column, np.empty(max(self.rows, len(column)), column.dtype)])
                setattr(self, name, column)
            column[first : self.rows] = value
        return np.arange(first, self.rows)


def learn_merges(pieces: Pieces, wanted: int, progress: Callable[[int, int], None] | None = None) -> list[Pair]:
    """The first `wanted` merges, or fewer where no pair is left that occurs twice."""
    text = Text(pieces, 256 + wanted)
    merges: list[Pair] = []
    while len(merges) < wanted:
        rows, at, which = text.next_round(wanted - len(merges))
        if not len(rows):
            break
        text.merge(rows, at, which, 256 + len(merges))
        merges += zip(text.pairs.left[rows].tolist(), text.pairs.right[rows].tolist(), strict=True)
        if progress is not None:
            progress(len(merges), wanted)
    return merges


class Text:
    """All distinct pieces as one array of ids, and the pairs in it."""

    def __init__(self, pieces: Pieces, vocab_size: int) -> None:
        lengths = np.diff(pieces.ends, prepend=0)
        size = len(pieces.data) + len(lengths) + 1
        at = np.arange(1, len(pieces.data) + 1) + np.repeat(np.arange(len(lengths)), lengths)
        self.ids = np.full(size, BORDER, np.int32)
        self.ids[at] = pieces.data
        self.times = np.zeros(size, np.int64)
        self.times[at] = np.repeat(pieces.times, lengths)
        self.after = np.arange(1, size + 1, dtype=np.int32)
        self.before = np.arange(-1, size - 1, dtype=np.int32)
        self.pool = np.empty(3 * size, np.int32)  # a pair at every place, and two more for each place that is merged
        self.used = 0
        self.vocab_size = vocab_size
        self.pairs = Pairs()
        self.floor = 2
        self.inside = self.add_pairs(np.flatnonzero((self.ids[:-1] >= 0) & (self.ids[1:] >= 0)))
        # Rare pairs wait outside until `floor` has come down to them: what is inside is looked through every round.
        self.floor = int(self.pairs.count[self.inside].max(initial=0)) // 4 + 2
        self.inside = self.inside[self.pairs.count[self.inside] >= self.floor]

    def next_round(self, most: int) -> tuple[Array, Array, Array]:
        """The pairs to merge next, `most` at the most, as rows in their order, with their places (see `places`)."""
        look, pairs = LOOK, self.pairs
        while True:
            rows, others = self.most_frequent(look)
            self.count_again(rows[pairs.stale[rows]])
            sure = rows[pairs.count[rows] > others]
            if len(sure):
                order = np.lexsort((pairs.right[sure], pairs.left[sure], -pairs.count[sure]))
                return self.independent(sure[order][: min(LOOK, most)])
            if len(rows) < len(self.inside):
                look *= 2
            elif not self.lower_floor():
                return rows[:0], rows[:0], rows[:0]

    def most_frequent(self, look: int) -> tuple[Array, int]:
        """(the rows of about `look` pairs with the highest counts, an upper bound for the counts of all others)."""
        if look >= len(self.inside):
            return self.inside, self.floor - 1
        count = self.pairs.count[self.inside]
        chosen = np.argpartition(count, len(count) - look)[len(count) - look :]
        return self.inside[chosen], max(int(count[chosen].min()), self.floor - 1)

    def lower_floor(self) -> bool:
        """Let rarer pairs in; False where there are none that occur twice."""
        if self.floor == 2:
            return False
        self.floor = max(2, self.floor // 2)
        self.inside = np.flatnonzero(self.pairs.count[: self.pairs.rows] >= self.floor)
        self.pairs.stale[self.inside] = True
        return True

    def count_again(self, rows: Array) -> None:
        """Make the counts of these pairs true, and drop the places where they are no more."""
        at, which = self.places(rows)
        counts = np.bincount(which, self.times[at], len(rows))  # exact in float64 below 2^53
        lengths = np.bincount(which, minlength=len(rows))
        start = self.pairs.start[rows]
        self.pool[ranges(start, lengths)] = at
        self.pairs.stop[rows] = start + lengths
        self.pairs.count[rows] = counts.astype(np.int64)
        self.pairs.stale[rows] = False

    def places(self, rows: Array) -> tuple[Array, Array]:
        """(every place where one of these pairs stands, which of `rows` it is): row after row, from left to right."""
        start, stop = self.pairs.start[rows], self.pairs.stop[rows]
        which = np.repeat(np.arange(len(rows)), stop - start)
        at = self.pool[ranges(start, stop - start)]
        left, right = self.pairs.left[rows], self.pairs.right[rows]
        still = (self.ids[at] == left[which]) & (self.ids[self.after[at]] == right[which])
        return at[still], which[still]

    def independent(self, rows: Array) -> tuple[Array, Array, Array]:
        """The first of these pairs, as many as can be merged at once, with their places."""
        left, right = self.pairs.left[rows], self.pairs.right[rows]
        clash = np.triu((right[:, None] == left) | (left[:, None] == right), 1).any(axis=0)
        clash[1:] |= np.logical_or.accumulate(left == right)[:-1]  # a pair of twins is the last of its round
        rows = rows[: first_true(clash)]
        return rows, *self.places(rows)

    def merge(self, rows: Array, at: Array, which: Array, first: int) -> None:
        """Merge the pairs `rows` at their places; their new ids are `first`, `first` + 1, ..."""
        pairs = self.pairs
        at, which = self.without_overlaps(rows, at, which)
        gone = self.after[at]
        beyond = self.after[gone]
        self.ids[at] = first + which
        self.ids[gone] = GONE
        self.after[at] = beyond
        self.before[beyond] = at
        # Of two new ids side by side the pair is found from the left one.
        before = self.before[at]
        old = (self.ids[before] >= 0) & (self.ids[before] < first)
        born = self.add_pairs(np.concatenate([at[self.ids[beyond] >= 0], before[old]]))
        pairs.count[rows] = 0
        begins, ends = np.zeros(self.vocab_size, np.bool_), np.zeros(self.vocab_size, np.bool_)
        begins[pairs.right[rows]], ends[pairs.left[rows]] = True, True
        inside = self.inside[pairs.count[self.inside] >= self.floor]
        pairs.stale[inside] |= begins[pairs.left[inside]] | ends[pairs.right[inside]]
        self.inside = np.concatenate([inside, born])

    def without_overlaps(self, rows: Array, at: Array, which: Array) -> tuple[Array, Array]:
        """The places without those that an earlier merge of the same pair takes: the second of "aaa" for a + a."""
        if not (self.pairs.left[rows] == self.pairs.right[rows]).any():
            return at, which
        number = np.arange(len(at))
        touches = np.zeros(len(at), np.bool_)
        touches[1:] = (which[1:] == which[:-1]) & (self.after[at[:-1]] == at[1:])
        begin = np.maximum.accumulate(np.where(touches, 0, number))  # where its run of places begins
        keep = (number - begin) % 2 == 0
        # In "abab" the places of a + b are next but one, and touch nothing.
        return at[keep], which[keep]

    def add_pairs(self, places: Array) -> Array:
        """Add the pairs that stand at these places; the rows of those that are frequent enough to be inside."""
        if not len(places):
            return places
        left, right = self.ids[places].astype(np.int64), self.ids[self.after[places]]
        size = len(self.ids)
        keys = (left * self.vocab_size + right) * size + places
        keys.sort()
        pair, place = np.divmod(keys, size)
        start = np.flatnonzero(np.diff(pair, prepend=-1))
        count = np.add.reduceat(self.times[place], start)
        self.pool[self.used : self.used + len(place)] = place
        start, stop = start + self.used, np.append(start[1:], len(place)) + self.used
        self.used += len(place)
        often = count >= 2
        left, right = np.divmod(pair[start[often] - self.used + len(place)], self.vocab_size)
        rows = self.pairs.add(left, right, count[often], start[often], stop[often])
        frequent: Array = rows[count[often] >= self.floor]
        return frequent


def ranges(starts: Array, lengths: Array) -> Array:
    """The numbers from each of `starts` on, as many as its length says: ([5, 9], [2, 1]) gives [5, 6, 9]."""
    ends = np.cumsum(lengths)
    numbers: Array = np.arange(ends[-1] if len(ends) else 0)
    numbers += np.repeat(starts - ends + lengths, lengths)
    return numbers


def first_true(flags: Array) -> int:
    """The index of the first True; the length where there is none."""
    return int(flags.argmax()) if flags.any() else len(flags)
