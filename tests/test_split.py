"""The held-out split: pinned, 1 in 20, with near-duplicates on one side."""

import hashlib
import re
import zipfile
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from nanochat.data.readers import Document
from nanochat.data.recipes import parse_recipes
from nanochat.data.sources import COOKBOOK
from nanochat.data.split import family, held_out, split_documents
from tests.oracles.wheels import wheel

PINNED = [13, 74, 89, 94, 104, 105, 113, 115, 163, 172, 182]  # of "document 0" to "document 199"


@pytest.mark.parametrize(
    "titles",
    [
        ("Apple Pie I", "Apple Pie II", "Apple Pie IV", "apple pies", "Cookbook:Apple Pie", "Easy Apple Pie (Vegan)"),
        ("African Salad", "African Salad II", "Salad (African) African", "The African Salads"),
        ("Crème Brûlée", "Creme Brulee", "CRÈME  BRÛLÉE III"),
        ("Chocolate Chip Cookies", "Chocolate-Chip Cookie", "Cookies with Chocolate Chips (Gluten-Free)"),
        ("Macaroni and Cheese", "Macaroni & Cheese", "Cheese Macaroni"),
        ("Banana Nutmeg Pancakes", "Corn Pancake II"),
        ("Baked Potatoes", "Baked Potato"),
        ("World War I", "World War II"),
    ],
)
def test_near_duplicates_are_one_family(titles: tuple[str, ...]) -> None:
    assert len({family(title) for title in titles}) == 1
    assert len({held_out(title) for title in titles}) == 1


@pytest.mark.parametrize(
    "titles",
    [("Apple Pie", "Apple Cake"), ("Chapter 1", "Chapter 2"), ("Vitamin C", "Vitamin D"), ("日本", "中国")],
)
def test_others_are_not(titles: tuple[str, str]) -> None:
    assert family(titles[0]) != family(titles[1])


@pytest.mark.parametrize("title", ["II", "The", "(Vegan)", "A la", "!?", "日本", "x"])
def test_every_title_has_a_family(title: str) -> None:
    assert family(title)
    assert family(family(title)) == family(title)


def test_the_decision_is_pinned() -> None:
    """By the formula in other words, and by names that must never move to the other side."""
    for title in ("Apple Pie II", "Tomato", "日本"):
        digest = hashlib.blake2b(f"held-out\x1f{family(title)}".encode(), digest_size=8).digest()
        assert held_out(title) == ((int.from_bytes(digest, "little") // 2) % 20 == 0)
    titles = [f"document {number}" for number in range(200)]
    assert [number for number, title in enumerate(titles) if held_out(title)] == PINNED


def test_one_in_twenty() -> None:
    titles = [f"{number} sauce" for number in range(20_000)]
    assert 0.045 < sum(map(held_out, titles)) / len(titles) < 0.055


def documents_of(*titles: str) -> list[Document]:
    return [Document(title, title, "test") for title in titles]


def test_documents_are_split_in_order() -> None:
    everything = documents_of(*(f"document {number}" for number in range(400)))
    training, held = split_documents(everything)
    assert held == [document for document in everything if held_out(document.title)]
    assert training == [document for document in everything if not held_out(document.title)]
    assert held


def test_a_small_corpus_has_both_sides() -> None:
    assert not any(map(held_out, ("Soup", "Bread I", "Bread II")))
    training, held = split_documents(documents_of("Soup", "Bread I", "Bread II"))
    assert training
    assert held
    assert len(training) + len(held) == 3
    assert {family(document.title) for document in training}.isdisjoint(family(document.title) for document in held)
    assert split_documents(documents_of("Soup")) == (documents_of("Soup"), [])
    assert split_documents([]) == ([], [])


@pytest.mark.slow
def test_no_held_out_recipe_is_nearly_in_training() -> None:
    """Word 4-grams of ingredients and steps, every pair of recipes that shares any."""
    with zipfile.ZipFile(wheel(COOKBOOK.location, COOKBOOK.revision, COOKBOOK.sha256)) as file:
        recipes, _ = parse_recipes(file.read(COOKBOOK.member))
    shingles = []
    for recipe in recipes:
        words = re.findall(r"\w+", " ".join(recipe.ingredients + recipe.steps).casefold())
        shingles.append(frozenset(zip(*(words[start:] for start in range(4)), strict=False)))
    holders = defaultdict(list)
    for number, found in enumerate(shingles):
        for shingle in found:
            holders[shingle].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in holders.values():
        if len(numbers) < 300:  # "bring to a boil" says nothing
            shared.update(combinations(numbers, 2))
    across = [pair for pair in shared if held_out(recipes[pair[0]].title) != held_out(recipes[pair[1]].title)]
    jaccard = max(shared[a, b] / len(shingles[a] | shingles[b]) for a, b in across)
    contained = max(shared[a, b] / min(len(shingles[a]), len(shingles[b])) for a, b in across)
    assert jaccard < 0.45
    assert contained < 0.65
    assert max(shared[a, b] / len(shingles[a] | shingles[b]) for a, b in shared) > 0.8  # there is something to find
    assert 150 < sum(held_out(recipe.title) for recipe in recipes) < 190
