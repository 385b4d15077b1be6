"""Packing: no token lost or doubled, rows exact, the same rows again from any cursor."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.packing import WORTH_KEEPING, Row, rows, shares
from nanochat.data.shards import Record, TokenStore
from nanochat.errors import DataError

BOS = 0
RECORD = Record("", "", 0, 0, 0, "uint32", "", "")


def stores_of(*sizes: Sequence[int]) -> list[TokenStore]:
    """A store for each list of document lengths. Every token of all of them is another number."""
    stores, first = [], BOS + 1
    for lengths in sizes:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.arange(first, first + offsets[-1], dtype=np.uint32)
        stores.append(TokenStore(tokens, offsets, RECORD))
        first += int(offsets[-1])
    return stores


def first_epoch(stores: list[TokenStore], context: int, seed: int = 0) -> list[Row]:
    """The rows that hold nothing of a second epoch, and the one that may hold both."""
    found = []
    for row in rows(stores, bos=BOS, context=context, seed=seed):
        found.append(row)
        if row.cursor["epoch"]:
            return found
    raise AssertionError("rows never end")


LENGTHS = st.lists(st.integers(0, 90), min_size=1, max_size=60).filter(any)


@given(LENGTHS, LENGTHS, st.integers(2, 64), st.integers(0, 99))
def test_every_token_is_used_once_an_epoch_or_counted(one: list[int], two: list[int], context: int, seed: int) -> None:
    stores = stores_of(one, two)
    total = sum(len(store.tokens) for store in stores)
    *whole, last = first_epoch(stores, context, seed)
    for number, row in enumerate([*whole, last], 1):
        assert row.ids.shape == (context + 1,)
        assert row.ids[0] == BOS
        assert row.cursor["rows"] == number
        assert row.cursor["placed"] == number * (context + 1)
    # The last row ends this epoch and goes on with the next. A crop always ends a row, so that one is the next's.
    cropped = whole[-1].cursor["cropped"] if whole else 0
    used = [int(token) for row in whole for token in row.ids if token != BOS]
    rest = [int(token) for token in last.ids if token != BOS][: total - cropped - len(used)]
    assert len(set(used + rest)) == len(used + rest) == total - cropped
    assert set(used + rest) <= {int(token) for store in stores for token in store.tokens}


@given(LENGTHS, st.integers(2, 64), st.integers(0, 99))
def test_text_keeps_its_order_behind_its_bos(lengths: list[int], context: int, seed: int) -> None:
    """Between two BOS stand consecutive tokens of one document; whole documents stand whole."""
    (store,) = stores_of(lengths)
    starts = {int(store.tokens[offset]) for offset, size in zip(store.offsets, store.lengths, strict=False) if size}
    document_of = {int(token): index for index in range(len(store)) for token in store[index]}
    broken = 0
    for row in first_epoch([store], context, seed):
        for run in np.split(row.ids, np.flatnonzero(row.ids == BOS))[1:]:
            words = run[1:].tolist()
            if words:
                assert words == list(range(words[0], words[0] + len(words)))
                assert len({document_of[word] for word in words}) == 1
                broken += words[0] not in starts
    assert broken <= sum(size // 2 for size in lengths)


@given(LENGTHS, st.integers(2, 64), st.integers(0, 99), st.data())
def test_a_cursor_is_enough_to_go_on(lengths: list[int], context: int, seed: int, data: st.DataObject) -> None:
    stores = stores_of(lengths, [3, 5])
    weights = data.draw(st.sampled_from([None, [1.0, 2.5], [0.6, 1.0]]))
    straight = list(islice(rows(stores, bos=BOS, context=context, seed=seed, weights=weights), 40))
    stop = data.draw(st.integers(0, 30))
    cursor = json.loads(json.dumps(straight[stop].cursor))
    resumed = list(islice(rows(stores, bos=BOS, context=context, seed=seed, weights=weights, cursor=cursor), 9))
    for went_on, never_stopped in zip(resumed, straight[stop + 1 :], strict=False):
        assert went_on.ids.tolist() == never_stopped.ids.tolist()
        assert went_on.cursor == never_stopped.cursor


def test_a_cursor_holds_over_the_end_of_an_epoch() -> None:
    stores = stores_of([7] * 300 + [40] * 300)
    straight = list(islice(rows(stores, bos=BOS, context=63, seed=1), 700))
    ends = [
        number for number in range(1, 700) if straight[number].cursor["epoch"] > straight[number - 1].cursor["epoch"]
    ]
    assert len(ends) >= 2
    for stop in (ends[0] - 2, ends[0] - 1, ends[0], ends[1]):
        resumed = islice(rows(stores, bos=BOS, context=63, seed=1, cursor=straight[stop].cursor), 20)
        assert [row.ids.tolist() for row in resumed] == [row.ids.tolist() for row in straight[stop + 1 : stop + 21]]


def test_epochs_and_seeds_shuffle_anew() -> None:
    stores = stores_of([9] * 50)
    first, second, other = (
        [row.ids.tolist() for row in islice(rows(stores, bos=BOS, context=9, seed=seed), skip, skip + 50)]
        for seed, skip in ((0, 0), (0, 50), (1, 0))
    )
    assert sorted(first) == sorted(second) == sorted(other)
    assert first != second
    assert first != other


def test_the_largest_that_fits_is_placed() -> None:
    """Rows of 10: whoever opens one finds the partner that fills it, though a larger one waits as well."""
    stores = stores_of([5, 3] * 100 + [4] * 100)  # 6, 4 and 5 tokens with their BOS
    for row in islice(rows(stores, bos=BOS, context=9, seed=0), 60):
        assert sorted(np.diff([*np.flatnonzero(row.ids == BOS), 10])) in ([4, 6], [5, 5])
    assert row.cursor["cropped"] == 0


def test_a_long_document_loses_nothing() -> None:
    (store,) = stores_of([1000])
    epoch = first_epoch([store], 63)
    tokens = [int(token) for row in epoch for token in row.ids if token != BOS]
    assert tokens[:1000] == store.tokens.tolist()
    assert shares(epoch[-1].cursor) == {"cropped": 0.0, "padded": 0.0}


def test_what_is_cropped_is_short_and_counted() -> None:
    stores = stores_of([20] * 1000)  # never two in a row of 30
    epoch = first_epoch(stores, 29)
    assert all(np.count_nonzero(row.ids == BOS) == 2 for row in epoch)
    lost = shares(epoch[-1].cursor)["cropped"]
    assert 0.2 < lost < 0.3
    assert WORTH_KEEPING > 20


def test_realistic_documents_are_hardly_cropped() -> None:
    draw = np.random.default_rng(0)
    stores = stores_of(draw.integers(40, 800, 1500), draw.integers(20, 400, 4500))
    epoch = first_epoch(stores, 512)
    assert shares(epoch[-1].cursor)["cropped"] < 0.015
    assert len(json.dumps(epoch[50].cursor)) < 12_000
    # Short documents are not left for the end.
    count = [np.count_nonzero(row.ids == BOS) for row in epoch]
    assert abs(np.mean(count[: len(count) // 2]) - np.mean(count[len(count) // 2 :])) < 0.1


def test_weights_say_how_often_a_store_comes() -> None:
    stores = stores_of([9] * 40, [9] * 40)
    found = [row.ids[1] for row in islice(rows(stores, bos=BOS, context=9, seed=0, weights=[2, 0.5]), 100)]
    times = Counter(int(first) for first in found)
    assert [times[int(stores[0][index][0])] for index in range(40)] == [2] * 40
    assert sum(times[int(stores[1][index][0])] for index in range(40)) == 20
    more = [row.ids[1] for row in islice(rows(stores, bos=BOS, context=9, seed=0, weights=[0, 0.5]), 40)]
    assert len(set(more[:20])) == 20
    assert set(more[:20]) != set(more[20:])


def test_what_cannot_be_packed() -> None:
    with pytest.raises(DataError, match="documents to pack"):
        next(rows(stores_of([0, 0]), bos=BOS, context=8, seed=0))
    with pytest.raises(DataError, match="documents to pack"):
        next(rows([], bos=BOS, context=8, seed=0))
    with pytest.raises(DataError, match="2 weights"):
        next(rows(stores_of([1], [1]), bos=BOS, context=8, seed=0, weights=[1]))
    cursor = next(rows(stores_of([3, 4]), bos=BOS, context=8, seed=0)).cursor
    with pytest.raises(DataError, match="the corpus has changed"):
        next(rows(stores_of([3, 4, 5]), bos=BOS, context=8, seed=0, cursor=cursor))
    with pytest.raises(DataError, match="seed"):
        next(rows(stores_of([3, 4]), bos=BOS, context=8, seed=1, cursor=cursor))
