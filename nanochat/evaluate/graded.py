"""Graded generation: held-out questions go in, the model answers with its tools, and a program grades the answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nanochat.distributed import gathered
from nanochat.engine import Completion, Engine, Finish, Sampling
from nanochat.evaluate.bits import Progress
from nanochat.evaluate.figures import Figure, mean, proportion
from nanochat.runtime import Runtime
from nanochat.tasks.task import Example, Grade, Split, Task
from nanochat.tokenizer import Message, Tokenizer, conversation_to_json, prompt, read_reply, well_formed

LETTERS = "ABCDEFGHIJ"
GREEDY = Sampling(temperature=0, max_tokens=192)


@dataclass(frozen=True)
class Question:
    """An example, and the task that grades the answer to it."""

    task: Task
    example: Example


@dataclass(frozen=True)
class Graded:
    """A question, the model's answer, and what the grader says of it. `finish` is None where it was too long to ask."""

    task: str
    example: Example
    reply: Message
    grade: Grade
    finish: Finish | None
    well_formed: bool

    @property
    def note(self) -> str:
        """A line to show under the conversation."""
        verdict = "right" if self.grade.right else f"{self.grade.reward:.2f} of 1: {self.grade.reason}"
        return f"{self.task}, {self.example.wording}; {verdict}" if self.example.wording else f"{self.task}; {verdict}"

    def as_sample(self) -> dict[str, Any]:
        """An entry of conversations.json."""
        return {"messages": conversation_to_json([*self.example.question, self.reply]), "note": self.note}


def graded(
    engine: Engine,
    task: Task,
    split: Split,
    n: int,
    seed: int = 0,
    *,
    keep: Callable[[Example], bool] | None = None,
    sampling: Sampling = GREEDY,
    batch: int = 64,
    progress: Progress | None = None,
) -> list[Graded]:
    """The model's answers to the first `n` examples of a split (that `keep` lets through), in their order, graded.

    The likeliest answer unless `sampling` says otherwise.
    """
    questions = [Question(task, example) for example in first_examples(task, split, n, seed, keep)]
    return answer(engine, questions, sampling, batch=batch, progress=progress)


def answer(
    engine: Engine,
    questions: Sequence[Question],
    sampling: Sampling = GREEDY,
    *,
    batch: int = 64,
    progress: Progress | None = None,
) -> list[Graded]:
    """The model's answers to questions of any tasks, in their order, graded.

    Answers are written side by side, prompts of like length together; question i draws as row i, whatever is beside it.
    Processes share the questions out, and each gets all answers.
    """
    prompts = [prompt(engine.tokenizer, question.example.question) for question in questions]
    found: dict[int, Graded] = {}
    for rows in batches_by_length(prompts, batch, engine.runtime):
        askable = [row for row in rows if len(prompts[row]) < engine.model.config.context]
        completions = engine.generate([prompts[row] for row in askable], sampling, askable, batch)
        for row, completion in zip(askable, completions, strict=True):
            found[row] = judged(engine.tokenizer, questions[row], completion)
        for row in set(rows) - set(askable):
            grade = Grade(0.0, "the question fills the context")
            nothing, question = Message("assistant", ()), questions[row]
            found[row] = Graded(question.task.name, question.example, nothing, grade, None, False)
        if progress is not None:
            progress(min(len(found) * engine.runtime.world, len(questions)), len(questions))
    everyone = {row: answer for part in gathered(found, engine.runtime) for row, answer in part.items()}
    return [everyone[row] for row in range(len(questions))]


def judged(tokenizer: Tokenizer, question: Question, completion: Completion) -> Graded:
    """What a completion says, and what the task's grader makes of it."""
    reply, is_formed = read_reply(tokenizer, completion.ids), well_formed(tokenizer, completion.ids)
    grade = question.task.grade(question.example, reply)
    return Graded(question.task.name, question.example, reply, grade, completion.finish, is_formed)


def first_examples(
    task: Task, split: Split, n: int, seed: int, keep: Callable[[Example], bool] | None = None
) -> list[Example]:
    """`n` examples of a split in their order; of some kinds of task only what `keep` lets through is wanted."""
    found: list[Example] = []
    index = 0
    while len(found) < n:
        example = task.example(split, index, seed)
        if keep is None or keep(example):
            found.append(example)
        index += 1
        assert index < 1000 * (n + 1), f"{task.name} has no example of the kind asked for"
    return found


def batches_by_length(prompts: Sequence[Sequence[int]], batch: int, runtime: Runtime) -> Iterator[list[int]]:
    """Numbers of this process's share of the prompts, `batch` at a time, of like length."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))[runtime.rank :: runtime.world]
    for first in range(0, len(order), batch):
        yield order[first : first + batch]


def accuracy(stage: str, name: str, answers: Sequence[Graded]) -> Figure:
    """The share of answers that are right, with nothing missing."""
    return proportion(stage, name, sum(answer.grade.right for answer in answers), len(answers))


def reward(stage: str, name: str, answers: Sequence[Graded]) -> Figure:
    """The mean reward from 0 to 1, partly right answers included."""
    return mean(stage, name, [answer.grade.reward for answer in answers], "share", bounds=(0, 1))


def manners(stage: str, answers: Sequence[Graded]) -> list[Figure]:
    """How answers end and whether they keep to the format, right or wrong: `stop_rate` and `wellformed_rate`."""
    return [
        proportion(stage, "stop_rate", sum(answer.finish == "stop" for answer in answers), len(answers)),
        proportion(stage, "wellformed_rate", sum(answer.well_formed for answer in answers), len(answers)),
    ]


@torch.inference_mode()
def choice_accuracy(
    engine: Engine,
    task: Task,
    split: Split,
    n: int,
    seed: int = 0,
    *,
    stage: str = "",
    name: str = "choice_accuracy",
    batch: int = 64,
) -> Figure:
    """The share of lettered questions where the right letter is the likeliest of those offered as the answer's start.

    An example's truth holds `letter` and `options`. Asks what a model knows before it can say it: a pretrained one
    that has never seen the chat format scores by chance, one in as many as there are options.
    """
    examples = first_examples(task, split, n, seed)
    prompts = [prompt(engine.tokenizer, example.question) for example in examples]
    right = 0
    for rows in batches_by_length(prompts, batch, engine.runtime):
        askable = [row for row in rows if len(prompts[row]) <= engine.model.config.context]
        if not askable:
            continue
        longest = max(len(prompts[row]) for row in askable)
        padded = [[*prompts[row], *[0] * (longest - len(prompts[row]))] for row in askable]
        last = engine.runtime.tensor([len(prompts[row]) - 1 for row in askable], torch.long)
        features = engine.model.features(engine.runtime.tensor(padded, torch.long))
        scores = engine.model.logits(features[torch.arange(len(askable), device=last.device), last])
        for row, score in zip(askable, scores, strict=True):
            options = examples[row].truth["options"]
            assert isinstance(options, Sequence)
            letters = LETTERS[: len(options)]
            offered = engine.runtime.tensor([engine.tokenizer.encode(letter)[0] for letter in letters], torch.long)
            right += letters[int(score[offered].argmax())] == examples[row].truth["letter"]
    return proportion(stage, name, sum(gathered(right, engine.runtime)), len(examples))
