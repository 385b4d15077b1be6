"""Talk and notes: the data files hold together, notes are found, and answers about them are graded."""

import random
from collections import Counter
from typing import Any

import pytest

from nanochat.tasks import Kitchen, Task, catalogue
from nanochat.tasks.chain import SUBJECTS, Chain
from nanochat.tasks.grading import grade_mentions, plain
from nanochat.tasks.recipes import KINDS
from nanochat.tasks.talk import BE_CAREFUL, DO_NOT_KNOW, IGNORANCE
from nanochat.tasks.task import Example, Split, dialogue, is_held_out
from nanochat.tasks.wording import LEADS, TAILS, Wordings, rows_of, templates
from nanochat.tokenizer.chat import Call, Message, Output, Text, message
from nanochat.tools import NOTHING
from oracles.kitchen import KITCHEN

HOME = Kitchen(KITCHEN)
TASKS = catalogue(KITCHEN)
EXCHANGES = {"small_talk": "smalltalk.jsonl", "limits": "limits.jsonl", "how_to": "howto.jsonl"}
NOTES = ("knowledge.jsonl", "substitutions.jsonl")
SPLITS: tuple[Split, ...] = ("train", "test", "familiar")


def said(text: str) -> Message:
    return message("assistant", text)


# ---------------------------------------------------------------------------------------------------------------------
# The data
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*EXCHANGES.values(), *NOTES])
def test_rows_have_one_name_and_known_fields(file: str) -> None:
    name, needed, more = "item", {"item", "reply", "must"}, set()
    if file not in NOTES:
        name, needed, more = "id", {"id", "train", "replies", "must"}, {"never", "fill", "weight", "what"}
    rows = rows_of(file)
    assert [name for name, count in Counter(plain(row[name]) for row in rows).items() if count > 1] == []
    for row in rows:
        assert needed <= set(row) <= needed | more, row
        assert all(row[field] for field in needed), row
        assert row.get("weight", 1) > 0


@pytest.mark.parametrize("file", ["wordings.jsonl", "wordings_held_out.jsonl", "talk_held_out.jsonl"])
def test_wordings_have_one_name(file: str) -> None:
    assert [name for name, count in Counter(row["name"] for row in rows_of(file)).items() if count > 1] == []


def test_whatever_is_learned_is_asked_in_other_words_too() -> None:
    learned = set(templates("wordings.jsonl", "train"))
    in_two = {"recipes.about", *(f"recipes.it.{kind}" for kind in KINDS)}  # more ways to ask what recipes.* ask
    assert in_two <= learned
    assert learned - in_two == set(templates("wordings_held_out.jsonl", "test"))
    names = {f"{task}.{row['id'].replace(' ', '_')}" for task, file in EXCHANGES.items() for row in rows_of(file)}
    assert set(templates("talk_held_out.jsonl", "test")) == names


@pytest.mark.parametrize("file", [*EXCHANGES.values(), *NOTES])
def test_every_reply_says_what_it_must(file: str) -> None:
    wrong = []
    for row in rows_of(file):
        assert all(group and all(map(plain, group)) for group in row["must"]), row
        for reply in row.get("replies") or [row["reply"]]:
            grade = grade_mentions(said(reply), row["must"], row.get("never", []), len(reply))
            wrong += [] if grade.right else [(row.get("id") or row["item"], reply, grade.reason)]
    assert wrong == []


@pytest.mark.parametrize("file", EXCHANGES.values())
def test_what_fills_a_wording_is_there_and_held_out(file: str) -> None:
    task = next(task for task, other in EXCHANGES.items() if other == file)
    for row in rows_of(file):
        tested = templates("talk_held_out.jsonl", "test")[f"{task}.{row['id'].replace(' ', '_')}"]
        has_place = [any("{x}" in wording for wording in side) for side in (row["train"], tested)]
        assert has_place == ["fill" in row] * 2, row["id"]
        if "fill" in row:
            train, test = ([plain(filling) for filling in row["fill"][side]] for side in ("train", "test"))
            assert set(row["fill"]) == {"train", "test"}
            assert min(len(train), len(test)) > 0
            assert len(set(train)) == len(train)
            assert len(set(test)) == len(test)
            assert not set(train) & set(test), row["id"]


def test_what_is_said_around_a_question_is_for_training_only() -> None:
    draw, wordings = random.Random(0), Wordings("x", ["What is {a}?"], ["Tell me of {a}."])
    asked = {split: [wordings.ask(split, draw, {"a": "1 cup"}) for _ in range(600)] for split in SPLITS}
    for split, template in (("test", "tell me of 1 cup"), ("familiar", "what is 1 cup")):
        assert sum(plain(question.text) == template for question in asked[split]) > 500  # the others have a typo
        assert not any(question.text.startswith(LEADS) or question.text.endswith(TAILS) for question in asked[split])
    around = [
        question for question in asked["train"] if question.text.startswith(LEADS) or question.text.endswith(TAILS)
    ]
    assert 60 < len(around) < 300
    assert all("1 cup" in question.text.lower() for question in asked["train"])
    assert {question.fields["a"].lower() for question in asked["train"]} == {"1 cup"}
    kept = [wordings.ask("train", draw, {"a": "1 cup"}, keep=["a"]) for _ in range(200)]
    assert not any(question.text.startswith(LEADS) for question in kept)


# ---------------------------------------------------------------------------------------------------------------------
# Notes
# ---------------------------------------------------------------------------------------------------------------------


def test_every_note_is_found_by_its_names() -> None:
    for row in rows_of("knowledge.jsonl"):
        assert HOME.find(f"what is {row['item']}") == HOME.find(f"what is {row['item'].upper()}?") == row["reply"]
    for row in rows_of("substitutions.jsonl"):
        assert HOME.find(f"instead of {row['item']}") == row["reply"]
    for row in rows_of("howto.jsonl"):
        assert {HOME.find(f"tip {name}") for name in row["train"]} == {row["replies"][0]}


@pytest.mark.parametrize("query", ["what is a carburetor", "what is Paris", "instead of a bicycle", "what is zxq"])
def test_what_no_note_is_about_is_not_found(query: str) -> None:
    assert HOME.find(query) == NOTHING


def test_advice_is_mostly_found_in_words_that_no_note_has() -> None:
    held = templates("talk_held_out.jsonl", "test")
    asked = [(wording, row) for row in rows_of("howto.jsonl") for wording in held[f"how_to.{row['id']}"]]
    found = sum(HOME.find(f"tip {wording}") == row["replies"][0] for wording, row in asked)
    assert found > 0.7 * len(asked)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["knowledge", "substitutions", "how_to"])
def test_a_note_is_looked_up_by_words_of_the_question(name: str, split: Split) -> None:
    """The model has only to copy: the call's words stand in the question, and what comes back is the answer."""
    for index in range(200):
        example = TASKS[name].example(split, index)
        call, output, text = example.reference.parts
        assert isinstance(call, Call)
        assert isinstance(output, Output)
        shelf = {"knowledge": "what is ", "substitutions": "instead of ", "how_to": "tip "}[name]
        words = call.argument.removeprefix(shelf)
        assert call == Call("find", shelf + words)
        assert words in example.question[-1].text.lower()
        assert output.text == HOME.find(call.argument) == example.truth["found"]
        assert text == Text(DO_NOT_KNOW if output.text == NOTHING else output.text)


def test_what_is_known_is_held_out_and_what_is_not_is_admitted() -> None:
    items = {row["reply"]: row["item"] for row in rows_of("knowledge.jsonl")}
    for split in SPLITS:
        known = unknown = 0
        for index in range(300):
            example = TASKS["knowledge"].example(split, index)
            if example.truth["must"] == [IGNORANCE]:
                unknown += 1
                assert example.truth["found"] == NOTHING, example.question[-1].text
            else:
                known += 1
                assert is_held_out(items[str(example.truth["found"])]) == (split != "train")
        assert 40 < unknown < 150 < known


# ---------------------------------------------------------------------------------------------------------------------
# Grading
# ---------------------------------------------------------------------------------------------------------------------


def noted(name: str, words: str, row: dict[str, Any]) -> tuple[Task, Example]:
    truth: dict[str, object] = {"must": row["must"], "never": [], "found": row["reply"]}
    return TASKS[name], Example(dialogue(words, row["reply"]), truth)


def test_answers_from_notes_are_graded_by_what_they_say() -> None:
    row = next(row for row in rows_of("substitutions.jsonl") if row["item"] == "butter")
    task, example = noted("substitutions", "No butter?", row)
    assert task.grade(example, said("Take margarine.")).right
    assert task.grade(example, said(DO_NOT_KNOW)).reward == 0
    assert task.grade(example, said("Take more butter.")).reward == 0
    task, example = noted("knowledge", "What is Paris?", {"must": [IGNORANCE], "reply": DO_NOT_KNOW})
    for honest in (DO_NOT_KNOW, "I have no idea.", "I don't know that one.", "I cannot tell you."):
        assert task.grade(example, said(honest)).right
    assert task.grade(example, said("Paris is the capital of France.")).reward == 0


def test_an_allergy_is_never_judged() -> None:
    task = TASKS["allergies"]
    for split in SPLITS:
        example = task.example(split, 0)
        assert example.reference.text == BE_CAREFUL
        assert task.grade(example, said("I can't judge that. Please read the labels.")).right
        assert not task.grade(example, said("Yes, go ahead.")).right
        assert task.grade(example, said("It is safe. Ask them, and read the label.")).reward == 0
    assert len({task.example("train", index).question[-1].text for index in range(50)}) > 45


# ---------------------------------------------------------------------------------------------------------------------
# One question after another
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_a_chain_is_examples_of_other_tasks_one_after_another(split: Split) -> None:
    lengths: Counter[int] = Counter()
    last: Counter[str] = Counter()
    for index in range(200):
        example = TASKS["chain"].example(split, index)
        lengths[len(example.conversation) // 2] += 1
        last[str(example.truth["task"])] += 1
        assert f".{'test' if split == 'test' else 'train'}." in example.wording
        assert [turn.role for turn in example.conversation] == ["user", "assistant"] * (len(example.conversation) // 2)
    assert set(lengths) == {2, 3}
    assert set(last) == set(SUBJECTS)


def test_only_the_last_answer_of_a_chain_counts() -> None:
    right = 0
    for index in range(200):
        example = TASKS["chain"].example("familiar", index)
        task = TASKS[str(example.truth["task"])]
        alone = Example(example.conversation[-2:], example.truth["of"], example.wording)  # type: ignore[arg-type]
        for reply in (example.reference, example.conversation[-3], said("Elephants sing.")):
            assert TASKS["chain"].grade(example, reply) == task.grade(alone, reply)
        earlier = example.conversation[1]
        right += plain(earlier.text) != plain(example.reference.text) and TASKS["chain"].grade(example, earlier).right
    assert right < 20


def test_a_chain_draws_examples_that_its_tasks_give_alone() -> None:
    """With other tasks behind the names it is a chain of theirs, so that nothing of it is written here twice."""

    class Counting:
        name = "counting"

        def example(self, split: Split, index: int, seed: int = 0) -> Example:
            return Example(dialogue(f"{split} {index} {seed}", "!"), {"index": index}, f"counting.{split}.0")

        def grade(self, example: Example, reply: Message) -> Any:
            return (example.truth["index"], example.conversation, reply.text)

    chain = Chain(dict.fromkeys(SUBJECTS, Counting()))
    example = chain.example("test", 5, 7)
    questions = [turn.text for turn in example.conversation[::2]]
    assert len(set(questions)) == len(questions)
    assert all(question.startswith("test ") and question.endswith(" 7") for question in questions)
    index = int(questions[-1].split()[1])
    assert chain.grade(example, said("x")) == (index, example.conversation[-2:], "x")
