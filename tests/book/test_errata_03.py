"""What the original guide had wrong about tokenization, and what is right (educational/03_tokenization.md)."""

import ast
import builtins
import re
from collections import Counter
from pathlib import Path

import pytest

from educational.lesson import changed
from nanochat.keyed import rng
from nanochat.tokenizer import PATTERN, Tokenizer, train_tokenizer, training

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "educational" / "03_tokenization.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run -->\n```python\n(.*?)```", CHAPTER, re.DOTALL)
SENTENCE = "2 cups of flour serve 4"


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return Tokenizer.load(ROOT / "runs" / "reference" / "tokenizer")


# The worked example broke a tie differently from the code.


def test_the_worked_example_makes_the_merges_that_the_code_makes() -> None:
    merges = train_tokenizer(["cup cups cupcake"], 259, specials=()).merges
    spelled: dict[str, int] = {chr(byte): byte for byte in range(128)} | {"␣": 32}
    told = []
    for left, right, new in re.findall(r"\| (\S+)\+(\S+) → (\d+) \|", CHAPTER):
        told.append((spelled[left], spelled[right]))
        assert int(new) == 255 + len(told)
        spelled[left + right] = int(new)
    assert told == merges == [(99, 117), (256, 112), (32, 257)]


def test_another_rule_for_ties_gives_the_same_ids_by_other_merges_on_this_text_and_not_on_others() -> None:
    ours, other = Tokenizer([(104, 117), (256, 103)]), Tokenizer([(117, 103), (104, 256)])
    assert train_tokenizer(["hug hug"], 258, specials=()).merges == ours.merges
    assert ours.encode("hug hug") == other.encode("hug hug")
    assert ours.encode("mug") != other.encode("mug")


# A `for` loop with `continue` burned merge slots.


def corpora() -> list[Counter[str]]:
    draw = rng(0, "errata 3")
    texts = [" ".join("".join(draw.choices("abcde", k=draw.randrange(1, 9))) for _ in range(60)) for _ in range(20)]
    return [training.count_pieces([text], PATTERN) for text in texts]


def test_stale_entries_cost_no_merge() -> None:
    burning = changed(training, "while queue and len(merges) < wanted:", "for _ in range(wanted):")
    short = 0
    for counts in corpora():
        assert len(training.learn_merges(counts, 20)) == 20
        short += len(burning.learn_merges(counts, 20)) < 20
    assert short > 10


def test_a_vocabulary_has_the_size_that_was_asked_for() -> None:
    for size in (267, 280, 290):
        assert train_tokenizer(["Stir the rice, fold the batter, serve the berries. " * 3], size).vocab_size == size


# Sample ids came from two vocabularies.


def test_the_ids_of_the_running_example_are_those_of_the_shipped_vocabulary(shipped: Tokenizer) -> None:
    ids = shipped.encode(SENTENCE)
    assert ids == [50, 699, 277, 701, 1346, 32, 52]
    assert str(ids) in CHAPTER
    assert shipped.decode(ids) == SENTENCE


def test_lists_that_the_chapter_prints_for_the_sentence_are_all_the_same(shipped: Tokenizer) -> None:
    lists = [[int(number) for number in found.split(", ")] for found in re.findall(r"\[(50(?:, \d+)+)\]", CHAPTER)]
    assert len(lists) >= 3
    assert all(ids in (list(SENTENCE.encode()), shipped.encode(SENTENCE)) for ids in lists)


def test_ids_of_another_vocabulary_mean_something_else(shipped: Tokenizer) -> None:
    hello_of_cl100k = [9906, 1917]  # not one of ours at all
    assert shipped.decode(hello_of_cl100k[1:]) != " world"
    assert shipped.encode("Hello world") != hello_of_cl100k


# Names that nobody defined.


def test_every_name_in_the_chapters_code_is_defined_before_it_is_used() -> None:
    assert len(BLOCKS) > 25
    known = set(dir(builtins))
    for block in BLOCKS:
        tree = ast.parse(block)
        known |= bound(tree)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert used <= known, f"{sorted(used - known)} in:\n{block}"


def bound(tree: ast.AST) -> set[str]:
    """What a block defines, whatever the kind: assignments, loops, arguments, imports, functions, exceptions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def test_the_check_for_names_finds_one() -> None:
    assert "vocab" not in bound(ast.parse("print(vocab)"))
    assert {"a", "b", "c", "d"} <= bound(ast.parse("import a\nfor b in []: pass\ndef c(d): pass"))
