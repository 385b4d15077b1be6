"""What holds for every task: examples are pure functions, splits are apart, references are right, calls are true."""

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.data.split import held_out
from nanochat.tasks import (
    SUITES,
    Example,
    Kitchen,
    Task,
    arithmetic,
    catalogue,
    choice,
    copying,
    example_for,
    follow_up,
    mixture,
    pantry,
    recipes,
    scaling,
    spelling,
    stories,
    talk,
    tools_for,
    units,
)
from nanochat.tasks.grading import plain
from nanochat.tasks.mixture import MIXTURES
from nanochat.tasks.task import is_held_out
from nanochat.tasks.wording import Wordings
from nanochat.tokenizer.chat import Call, Message, Output, Text, check, message
from nanochat.tools import Tool, run_call
from oracles.kitchen import KITCHEN

TASKS = catalogue(KITCHEN)
TOOLS = tools_for(KITCHEN)
CALLING = ("arithmetic", "stories", "scaling", "units", "recipes", "follow_up", "unknown_dish", "pantry")


def all_wordings() -> list[Wordings]:
    """Every set of wordings that any task uses, once; their names are different."""
    found = {id(wordings): wordings for wordings in wordings_of_modules()}
    assert len({wordings.name for wordings in found.values()}) == len(found) > 130
    return list(found.values())


def wordings_of_modules() -> Iterator[Wordings]:
    modules = (arithmetic, choice, copying, follow_up, pantry, recipes, scaling, spelling, stories, talk, units)
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Wordings):
                yield value
            elif isinstance(value, dict):
                for item in value.values():
                    item = getattr(item, "wordings", item)
                    if isinstance(item, Wordings):
                        yield item
    for task in (TASKS["small_talk"], TASKS["limits"]):
        assert isinstance(task, talk.Talk)
        yield from (exchange.wordings for exchange in task.exchanges)


def examples(task: Task, split: str, count: int) -> list[Example]:
    return [task.example(split, index) for index in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_examples_are_pure_functions_of_split_index_and_seed(name: str) -> None:
    first, again = TASKS[name], catalogue(KITCHEN)[name]
    backwards = [again.example("train", index) for index in reversed(range(20))]
    assert [first.example("train", index) for index in range(20)] == backwards[::-1]
    assert len({str(example.conversation) for example in examples(first, "train", 60)}) > 15
    assert [first.example("train", index, 1) for index in range(20)] != backwards[::-1]
    assert examples(first, "test", 20) != examples(first, "train", 20)


@pytest.mark.parametrize("split", ["train", "test", "familiar"])
@pytest.mark.parametrize("name", TASKS)
def test_references_are_right_and_true(name: str, split: str) -> None:
    """The reference answer gets the whole reward, is a conversation, and every output is what the tool answers."""
    task = TASKS[name]
    calls = 0
    for example in examples(task, split, 500):
        check(example.conversation)
        assert example.reference.role == "assistant"
        grade = task.grade(example, example.reference)
        assert grade.right, (example, grade)
        calls += count_true_calls(example, TOOLS)
    assert (calls >= 350) == (name in CALLING)


def count_true_calls(example: Example, tools: dict[str, Tool]) -> int:
    """How many calls the conversation holds; each must be answered by what the tool gives."""
    count = 0
    for turn in example.conversation:
        for part, after in zip(turn.parts, turn.parts[1:], strict=False):
            if isinstance(part, Call):
                assert after == Output(run_call(tools, str(part))), example
                count += 1
    return count


@pytest.mark.parametrize("name", TASKS)
def test_other_answers_get_less(name: str) -> None:
    """An empty answer gets nothing, and the answer to another question is seldom right."""
    task = TASKS[name]
    found = examples(task, "test", 60)
    rewards = []
    for example, other in zip(found, found[7:], strict=False):
        assert task.grade(example, Message("assistant", ())).reward <= 0.2
        assert task.grade(example, message("assistant", "")).reward <= 0.2
        wrong = "Elephants sing."
        assert task.grade(example, message("assistant", wrong)).reward < 0.5
        if plain(example.reference.text) != plain(other.reference.text):
            rewards.append(task.grade(example, other.reference).right)
    assert sum(rewards) <= 0.35 * len(rewards)


@pytest.mark.parametrize("name", TASKS)
def test_grades_are_between_nought_and_one(name: str) -> None:
    task = TASKS[name]
    for example in examples(task, "test", 30):
        text = example.reference.text
        for reply in (text, text * 2, text[: len(text) // 2], f"{text} 12 or 140?", text.upper(), "½ /0 1/0 -,. 1,2,3"):
            for parts in ((Text(reply),), (*example.reference.parts[:-1], Text(reply))):
                grade = task.grade(example, Message("assistant", parts))
                assert 0 <= grade.reward <= 1
                assert grade.reason


@pytest.mark.parametrize("name", TASKS)
def test_no_wording_of_the_test_split_is_met_in_training(name: str) -> None:
    task = TASKS[name]
    trained = {example.wording for example in examples(task, "train", 500)}
    tested = {example.wording for example in examples(task, "test", 500)}
    assert not trained & tested
    assert len(trained) >= 8
    assert len(tested) >= 4
    familiar = {example.wording for example in examples(task, "familiar", 100)}
    assert all(".train." in wording for wording in trained | familiar)
    assert all(".test." in wording for wording in tested)


def bare(template: str) -> str:
    """A template without the names of its fields, case and signs: what would be the same wording."""
    pieces = (piece for piece, *_ in string.Formatter().parse(template))
    return " _ ".join(plain(piece) for piece in pieces)


def test_no_text_of_a_held_out_wording_is_a_training_wording() -> None:
    everything = all_wordings()
    trained = {bare(template) for wordings in everything for template in wordings.train}
    tested = {bare(template) for wordings in everything for template in wordings.test}
    assert not trained & tested
    for wordings in everything:
        assert len({bare(template) for template in wordings.train}) == len(wordings.train), wordings.name


def test_families_have_enough_wordings() -> None:
    """Each kind of question has eight wordings or more in training and four held out; talk has them by file."""
    for wordings in all_wordings():
        if not wordings.name.startswith(("small_talk.", "limits.")):
            assert len(wordings.train) >= 8, wordings.name
            assert len(wordings.test) >= 4, wordings.name
        else:
            assert len(wordings.train) >= 3, wordings.name
            assert len(wordings.test) >= 1, wordings.name


@pytest.mark.parametrize("name", ["arithmetic", "stories", "scaling", "units"])
def test_no_problem_of_the_test_split_is_met_in_training(name: str) -> None:
    task = TASKS[name]
    trained = {str(example.truth["expression"]) for example in examples(task, "train", 3000)}
    for split in ("test", "familiar"):
        assert not trained & {str(example.truth["expression"]) for example in examples(task, split, 1000)}


def test_words_and_dishes_are_held_out() -> None:
    for split, held in (("train", False), ("test", True), ("familiar", True)):
        assert {is_held_out(example.truth["word"]) for example in examples(TASKS["spelling"], split, 300)} == {held}
        titles = {str(example.truth["title"]) for example in examples(TASKS["recipes"], split, 300)}
        kitchen = Kitchen(KITCHEN)
        assert titles <= {recipe.title for recipe in kitchen.sides[held]}
    assert {recipe.title for recipe in Kitchen(KITCHEN).sides[True]} >= {r.title for r in KITCHEN if held_out(r.title)}


def test_mixtures_are_tables_of_known_tasks() -> None:
    for stage in MIXTURES:
        table = mixture(stage)
        assert set(table) <= set(TASKS)
        assert sum(table.values()) == 100
    assert set(TASKS) == {name for table in MIXTURES.values() for name in table}
    assert {name for suite in SUITES.values() for name in suite.tasks} <= set(TASKS)


def test_examples_of_a_mixture_have_random_access() -> None:
    table = mixture("sft")
    drawn = [example_for(TASKS, table, index, seed=3) for index in range(400)]
    assert [example_for(TASKS, table, index, seed=3) for index in (399, 0, 17)] == [drawn[399], drawn[0], drawn[17]]
    share = sum(name == "recipes" for name, _ in drawn) / len(drawn)
    assert abs(share - table["recipes"] / 100) < 0.08
    assert all(".train." in example.wording for _, example in drawn)
    other = [example_for(TASKS, mixture("midtrain"), index, seed=3)[1] for index in range(400)]
    assert not {str(example.conversation) for _, example in drawn} & {
        str(e.conversation) for e in other if "copy" in e.wording
    }


def test_tools_know_held_out_dishes() -> None:
    assert set(TOOLS) == {"calculator", "find"}
    for recipe in KITCHEN:
        assert run_call(TOOLS, f"find {recipe.title.lower()}").startswith(recipe.title)


def test_development_prompts_are_not_trained_on() -> None:
    """The prompts that the assistant is judged by stay out of what it learns; bare greetings cannot."""
    path = Path(__file__).parents[2] / "shared" / "prompts" / "kitchen_dev.jsonl"
    if not path.exists():
        pytest.skip("needs the prompts in ../shared")
    prompts = {plain(turn) for turn in re.findall(r'"([^"]*)"(?=[,\]])', path.read_text().replace('"id"', ""))}
    trained = {plain(template) for wordings in all_wordings() for template in wordings.train}
    assert trained & prompts <= {"hello", "thanks", "good morning"}
