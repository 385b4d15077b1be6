"""All tasks by name, which of them each stage uses, and which of them each figure of the report is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nanochat import keyed
from nanochat.data.recipes import Recipe
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.chain import Chain
from nanochat.tasks.choice import Choice
from nanochat.tasks.copying import CopyRecipes, CopyStrings
from nanochat.tasks.follow_up import FollowUp
from nanochat.tasks.kitchen import LIMIT, Kitchen
from nanochat.tasks.pantry import Pantry
from nanochat.tasks.recipes import Recipes
from nanochat.tasks.scaling import Scaling
from nanochat.tasks.spelling import Spelling
from nanochat.tasks.stories import Stories
from nanochat.tasks.talk import Allergies, HowTo, Knowledge, Substitutions, Talk
from nanochat.tasks.task import Calls, Example, Split, Task
from nanochat.tasks.units import Units
from nanochat.tasks.unknown import UnknownDish
from nanochat.tools import Tool

Table = Mapping[str, float]  # task -> weight
Stage = Literal["midtrain", "sft", "rl"]
Size = Literal["", "tiny"]

# Weights sum to 100 in each stage. Midtraining teaches skills, above all copying; fine-tuning teaches what people ask
# for and keeps the skills; reinforcement takes what a program can check and a fine-tuned model still gets wrong.
MIXTURES: dict[str, Table] = {
    "midtrain": {
        "copy_strings": 36,
        "copy_recipes": 8,
        "recipes": 12,
        "follow_up": 4,
        "arithmetic": 7,
        "stories": 5,
        "scaling": 5,
        "units": 3,
        "knowledge": 3,
        "small_talk": 8,
        "limits": 5,
        "spelling": 2,
        "choice": 2,
    },
    "sft": {
        "copy_strings": 2,
        "recipes": 4,
        "recipes_calls": 11,
        "follow_up": 2,
        "follow_up_calls": 4,
        "chain": 2,
        "unknown_dish": 2,
        "pantry": 2,
        "small_talk": 15,
        "limits": 10,
        "allergies": 1,
        "substitutions": 1,
        "substitutions_calls": 2,
        "knowledge": 2,
        "knowledge_calls": 3,
        "how_to": 1,
        "how_to_calls": 3,
        "arithmetic": 13,
        "stories": 9,
        "scaling": 6,
        "units": 4,
        "spelling": 1,
    },
    # Nothing whose answer is longer than a rollout may be: there only wrong, short answers would ever be rewarded.
    "rl": {
        "arithmetic": 28,
        "stories": 28,
        "scaling": 28,
        "units": 16,
    },
    # What a model of half a million parameters can begin to learn in seconds: no copying of recipes.
    "tiny midtrain": {"arithmetic": 40, "recipes": 25, "small_talk": 20, "units": 15},
    "tiny sft": {"small_talk": 50, "arithmetic": 25, "recipes": 15, "limits": 10},
    "tiny rl": {"arithmetic": 100},
}


@dataclass(frozen=True)
class Suite:
    """What a figure of the report is measured on."""

    tasks: tuple[str, ...]
    split: Split


CALCULATOR_TASKS = ("arithmetic", "stories", "scaling", "units")
SUITES = {
    "calculator_accuracy": Suite(CALCULATOR_TASKS, "familiar"),
    "calculator_accuracy_new_wording": Suite(CALCULATOR_TASKS, "test"),
    "find_accuracy": Suite(("recipes",), "test"),
    "ingredient_f1": Suite(("recipes",), "test"),
    "copy_accuracy": Suite(("copy_strings", "copy_recipes"), "test"),
    "choice_accuracy": Suite(("choice",), "test"),
    "follow_up_accuracy": Suite(("follow_up",), "test"),
    "notes_accuracy": Suite(("knowledge", "substitutions", "how_to"), "test"),
    "talk_accuracy": Suite(("small_talk", "limits", "allergies"), "test"),
    "unknown_accuracy": Suite(("unknown_dish",), "test"),
}


def catalogue(recipes: Sequence[Recipe], limit: int = LIMIT) -> dict[str, Task]:
    """Every task by name. `limit` is how many characters of a recipe `find` shows; the tools must have the same."""
    kitchen = Kitchen(recipes, limit)
    tasks: list[Task] = [
        CopyStrings(kitchen),
        CopyRecipes(kitchen),
        Arithmetic(),
        Stories(),
        Scaling(),
        Units(),
        Spelling(),
        Choice(),
        Recipes(kitchen),
        FollowUp(kitchen),
        UnknownDish(kitchen),
        Pantry(kitchen),
        Talk("small_talk", "smalltalk.jsonl"),
        Talk("limits", "limits.jsonl"),
        Substitutions(kitchen),
        Knowledge(kitchen),
        HowTo(kitchen),
        Allergies(kitchen),
    ]
    by_name = {task.name: task for task in tasks}
    of_others: list[Task] = [Chain(by_name)]
    of_others += [Calls(by_name[name]) for name in ("recipes", "follow_up", "substitutions", "knowledge", "how_to")]
    return by_name | {task.name: task for task in of_others}


def tools_for(recipes: Sequence[Recipe], limit: int = LIMIT) -> dict[str, Tool]:
    """The calculator, and `find` over all recipes."""
    return Kitchen(recipes, limit).tools


def mixture(stage: Stage, size: Size = "") -> Table:
    """Which tasks a stage uses, with what weights: the kitchen assistant's, or the tiny preset's."""
    return MIXTURES[f"{size} {stage}".strip()]


def example_for(tasks: Mapping[str, Task], table: Table, index: int, seed: int = 0) -> tuple[str, Example]:
    """The name of the task and the training example that stand at `index`: a pure function of table, index and seed."""
    draw = keyed.rng(seed, "mixture", sorted(table.items()), index)
    name = draw.choices(sorted(table), [table[name] for name in sorted(table)])[0]
    # An index of its own, so that two stages with the same seed do not meet the same examples.
    return name, tasks[name].example("train", draw.getrandbits(48), seed)
