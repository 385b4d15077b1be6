"""Whole corpora are encoded by libraries: with our ids, whatever the text, and by ours where they fail."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.tokenizer import BulkEncoder, Tokenizer, bulk, train_tokenizer
from tests.oracles import texts

LIBRARIES = ("fastokens", "tiktoken")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([*texts.english(), *texts.mixed(500, seed=3)], 2000)


@pytest.fixture(scope="module")
def encoders(tokenizer: Tokenizer) -> list[BulkEncoder]:
    for name in LIBRARIES:
        pytest.importorskip(name)
    found = [BulkEncoder(tokenizer, [name]) for name in LIBRARIES]
    assert [encoder.backend for encoder in found] == list(LIBRARIES)
    return [*found, BulkEncoder(tokenizer, [])]


def rows(encoder: BulkEncoder, corpus: list[str]) -> list[list[int]]:
    ids, lengths = encoder.encode_batch(corpus)
    assert len(ids) == lengths.sum()
    ends = lengths.cumsum().tolist()
    return [ids[end - length : end].tolist() for end, length in zip(ends, lengths.tolist(), strict=True)]


@pytest.mark.parametrize(
    "corpus",
    [
        [],
        [""],
        ["", "a", ""],
        [*texts.SCRIPTS, texts.PROGRAM, texts.CONTRACTIONS],
        texts.every_character(3000),
        texts.long_runs(3000),
        texts.mixed(500),
        ["<|bos|>hello<|user_end|>", "<|assistant_start|>"],
        ["half \ud83d, two halves \ud83d\ude00"],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_every_backend_gives_the_ids_of_the_tokenizer(
    tokenizer: Tokenizer, encoders: list[BulkEncoder], corpus: list[str]
) -> None:
    ours = [tokenizer.encode(text) for text in corpus]
    for encoder in encoders:
        assert rows(encoder, corpus) == ours, encoder.backend


@given(st.lists(st.text(max_size=60), max_size=6))
def test_every_backend_gives_the_ids_of_the_tokenizer_whatever_the_text(
    tokenizer: Tokenizer, encoders: list[BulkEncoder], corpus: list[str]
) -> None:
    ours = [tokenizer.encode(text) for text in corpus]
    for encoder in encoders:
        assert rows(encoder, corpus) == ours, encoder.backend


def test_bytes_in_another_order(encoders: list[BulkEncoder]) -> None:
    turned = Tokenizer([(10, 20), (256, 30)], byte_ids=list(range(255, -1, -1)))
    for name in (*LIBRARIES, "none"):
        encoder = BulkEncoder(turned, [name] if name != "none" else [])
        assert rows(encoder, ["õëá õë", "é"]) == [turned.encode("õëá õë"), turned.encode("é")]


@pytest.mark.parametrize("installed", [(), ("tiktoken",), LIBRARIES])
def test_the_quickest_that_is_installed(
    tokenizer: Tokenizer, installed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(LIBRARIES) - set(installed):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert BulkEncoder(tokenizer).backend == next((name for name in LIBRARIES if name in installed), "nanochat")


def test_a_library_that_cannot_read_our_pattern_is_passed_over() -> None:
    for pattern in (r"(?V1)[[a-z]--[aeiou]]+", r"\w+"):  # one reads neither, tiktoken drops what lies between matches
        odd = train_tokenizer(texts.english()[:5], 300, pattern=pattern)
        encoder = BulkEncoder(odd)
        assert rows(encoder, ["one two", "x-y"]) == [odd.encode("one two"), odd.encode("x-y")]
        assert BulkEncoder(odd, ["tiktoken"]).backend == "nanochat"


def test_a_library_with_other_ids_is_passed_over(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Tokenizer(tokenizer.merges[:-200], specials={})
    monkeypatch.setattr(bulk, "tiktoken_encoder", lambda _: bulk.plain_encoder(wrong))
    assert BulkEncoder(tokenizer, ["tiktoken"]).backend == "nanochat"
