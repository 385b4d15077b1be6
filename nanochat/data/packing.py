"""Rows of exactly T + 1 tokens out of documents, packed while they are read.

A row is filled with documents, each behind a BOS, so that it begins with one; whole documents as far as they fit.
They come in an order drawn anew for each epoch and wait in a buffer. A row opens with the one that has waited longest
(else short ones would be left over, and the end of every epoch be made of them); then the largest that fits is placed,
again and again. Where none fits, the shortest fills the row exactly, and what is left of it goes back to the buffer,
to stand behind a BOS of its own, if it is long enough to be worth that; else it is cropped, and counted. A document
longer than a row opens one, and what is left of it goes back as well: no long text is lost. So no row is ever padded,
and every token is used once an epoch except those cropped.

Rows are global: process r of a run takes rows r, r + world, ... A cursor is what is needed to go on after a row.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nanochat.data.shards import Tokens, TokenStore
from nanochat.errors import DataError
from nanochat.keyed import rng

BUFFER = 512  # documents that wait: more fit better, and make a larger cursor
WORTH_KEEPING = 32  # tokens; a shorter rest of a document is cropped


@dataclass(frozen=True)
class Row:
    """T + 1 token ids, the first a BOS, and the cursor that `rows` takes to go on with the row after this one."""

    ids: npt.NDArray[np.int64]
    cursor: dict[str, Any]


class Piece(NamedTuple):
    """What is left of a document: `length` tokens with its BOS. Pieces sort by length, then by who came first."""

    length: int
    arrival: int
    document: int
    start: int


@dataclass
class Packer:
    """The state behind `rows`: where the epoch's order stands, what waits, what was counted."""

    stores: Sequence[TokenStore]
    weights: Sequence[float]
    seed: int
    epoch: int = 0
    position: int = 0
    arrivals: int = 0
    rows: int = 0
    placed: int = 0
    cropped: int = 0
    by_length: list[Piece] = field(default_factory=list)
    by_arrival: dict[int, Piece] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.firsts = np.cumsum([0] + [len(store) for store in self.stores]).tolist()
        self.order = self.epoch_order()

    def epoch_order(self) -> list[int]:
        """This epoch's documents, shuffled. A weight is how often each document of a store comes in an epoch.

        Of a weight's fraction, a share of the store that large comes once more, drawn anew for each epoch.
        """
        chosen: list[int] = []
        for number, (first, last, weight) in enumerate(zip(self.firsts, self.firsts[1:], self.weights, strict=False)):
            times, fraction = divmod(weight, 1)
            chosen += list(range(first, last)) * int(times)
            extra = round(fraction * (last - first))
            chosen += sorted(rng(self.seed, "packing", "extra", self.epoch, number).sample(range(first, last), extra))
        rng(self.seed, "packing", "order", self.epoch).shuffle(chosen)
        return chosen

    def document(self, number: int) -> Tokens:
        """The tokens of a document, numbered through all stores."""
        store = bisect_right(self.firsts, number) - 1
        return self.stores[store][number - self.firsts[store]]

    def add(self, document: int, start: int) -> None:
        """Let what `document` holds from `start` on wait in the buffer; an empty document has nothing to wait for."""
        length = 1 + len(self.document(document)) - start
        if length > 1:
            piece = Piece(length, self.arrivals, document, start)
            self.arrivals += 1
            insort(self.by_length, piece)
            self.by_arrival[piece.arrival] = piece

    def refill(self) -> None:
        """Fill the buffer from this epoch's order; from the next one's only when this epoch is used up."""
        while len(self.by_length) < BUFFER:
            if self.position == len(self.order):
                if self.by_length:
                    return
                self.epoch, self.position = self.epoch + 1, 0
                self.order = self.epoch_order()
            self.add(self.order[self.position], 0)
            self.position += 1

    def take(self, space: int, opening: bool) -> tuple[Piece, int]:
        """Remove the piece to place into `space` tokens, and how many of its tokens (with the BOS) to place."""
        self.refill()
        if opening:
            piece = next(iter(self.by_arrival.values()))
        else:
            fitting = bisect_left(self.by_length, (space + 1,))
            piece = self.by_length[fitting - 1] if fitting else self.by_length[0]
        del self.by_length[bisect_left(self.by_length, piece)]
        del self.by_arrival[piece.arrival]
        return piece, min(piece.length, space)

    def row(self, length: int, bos: int) -> npt.NDArray[np.int64]:
        """The next row."""
        ids = np.empty(length, dtype=np.int64)
        filled = 0
        while filled < length:
            piece, count = self.take(length - filled, opening=filled == 0)
            end = piece.start + count - 1
            ids[filled] = bos
            ids[filled + 1 : filled + count] = self.document(piece.document)[piece.start : end]
            filled += count
            rest = piece.length - count
            if rest >= WORTH_KEEPING or (rest and (filled == count or count == 1)):
                self.add(piece.document, end)
            else:
                self.cropped += rest
        self.rows += 1
        self.placed += length
        return ids

    def cursor(self) -> dict[str, Any]:
        """Everything that `restored` needs, as JSON knows it."""
        waiting = [[piece.document, piece.start] for piece in self.by_arrival.values()]
        return {
            "seed": self.seed, "documents": self.firsts[-1], "weights": list(self.weights), "epoch": self.epoch,
            "position": self.position, "rows": self.rows, "placed": self.placed, "cropped": self.cropped,
            "waiting": waiting,
        }  # fmt: skip


def rows(
    stores: Sequence[TokenStore],
    *,
    bos: int,
    context: int,
    seed: int,
    weights: Sequence[float] | None = None,
    cursor: Mapping[str, Any] | None = None,
) -> Iterator[Row]:
    """Rows of `context` + 1 tokens without end, from all documents of all stores; after `cursor` where one is given.

    `weights` says how often a store's documents come in an epoch (default: once each).
    """
    share = [1.0] * len(stores) if weights is None else list(weights)
    if len(share) != len(stores) or any(weight < 0 for weight in share):
        raise DataError(f"{len(stores)} weights of 0 or more", str(share))
    if not any(len(store.tokens) and round(weight * len(store)) for store, weight in zip(stores, share, strict=True)):
        raise DataError("documents to pack", "none with any token", "check the sources and their weights")
    packer = Packer(stores, share, seed) if not cursor else restored(stores, share, seed, cursor)
    while True:
        ids = packer.row(context + 1, bos)
        yield Row(ids, packer.cursor())


def restored(stores: Sequence[TokenStore], weights: Sequence[float], seed: int, cursor: Mapping[str, Any]) -> Packer:
    """The packer as it was when it gave `cursor`."""
    wanted = {"seed": seed, "documents": sum(len(store) for store in stores), "weights": list(weights)}
    if (got := {name: cursor[name] for name in wanted}) != wanted:
        raise DataError(f"a cursor of {wanted}", str(got), "the corpus has changed: start this stage anew")
    packer = Packer(stores, weights, seed, epoch=cursor["epoch"], position=cursor["position"])
    packer.rows, packer.placed, packer.cropped = cursor["rows"], cursor["placed"], cursor["cropped"]
    for document, start in cursor["waiting"]:
        packer.add(document, start)
    return packer


def shares(cursor: Mapping[str, Any]) -> dict[str, float]:
    """What packing has cost up to `cursor`: the share of tokens cropped, and of tokens padded (none ever are)."""
    taken = cursor["placed"] + cursor["cropped"]
    return {"cropped": cursor["cropped"] / taken if taken else 0.0, "padded": 0.0}
