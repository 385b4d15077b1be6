"""What a task is: examples that are pure functions of (split, index, seed), and a grader.

Three splits. `train` is what models learn from. `test` has wordings, numbers and dishes that `train` never shows.
`familiar` has the numbers and dishes of `test` in the wordings of `train`, so that the two causes of a fall can be told
apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from nanochat import keyed
from nanochat.tokenizer.chat import Call, Message, Part, message

Split = Literal["train", "test", "familiar"]
HELD_OUT_SHARE = 10  # one problem in so many belongs to the held-out side


@dataclass(frozen=True)
class Example:
    """A conversation that ends in the reference answer, what is true about it, and the id of the question's wording."""

    conversation: tuple[Message, ...]
    truth: dict[str, object] = field(default_factory=dict)
    wording: str = ""

    @property
    def question(self) -> tuple[Message, ...]:
        """The conversation up to the reference answer: what a model is asked to continue."""
        return self.conversation[:-1]

    @property
    def reference(self) -> Message:
        return self.conversation[-1]


@dataclass(frozen=True)
class Grade:
    """A reward from 0 to 1 and why; `right` only where nothing is missing."""

    reward: float
    reason: str

    @property
    def right(self) -> bool:
        return self.reward >= 1.0


class Task(Protocol):
    """Examples and a grader. Tasks hold no state: the same arguments give the same example, in any order."""

    name: str

    def example(self, split: Split, index: int, seed: int = 0) -> Example: ...

    def grade(self, example: Example, reply: Message) -> Grade: ...


class Calls:
    """Another task's questions, whose answer stops after its first call.

    What to look up is hard to learn and short, what comes back easy to repeat and long: so it is asked more often in
    the same time.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = f"{task.name}_calls"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        example = self.task.example(split, index, seed)
        if split != "train":
            return example
        parts = example.reference.parts
        end = next((place for place, part in enumerate(parts, 1) if isinstance(part, Call)), len(parts))
        return replace(example, conversation=(*example.question, Message("assistant", parts[:end])))

    def grade(self, example: Example, reply: Message) -> Grade:
        return self.task.grade(example, reply)


def dialogue(*turns: str | Sequence[Part]) -> tuple[Message, ...]:
    """Messages in turn: user, assistant, user, ..."""
    return tuple(message("assistant" if number % 2 else "user", turn) for number, turn in enumerate(turns))


def is_held_out(*parts: object) -> bool:
    """Whether the problem that `parts` name (numbers, a word, ...) belongs to the held-out side: one in ten."""
    return keyed.key("held-out problem", *parts) % HELD_OUT_SHARE == 0


def on_side(split: Split, *parts: object) -> bool:
    """Whether the problem that `parts` name may be used in `split`."""
    return is_held_out(*parts) == (split != "train")
