"""The kitchen assistant's figures: what each stage after pretraining has to raise, measured on what none has seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nanochat.data.recipes import Recipe
from nanochat.engine import Engine
from nanochat.evaluate.figures import Figure, mean, proportion
from nanochat.evaluate.graded import GREEDY, Graded, accuracy, choice_accuracy, graded, manners
from nanochat.tasks import SUITES, Example, Split, Task, ingredient_f1

# Tokens that an answer may take. A young model never stops, and would spend most of the time on answers long wrong.
SHORT, LONG = 64, 192
COPYING = ("recipes", "copy_strings", "copy_recipes")  # tasks whose answers repeat a text

Keep = Callable[[Example], bool] | None


@dataclass(frozen=True)
class Asked:
    """Figures of one stage, and the answers that they are from."""

    figures: list[Figure]
    answers: list[Graded]


@dataclass(frozen=True)
class Interview:
    """Questions to one model. `progress` is told (what is asked, done, of how many)."""

    engine: Engine
    tasks: Mapping[str, Task]
    n: int
    seed: int = 0
    progress: Callable[[str, int, int], None] | None = None

    def ask(self, label: str, task: str, split: Split, keep: Keep = None, n: int | None = None) -> list[Graded]:
        """Answers to `n` questions of a task."""
        tell = None if self.progress is None else partial(self.progress, label)
        count = self.n if n is None else n
        sampling = replace(GREEDY, max_tokens=LONG if task in COPYING else SHORT)
        return graded(
            self.engine, self.tasks[task], split, count, self.seed, keep=keep, sampling=sampling, progress=tell
        )

    def suite(self, name: str, keep: Keep = None) -> list[Graded]:
        """Answers to the `n` questions that a figure is about, in equal parts from each of its tasks."""
        tasks, answers = SUITES[name].tasks, list[Graded]()
        for place, task in enumerate(tasks):
            n = self.n // len(tasks) + (place < self.n % len(tasks))
            answers += self.ask(title(name), task, SUITES[name].split, keep, n) if n else []
        return answers


def kitchen_figures(
    engine: Engine,
    tasks: Mapping[str, Task],
    recipes: Sequence[Recipe],
    n: int,
    *,
    stage: str,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Asked:
    """Every figure of a stage, each on `n` questions about held-out numbers and dishes.

    `tasks` is `catalogue(recipes)`. `calculator_accuracy` asks in wordings of training, all the others in new ones.
    `find_accuracy` is about the dish looked up, `recipe_accuracy` about the whole answer; `ingredient_f1` compares with
    the ingredients as the recipe has them.
    """
    model = Interview(engine, tasks, n, seed, progress)
    familiar, new = model.suite("calculator_accuracy"), model.suite("calculator_accuracy_new_wording")
    about, copied = model.suite("find_accuracy"), model.suite("copy_accuracy")
    lists = model.suite("ingredient_f1", lambda example: example.truth["kind"] == "ingredients")
    unknown = model.ask("unknown dishes", "unknown_dish", "test")
    titles = {recipe.title: recipe for recipe in recipes}
    agreement = [ingredient_f1(titles[str(answer.example.truth["title"])], answer.reply.text) for answer in lists]
    # The grader of recipes gives nothing, and only then, where the first call did not find the dish.
    found = sum(answer.grade.reward > 0 for answer in about)
    figures = [
        accuracy(stage, "calculator_accuracy", familiar),
        accuracy(stage, "calculator_accuracy_new_wording", new),
        proportion(stage, "find_accuracy", found, len(about)),
        accuracy(stage, "recipe_accuracy", about),
        mean(stage, "ingredient_f1", agreement, "share", bounds=(0, 1)),
        accuracy(stage, "copy_accuracy", copied),
        accuracy(stage, "unknown_accuracy", unknown),
        choice_accuracy(engine, tasks["choice"], SUITES["choice_accuracy"].split, n, seed, stage=stage),
        *manners(stage, [*new, *about, *lists, *unknown]),
    ]
    return Asked(figures, [*new, *about, *unknown])


def title(name: str) -> str:
    """What a figure is about, for the progress bar: "find_accuracy" -> "find"."""
    return name.removesuffix("_accuracy").replace("_", " ")
