"""Graded generation: what is asked, graded and counted, with answers from a script and from a real model."""

import re
from collections.abc import Sequence

import pytest
import torch

from nanochat.data.recipes import Recipe
from nanochat.engine import Completion, Engine, Sampling
from nanochat.errors import UsageError
from nanochat.evaluate.graded import GREEDY, accuracy, choice_accuracy, graded, manners, reward
from nanochat.evaluate.kitchen import ingredient_words, invented_figures, kitchen_figures
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.tasks import Kitchen, catalogue
from nanochat.tasks.task import Example, Grade, Split, Task, dialogue
from nanochat.tokenizer import (
    SPECIALS,
    Message,
    Text,
    Tokenizer,
    conversation_from_json,
    prompt,
    render,
    train_tokenizer,
)
from nanochat.tools import Calculator

RUNTIME = Runtime(torch.device("cpu"), torch.float64)


class Doubling:
    """ "2 x i?": a right answer says it, a half right one says it with more."""

    name = "doubling"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        number = index + (100 if split == "test" else 0)
        filler = "please " * (index % 5)
        truth: dict[str, object] = {"answer": 2 * number}
        return Example(dialogue(f"{filler}2 x {number}?", f"{2 * number}"), truth, f"doubling.{split}.{index % 2}")

    def grade(self, example: Example, reply: Message) -> Grade:
        said = re.findall(r"\d+", reply.text)
        right = str(example.truth["answer"])
        if said == [right]:
            return Grade(1.0, "right")
        return Grade(0.5, "and more") if right in said else Grade(0.0, "not said")


class Letters:
    """Which of three words is in the question? A lettered one, right in every case and of three lengths."""

    name = "letters"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        options = ["salt", "flour", "a much longer ingredient"]
        truth: dict[str, object] = {"letter": "ABC"[index % 3], "options": options}
        return Example(dialogue(f"number {index}, " + "which? " * (index % 4), "ABC"[index % 3]), truth)

    def grade(self, example: Example, reply: Message) -> Grade:
        return Grade(float(reply.text == example.truth["letter"]), "")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["please 2 x 100? which? a much longer ingredient flour salt"] * 3, 256 + 20 + len(SPECIALS))


class Scripted(Engine):
    """An engine whose model says, for each prompt, what a function of its text makes up."""

    def __init__(self, tokenizer: Tokenizer, replies: dict[str, list[int]], context: int = 400) -> None:
        gpt = GPT(
            GPTConfig(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=8, context=context)
        )
        super().__init__(gpt, tokenizer, RUNTIME)
        self.replies = replies
        self.batches: list[list[int]] = []

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | None = None,
        rows: Sequence[int] | None = None,
        batch: int = 128,
    ) -> list[Completion]:
        assert sampling is not None
        assert sampling.temperature == 0
        assert rows is not None
        self.batches.append(list(rows))
        end = self.tokenizer.special("<|assistant_end|>")
        found = []
        for ids in prompts:
            question = re.search(r"2 x \d+", self.tokenizer.decode(ids))
            assert question
            said = self.replies[question.group()]
            finish = "stop" if said[-1:] == [end] else "length"
            found.append(Completion(said, [0.0] * len(said), [True] * len(said), finish, ""))
        return found


def replies(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """To 2 x 100 ... 2 x 105: right, right with a call that dangles, right and more, wrong, without end, nothing."""
    end, call = tokenizer.special("<|assistant_end|>"), tokenizer.special("<|call_start|>")
    return {
        "2 x 100": [*tokenizer.encode("It is 200."), end],
        "2 x 101": [*tokenizer.encode("202"), call, end],
        "2 x 102": [*tokenizer.encode("204 or 205"), end],
        "2 x 103": [*tokenizer.encode("207"), end],
        "2 x 104": tokenizer.encode("208 and on it goes, and on it"),
        "2 x 105": [end],
    }


def test_answers_come_in_order_with_their_grades(tokenizer: Tokenizer) -> None:
    engine, told = Scripted(tokenizer, replies(tokenizer)), []
    answers = graded(engine, Doubling(), "test", 6, batch=4, progress=lambda *at: told.append(at))
    assert [answer.grade.reward for answer in answers] == [1.0, 1.0, 0.5, 0.0, 1.0, 0.0]
    assert [answer.example.truth["answer"] for answer in answers] == [200, 202, 204, 206, 208, 210]
    assert answers[0].reply == Message("assistant", (Text("It is 200."),))
    assert told == [(4, 6), (6, 6)]
    # Prompts of like length side by side: 100 and 105 have no "please", 104 has four.
    assert engine.batches[0][:2] == [0, 5]
    assert engine.batches[1][-1] == 4


def test_figures_count_what_they_say(tokenizer: Tokenizer) -> None:
    answers = graded(Scripted(tokenizer, replies(tokenizer)), Doubling(), "test", 6)
    right = accuracy("sft", "doubling_accuracy", answers)
    assert (right.stage, right.name, right.value, right.n) == ("sft", "doubling_accuracy", 3 / 6, 6)
    assert 0 < right.low < right.value < right.high < 1
    assert reward("sft", "doubling", answers).value == pytest.approx(3.5 / 6)
    stop, formed = manners("sft", answers)
    # 2 x 104 never ended; the call of 2 x 101 dangles.
    assert (stop.name, stop.value) == ("stop_rate", 5 / 6)
    assert (formed.name, formed.value) == ("wellformed_rate", 4 / 6)


def test_samples_can_be_read_back_and_say_how_it_went(tokenizer: Tokenizer) -> None:
    answers = graded(Scripted(tokenizer, replies(tokenizer)), Doubling(), "test", 4)
    samples = [answer.as_sample() for answer in answers]
    messages = conversation_from_json(samples[0]["messages"])
    assert [message.role for message in messages] == ["user", "assistant"]
    assert messages[1].text == "It is 200."
    assert samples[0]["note"] == "doubling, doubling.test.0; right"
    assert samples[2]["note"] == "doubling, doubling.test.0; 0.50 of 1: and more"


def test_a_question_that_fills_the_context_is_wrong_and_never_asked(tokenizer: Tokenizer) -> None:
    lengths = [len(prompt(tokenizer, Doubling().example("test", index).question)) for index in range(5)]
    assert lengths[4] == max(lengths) > lengths[3]
    engine = Scripted(tokenizer, replies(tokenizer), context=lengths[4])
    answers = graded(engine, Doubling(), "test", 5)
    assert answers[4].finish is None
    assert answers[4].grade == Grade(0.0, "the question fills the context")
    assert not answers[4].well_formed
    assert 4 not in engine.batches[0]
    assert answers[4].as_sample()["messages"][-1] == {"role": "assistant", "content": []}
    assert [answer.grade.reward for answer in answers[:4]] == [1.0, 1.0, 0.5, 0.0]


def test_only_wanted_examples_are_asked(tokenizer: Tokenizer) -> None:
    engine = Scripted(tokenizer, replies(tokenizer))
    answers = graded(engine, Doubling(), "test", 2, keep=lambda example: example.wording.endswith("1"))
    assert [answer.example.truth["answer"] for answer in answers] == [202, 206]


def test_no_questions_are_a_users_mistake(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="at least one example"):
        accuracy("sft", "x", graded(Scripted(tokenizer, {}), Doubling(), "test", 0))


def random_model(tokenizer: Tokenizer, context: int = 64) -> GPT:
    config = GPTConfig(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_kv_head=1, n_embd=16, context=context)
    gpt, draws = GPT(config, torch.float64).double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws))
    return gpt


def test_a_real_models_answers_do_not_depend_on_the_batch(tokenizer: Tokenizer) -> None:
    engine = Engine(random_model(tokenizer), tokenizer, RUNTIME, {"calculator": Calculator()})
    sampling = Sampling(temperature=0.9, max_tokens=6, seed=5)
    all_ways = [graded(engine, Doubling(), "test", 5, sampling=sampling, batch=batch) for batch in (1, 3)]
    assert all_ways[0] == all_ways[1]
    assert len({answer.reply for answer in all_ways[0]}) > 3
    assert GREEDY.temperature == 0


@pytest.mark.parametrize("batch", [4, 64])
def test_choices_agree_with_a_plain_loop(tokenizer: Tokenizer, batch: int) -> None:
    gpt = random_model(tokenizer)
    engine, picked, right = Engine(gpt, tokenizer, RUNTIME), set(), 0
    for index in range(24):
        example = Letters().example("test", index)
        with torch.no_grad():
            scores = gpt(torch.tensor([prompt(tokenizer, example.question)]))[0, -1]
        best = max("ABC", key=lambda letter: float(scores[tokenizer.encode(letter)[0]]))
        picked.add(best)
        right += best == example.truth["letter"]
    figure = choice_accuracy(engine, Letters(), "test", 24, stage="sft", batch=batch)
    assert (figure.stage, figure.name, figure.n) == ("sft", "choice_accuracy", 24)
    assert 0 < figure.value == right / 24 < 1
    assert len(picked) > 1, "a model that always says the same would hide much"


def test_a_model_that_loves_one_letter_scores_by_chance(tokenizer: Tokenizer) -> None:
    gpt = random_model(tokenizer)
    with torch.no_grad():
        gpt.head.weight.zero_()
    figure = choice_accuracy(Engine(gpt, tokenizer, RUNTIME), Letters(), "test", 30)
    assert figure.value == 10 / 30


class Remembered:
    """A task that tells an engine what to answer: the reference, or nothing."""

    def __init__(self, task: Task, tokenizer: Tokenizer, answers: dict[tuple[int, ...], list[int]]) -> None:
        self.name, self.task, self.tokenizer, self.answers = task.name, task, tokenizer, answers

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        example = self.task.example(split, index, seed)
        asked = prompt(self.tokenizer, example.question)
        self.answers[tuple(asked)] = render(self.tokenizer, example.conversation).ids[len(asked) :]
        return example

    def grade(self, example: Example, reply: Message) -> Grade:
        return self.task.grade(example, reply)


class Oracle(Engine):
    """An engine that answers what it was told to, or only looks it up and then ends, or stays silent."""

    answers: dict[tuple[int, ...], list[int]]
    mode = "answers"

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | None = None,
        rows: Sequence[int] | None = None,
        batch: int = 128,
    ) -> list[Completion]:
        said = [self.said(self.answers[tuple(ids)]) for ids in prompts]
        return [Completion(ids, [0.0] * len(ids), [True] * len(ids), "stop" if ids else "length", "") for ids in said]

    def said(self, answer: list[int]) -> list[int]:
        if self.mode == "is silent":
            return []
        output_end, end = (self.tokenizer.special(name) for name in ("<|output_end|>", "<|assistant_end|>"))
        looked = answer[: answer.index(output_end) + 1] if output_end in answer else []
        return answer if self.mode == "answers" else [*looked, end]


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    """Recipes enough for some of each kind to be held out."""
    towns = ["Bern", "Oslo", "Rome", "Lima", "Cork", "Kiel", "Graz", "Lyon", "Bath", "Pisa"]
    dishes = [
        f"{what} {dish}" for what in ("Apple", "Lentil", "Rice", "Fish") for dish in ("Soup", "Pie", "Stew", "Bake")
    ]
    titles = [f"{town} {dish}" for town in towns for dish in dishes]
    return [
        Recipe(title, None, 2 + at % 5, 10 + at % 7, 1 + at % 5, ("1 onion", f"{at} g salt"), ("Cook.",))
        for at, title in enumerate(titles)
    ]


@pytest.mark.parametrize("mode", ["answers", "only looks", "is silent"])
def test_the_references_get_full_marks_and_silence_none(tokenizer: Tokenizer, recipes: list[Recipe], mode: str) -> None:
    engine = Oracle(random_model(tokenizer, context=1200), tokenizer, RUNTIME)
    engine.answers, engine.mode = {}, mode
    tasks: dict[str, Task] = {
        task.name: Remembered(task, tokenizer, engine.answers) for task in catalogue(recipes).values()
    }
    told: list[tuple[int, int]] = []
    asked = kitchen_figures(engine, tasks, recipes, 9, stage="sft", progress=lambda *at: told.append(at))
    values = {figure.name: figure.value for figure in asked.figures}
    expected = {
        "calculator_accuracy", "calculator_accuracy_new_wording", "find_accuracy", "recipe_accuracy", "ingredient_f1",
        "copy_accuracy", "unknown_accuracy", "choice_accuracy", "stop_rate", "wellformed_rate",
        "follow_up_accuracy", "notes_accuracy", "talk_accuracy",
    }  # fmt: skip
    assert values.keys() == expected
    assert 0 <= values.pop("choice_accuracy") < 0.8
    looked = {"find_accuracy", "stop_rate", "wellformed_rate"}
    if mode == "only looks":
        assert {name for name, value in values.items() if value == 1} == looked
        assert {name for name, value in values.items() if value == 0} == values.keys() - looked
    else:
        if mode == "answers":  # advice asked for in new words is not always found, and is then not the answer
            assert values.pop("notes_accuracy") >= 7 / 9
        assert set(values.values()) == {1.0 if mode == "answers" else 0.0}
    assert all(figure.stage == "sft" for figure in asked.figures)
    assert {figure.name: figure.n for figure in asked.figures}["calculator_accuracy"] == 9
    assert {answer.task for answer in asked.answers} == {
        "arithmetic", "stories", "scaling", "units", "recipes", "unknown_dish", "follow_up",
        "knowledge", "substitutions", "how_to", "small_talk", "limits", "allergies",
    }  # fmt: skip
    assert told == sorted(told)
    assert told[-1] == (9 * 9, 9 * 9)


class Inventor(Engine):
    """Goes on from a title with the true list of that dish, or with one list for every dish."""

    lists: dict[str, str]
    is_honest: bool

    def generate(  # type: ignore[override]
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | None = None, rows: object = None
    ) -> list[Completion]:
        titles = [self.tokenizer.decode(ids[1:]).partition("\n")[0] for ids in prompts]
        texts = [self.lists[title] if self.is_honest else " 1 cup apple\n- 2 g salt" for title in titles]
        return [Completion([], [], [], "stop", text) for text in texts]


def test_inventions_are_compared_with_their_own_dish_and_with_another(tokenizer: Tokenizer) -> None:
    towns = ["Bern", "Oslo", "Rome", "Lima", "Cork", "Kiel", "Graz", "Lyon", "Bath", "Pisa"]
    titles = [f"{town} {dish}" for town in towns for dish in ("Soup", "Pie", "Stew", "Bake", "Bread", "Curry", "Tart")]
    letters = ["".join(chr(97 + int(digit)) for digit in f"{number:03d}") for number in range(len(titles))]
    dishes = [
        Recipe(title, None, None, None, None, (f"1 cup {one}zz", "2 g salt"), ("Cook.",))
        for title, one in zip(titles, letters, strict=True)
    ]
    engine = Inventor(random_model(tokenizer), tokenizer, RUNTIME)
    engine.lists = {dish.title: "\n- ".join([f" {dish.ingredients[0]}", *dish.ingredients[1:]]) for dish in dishes}
    engine.is_honest = True
    own, gain = invented_figures(engine, dishes, 12, stage="pretrain")
    assert (own.name, own.value, own.n) == ("invented_f1", 1.0, 12)
    assert len(Kitchen(dishes).side("test")) > 1
    assert gain.value == pytest.approx(0.5)  # one word of two is in every list
    engine.is_honest = False
    own, gain = invented_figures(engine, dishes, 12, stage="pretrain")
    assert own.value == pytest.approx(0.5)
    assert gain.value == pytest.approx(0.0)


def test_the_words_of_ingredients() -> None:
    lines = ["- 2 cups (250 g) plain flour", "3 large eggs, beaten"]
    assert ingredient_words(lines) == {"plain", "flour", "large", "egg", "beaten"}
