"""Merges told one by one end where the tokenizer does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.checkpoint import run_folder
from nanochat.errors import UsageError
from nanochat.serve.merges import merges, pieces, spelled
from nanochat.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(run_folder("reference") / "tokenizer")
TEXTS = st.text(min_size=1, max_size=40)


def replayed(piece: str) -> list[list[int]]:
    """The ids after no merge, after one, ..."""
    ids, done = merges(TOKENIZER, piece)
    states = [list(ids)]
    for merge in done:
        assert states[-1][merge.at : merge.at + 2] == [merge.left, merge.right]
        assert TOKENIZER.merges[merge.rank] == (merge.left, merge.right)
        states.append([*states[-1][: merge.at], merge.new, *states[-1][merge.at + 2 :]])
    return states


@given(TEXTS)
def test_pieces_make_up_the_text_and_their_ids_are_its_own(text: str) -> None:
    found = pieces(TOKENIZER, text)
    assert "".join(piece for piece, _ in found) == text
    assert [token for _, ids in found for token in ids] == TOKENIZER.encode(text)


@given(TEXTS)
def test_merges_lead_from_bytes_to_the_tokens(text: str) -> None:
    for piece, ids in pieces(TOKENIZER, text):
        states = replayed(piece)
        assert states[0] == list(piece.encode())
        assert states[-1] == ids


def test_the_pair_that_was_learned_first_goes_first() -> None:
    tokenizer = Tokenizer([(108, 111), (256, 119), (32, 257), (258, 101)])
    begin, done = merges(tokenizer, " lower")
    assert begin == list(b" lower")
    assert [(merge.at, merge.new, merge.rank) for merge in done] == [(1, 256, 0), (1, 257, 1), (0, 258, 2), (0, 259, 3)]


def test_tokens_are_spelled() -> None:
    special = TOKENIZER.special("<|bos|>")
    found = spelled(TOKENIZER, [special, 0xC3, 65])
    assert found[0] == {"id": special, "text": "<|bos|>", "bytes": "", "special": True}
    assert found[1] == {"id": 0xC3, "text": "\ufffd", "bytes": "c3", "special": False}
    assert found[2] == {"id": 65, "text": "A", "bytes": "41", "special": False}


def test_long_texts_and_pieces_are_refused() -> None:
    with pytest.raises(UsageError, match="8,192 characters"):
        pieces(TOKENIZER, "a" * 8193)
    for piece in ("", "é" * 129):
        with pytest.raises(UsageError, match="1 to 256 bytes"):
            merges(TOKENIZER, piece)
