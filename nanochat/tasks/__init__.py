"""Tasks: examples to learn from, and graders that check what was learned.

A family of tasks is a file: `copying`, `arithmetic`, `stories`, `scaling`, `units`, `spelling`, `choice`, `recipes`,
`follow_up`, `unknown`, `pantry`, `talk`. `task` says what a task is, `wording` how people type, `grading` what counts
as right; `mixture` puts them together. A new family is a file and a line in `mixture.catalogue`.
"""

from nanochat.tasks.kitchen import LIMIT, Kitchen, limit_for
from nanochat.tasks.mixture import SUITES, Stage, Suite, Table, catalogue, example_for, mixture, tools_for
from nanochat.tasks.recipes import Recipes, ingredient_f1
from nanochat.tasks.task import Example, Grade, Split, Task

__all__ = [
    "LIMIT",
    "SUITES",
    "Example",
    "Grade",
    "Kitchen",
    "Recipes",
    "Split",
    "Stage",
    "Suite",
    "Table",
    "Task",
    "catalogue",
    "example_for",
    "ingredient_f1",
    "limit_for",
    "mixture",
    "tools_for",
]
