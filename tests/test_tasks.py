"""What holds for every task: examples are pure functions, splits are apart, references are right, calls are true."""

import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nanochat import keyed
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
from nanochat.tasks.wording import Wordings, filled, templates
from nanochat.tokenizer.chat import Call, Message, Output, Part, Text, check, message
from nanochat.tools import Tool, run_call
from oracles.kitchen import KITCHEN

TASKS = catalogue(KITCHEN)
HELD_OUT = ("wordings_held_out.jsonl", "talk_held_out.jsonl")
TOOLS = tools_for(KITCHEN)
CALLING = {
    "arithmetic", "stories", "scaling", "units", "recipes", "follow_up", "unknown_dish", "pantry", "chain",
    "substitutions", "knowledge", "how_to", "spelling",
}  # fmt: skip
# Where the whole question is looked up, in words that no note has, what comes back is not always the answer to it.
AT_LEAST = {("how_to", "test"): 0.7, ("chain", "test"): 0.95}


def test_in_training_long_questions_lack_words_at_times_and_never_what_they_are_about() -> None:
    told = Wordings("x", ("Would you be so kind and tell me about {dish} for once?",), ("Say {dish}.",))
    asked = [told.ask("train", keyed.rng(0, index), {"dish": "the apple pie of my aunt"}).text for index in range(400)]
    kept = [text for text in asked if "kind and tell me about" in text.lower()]
    assert all("the apple pie of my aunt" in text.lower() for text in asked)
    assert 220 < len(kept) < 380
    whole = Wordings("x", ("How is {dish} made?",), ())
    few = [whole.ask("train", keyed.rng(0, index), {"dish": "pie"}).text.lower() for index in range(200)]
    assert sum("how is pie made" in text for text in few) > 180  # the others have a typo


def all_wordings() -> list[Wordings]:
    """Every set of wordings that any task uses, once; their names are different."""
    found = {id(wordings): wordings for wordings in wordings_of_modules()}
    assert len({wordings.name for wordings in found.values()}) == len(found) > 600
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
    how_to = TASKS["how_to"]
    assert isinstance(how_to, talk.HowTo)
    yield from (wordings for wordings, _ in how_to.exchanges)


def test_every_wording_that_was_written_is_used() -> None:
    used = {wordings.name for wordings in all_wordings()}
    assert used == {name for file in HELD_OUT for name in templates(file, "test")}


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
@pytest.mark.parametrize("name", [name for name in TASKS if not name.endswith("_calls")])
def test_references_are_right_and_true(name: str, split: str) -> None:
    """The reference answer gets the whole reward, is a conversation, and every output is what the tool answers."""
    task = TASKS[name]
    calls, wrong = 0, []
    for example in examples(task, split, 500):
        check(example.conversation)
        assert example.reference.role == "assistant"
        grade = task.grade(example, example.reference)
        if not grade.right:
            wrong.append((example.question[-1].text, example.reference.text, grade.reason))
        calls += count_true_calls(example, TOOLS)
    assert len(wrong) <= 500 * (1 - AT_LEAST.get((name, split), 1)), wrong
    assert (calls >= 350) == (name in CALLING)


@pytest.mark.parametrize("name", [name for name in TASKS if name.endswith("_calls")])
def test_a_lesson_in_calling_ends_with_the_call(name: str) -> None:
    """In training; elsewhere it is the other task. The rendering leaves the turn open: its tool has yet to answer."""
    task, other = TASKS[name], TASKS[name.removesuffix("_calls")]
    for example, whole in zip(examples(task, "train", 60), examples(other, "train", 60), strict=True):
        assert example.question == whole.question
        parts, length = whole.reference.parts, len(example.reference.parts)
        assert example.reference.parts == parts[:length]
        assert (
            [isinstance(part, Call) for part in parts[:length]].index(True) == length - 1 if calls_in(parts) else True
        )
    for split in ("test", "familiar"):
        assert examples(task, split, 20) == examples(other, split, 20)


def calls_in(parts: Sequence[Part]) -> list[Call]:
    return [part for part in parts if isinstance(part, Call)]


def without_words(text: str) -> str:
    """`text` without the words that training may replace by others."""
    return re.sub("[A-Za-z]{4,}", "", text)


def count_true_calls(example: Example, tools: dict[str, Tool]) -> int:
    """How many calls the conversation holds; each must be answered by what the tool gives, but for altered words."""
    count = 0
    for turn in example.conversation:
        for part, after in zip(turn.parts, turn.parts[1:], strict=False):
            if isinstance(part, Call):
                assert isinstance(after, Output), example
                assert without_words(after.text) == without_words(run_call(tools, str(part))), example
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
    """A template without the names of its fields, case and signs: what would be the same wording.

    Where nothing else is left, the signs count: "???" is not "{dish}", nor is "{a}+{b}" "{a}*{b}".
    """
    pieces = [(words, "_" * (name is not None)) for words, name, *_ in string.Formatter().parse(template)]
    kept = " ".join(f"{plain(words)} {field}" for words, field in pieces).split()
    return " ".join(kept) if set(kept) > {"_"} else "".join(words + field for words, field in pieces)


def test_no_text_of_a_held_out_wording_is_a_training_wording() -> None:
    everything = all_wordings()
    trained = {bare(template): wordings.name for wordings in everything for template in wordings.train}
    tested = {bare(template): wordings.name for wordings in everything for template in wordings.test}
    assert {text: (name, trained[text]) for text, name in tested.items() if text in trained} == {}
    for wordings in everything:
        assert len(set(wordings.train)) == len(wordings.train), wordings.name
        assert len({bare(template) for template in wordings.test}) == len(wordings.test), wordings.name


def test_families_have_enough_wordings() -> None:
    """Each kind of question has eight wordings or more in training and four held out; what people say has fewer."""
    for wordings in all_wordings():
        is_talk = wordings.name.startswith(("small_talk.", "limits.", "how_to."))
        assert len(wordings.train) >= (2 if is_talk else 8), wordings.name
        assert len(wordings.test) >= (1 if is_talk else 4), wordings.name


MAY_LACK = {"scaling.": {"dish", "many"}, "stories.": {"things", "one", "many"}}  # what an answer can be given without


def test_every_wording_has_all_that_is_asked_about() -> None:
    """A kind of question has one set of fields; without one of them nobody could know the answer."""
    for wordings in all_wordings():
        found = {template: set(fields_of(template)) for template in (*wordings.train, *wordings.test)}
        everything = set().union(*found.values())
        if everything != {"x"}:  # in talk, an exchange is answered alike with and without it
            needed = everything - MAY_LACK.get(f"{wordings.name.split('.')[0]}.", set())
            assert {template: needed - fields for template, fields in found.items() if needed - fields} == {}
        for template in found:
            pieces = filled(template, dict.fromkeys(everything, "17"))
            text = "".join(piece for _, piece in pieces)
            assert text.strip(), wordings.name
            assert not set("{}") & set(text), template
            assert sum(name != "" for name, _ in pieces) == len(fields_of(template))


def fields_of(template: str) -> list[str]:
    return [name for _, name, *_ in string.Formatter().parse(template) if name]


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
