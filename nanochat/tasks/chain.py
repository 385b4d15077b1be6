"""A question after other talk: people change the subject, and what was said before must not mislead the answer."""

from collections.abc import Mapping

from nanochat import keyed
from nanochat.tasks.task import Example, Grade, Split, Task
from nanochat.tokenizer.chat import Message

SUBJECTS = (
    "small_talk", "small_talk", "recipes", "recipes", "arithmetic", "units", "scaling", "substitutions", "limits",
    "knowledge", "pantry", "unknown_dish", "how_to",
)  # fmt: skip


class Chain:
    """One or two questions with their answers, then another that has nothing to do with them."""

    name = "chain"

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = tasks

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        names = [draw.choice(SUBJECTS) for _ in range(draw.choice((2, 2, 3)))]
        examples = [self.tasks[name].example(split, draw.getrandbits(48), seed) for name in names]
        turns = tuple(turn for example in examples for turn in example.conversation)
        last = examples[-1]
        return Example(turns, {"task": names[-1], "of": last.truth}, last.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        truth = example.truth["of"]
        assert isinstance(truth, dict)
        asked = Example(example.conversation[-2:], truth, example.wording)
        return self.tasks[str(example.truth["task"])].grade(asked, reply)
