import doctest
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from nanochat.errors import TokenizerError
from nanochat.keyed import rng
from nanochat.tokenizer import Tokenizer, tokenizer_json, train_tokenizer
from tests.oracles import texts

Document = dict[str, Any]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return train_tokenizer([*texts.english(), *texts.SCRIPTS * 3], 1200)


@pytest.fixture(scope="module")
def folder(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    ours.save(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_example_in_the_docstring() -> None:
    result = doctest.testmod(tokenizer_json)
    assert (result.attempted, result.failed) == (1, 0)


def test_the_alphabet_is_that_of_tokenizers() -> None:
    assert sorted(tokenizer_json.ALPHABET) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    spell = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("".join(map(chr, range(256))), *texts.every_character(2000)):
        assert spell.pre_tokenize_str(text)[0][0] == tokenizer_json.spell(text.encode())


def assert_same(ours: Tokenizer, theirs: tokenizers.Tokenizer, corpus: list[str]) -> None:
    for text in corpus:
        ids = ours.encode(text)
        assert theirs.encode(text).ids == ids, text
        assert theirs.decode(ids, skip_special_tokens=False) == text


def test_tokenizers_gives_the_same_ids(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    assert theirs.get_vocab_size() == ours.vocab_size == 1200
    assert {name: theirs.token_to_id(name) for name in ours.specials} == ours.specials
    assert_same(ours, theirs, [*texts.every_character(), *texts.mixed(1500)])
    assert_same(ours, theirs, texts.long_runs(20_000))
    # Our source names special tokens, and `tokenizers` alone would find them.
    assert_same(ours, theirs, [text.replace("<|", "< |") for text in texts.english()])


@given(st.text(max_size=100, alphabet=st.characters(categories=["L", "N", "P", "S", "Z"], max_codepoint=0x2000)))
def test_tokenizers_gives_the_same_ids_for_any_text(ours: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    assert theirs.encode(text).ids == ours.encode(text)


def test_tokenizers_decodes_any_ids_alike(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    draw = rng(0, "ids to decode")
    for _ in range(500):
        ids = draw.choices(range(ours.vocab_size), k=draw.randrange(1, 30))
        assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)


def test_only_tokenizers_finds_special_tokens_in_text(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    text = "hello<|assistant_end|>"
    assert theirs.encode(text).ids[-1] == ours.special("<|assistant_end|>")
    assert ours.special("<|assistant_end|>") not in ours.encode(text)


def test_a_pattern_that_leaves_characters_out(tmp_path: Path) -> None:
    ours = train_tokenizer(texts.english(), 400, pattern=r"[a-z]+|\d")
    ours.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert_same(ours, theirs, texts.mixed(300))


@pytest.mark.slow
def test_transformers_gives_the_same_ids(ours: Tokenizer, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert len(theirs) == theirs.vocab_size == ours.vocab_size
    for text in [*texts.mixed(200), *texts.SCRIPTS]:
        assert theirs(text)["input_ids"] == ours.encode(text)


# Reading and writing


def test_what_is_saved_comes_back(ours: Tokenizer, folder: Path) -> None:
    again = Tokenizer.load(folder)
    assert again.fingerprint == ours.fingerprint
    assert (again.vocab_size, again.pattern) == (ours.vocab_size, ours.pattern)
    assert (again.merges, again.specials) == (ours.merges, ours.specials)
    for text in texts.mixed(100):
        assert again.encode(text) == ours.encode(text)
    assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]


def test_bytes_in_another_order_come_back(tmp_path: Path) -> None:
    shuffled = rng(0, "byte order").sample(range(256), 256)
    ours = Tokenizer([(5, 6), (256, 7)], specials={"<|x|>": 258}, byte_ids=shuffled)
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint
    assert_same(ours, tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts.mixed(50))


def test_a_vocabulary_without_merges_or_specials(tmp_path: Path) -> None:
    Tokenizer([]).save(tmp_path / "deep" / "folder")
    assert Tokenizer.load(tmp_path / "deep" / "folder").vocab_size == 256


def test_what_tokenizers_saves_again_can_be_read(ours: Tokenizer, theirs: tokenizers.Tokenizer, tmp_path: Path) -> None:
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint


def test_merges_in_the_old_spelling_can_be_read(ours: Tokenizer, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint


def put(*keys: str | int, value: Any) -> Callable[[Document], None]:
    """A change of one place in the file."""

    def change(document: Document) -> None:
        place: Any = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def swap_merges(document: Document) -> None:
    merges = document["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


CHANGES = {
    "no model": lambda document: document.pop("model"),
    "no vocabulary": lambda document: document["model"].pop("vocab"),
    "no pre_tokenizer": put("pre_tokenizer", value=None),
    "another cut": put("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"),
    "a prefix space": put("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True),
    "lower case": put("normalizer", value={"type": "Lowercase"}),
    "another decoder": put("decoder", value={"type": "WordPiece"}),
    "no decoder": put("decoder", value=None),
    "another model": put("model", "type", value="WordPiece"),
    "byte fallback": put("model", "byte_fallback", value=True),
    "dropout": put("model", "dropout", value=0.1),
    "a broken pattern": put("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value="("),
    "a pattern that is no text": put("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value=7),
    "a token that no merge makes": put("model", "vocab", "zzzz", value=5000),
    "a byte missing": lambda document: document["model"]["vocab"].pop("Ġ"),
    "an id that is text": put("model", "vocab", "a", value="97"),
    "an id that is true": put("model", "vocab", "Ā", value=False),
    "an id twice": put("model", "vocab", "a", value=98),
    "vocabulary a list": put("model", "vocab", value=[]),
    "merges a number": put("model", "merges", value=3),
    "merges out of order": swap_merges,
    "a merge missing": lambda document: document["model"]["merges"].pop(),
    "a merge of three": put("model", "merges", 0, value=["a", "b", "c"]),
    "a merge of numbers": put("model", "merges", 0, value=[97, 98]),
    "a special that strips": put("added_tokens", 0, "lstrip", value=True),
    "an added token that is ordinary": put("added_tokens", 0, "special", value=False),
    "a special with two ids": put("added_tokens", 0, "id", value=1),
    "added tokens missing": put("added_tokens", value=[]),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_a_file_of_another_kind_is_refused(fault: str, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    CHANGES[fault](document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert_refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000, b"{}", b"\x00" * 1000, b'{"model": NaN}'],
    ids=lambda content: repr(content[:10]),
)
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert_refused(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(share: float, folder: Path, tmp_path: Path) -> None:
    content = (folder / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(content[: int(len(content) * share)])
    assert_refused(tmp_path)


def assert_refused(folder: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert caught.value.remedy


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="No such file or directory; train one with `nanochat tokenizer`"):
        Tokenizer.load(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written(ours: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(TokenizerError, match=r"expected to write .*; got .*; free some space or choose another folder"):
        ours.save(tmp_path / "file")


def test_a_full_disk_leaves_the_old_file_whole(
    ours: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tokenizer([]).save(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TokenizerError, match="No space left on device"):
            ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).vocab_size == 256
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
