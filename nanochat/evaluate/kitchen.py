"""The kitchen assistant's figures: what each stage after pretraining has to raise, measured on what none has seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nanochat import keyed
from nanochat.data.recipes import Recipe
from nanochat.distributed import gathered
from nanochat.engine import Engine, Sampling
from nanochat.evaluate.bits import Progress
from nanochat.evaluate.figures import Figure, mean, proportion
from nanochat.evaluate.graded import (
    GREEDY,
    Graded,
    Question,
    accuracy,
    answer,
    choice_accuracy,
    first_examples,
    manners,
)
from nanochat.tasks import SUITES, Example, Suite, Task, ingredient_f1
from nanochat.tasks.kitchen import Kitchen
from nanochat.tasks.measures import unit_named
from nanochat.tools import words

# Tokens that an answer may take. A young model never stops, and would spend most of the time on answers long wrong.
SHORT, LONG = 64, 256
REPEATING = ("find_accuracy", "copy_accuracy", "ingredient_f1", "follow_up_accuracy")
LENGTHY = (*REPEATING, "notes_accuracy")  # whole recipes and notes: they get LONG
BRIEF = (
    "calculator_accuracy",
    "calculator_accuracy_new_wording",
    "unknown_accuracy",
    "notes_accuracy",
    "talk_accuracy",
)


@dataclass(frozen=True)
class Asked:
    """Figures of one stage, and the answers that they are from."""

    figures: list[Figure]
    answers: list[Graded]


def kitchen_figures(
    engine: Engine,
    tasks: Mapping[str, Task],
    recipes: Sequence[Recipe],
    n: int,
    *,
    stage: str,
    seed: int = 0,
    progress: Progress | None = None,
) -> Asked:
    """Every figure of a stage, each on `n` questions about held-out numbers and dishes.

    `tasks` is `catalogue(recipes)`. `calculator_accuracy` asks in wordings of training, all the others in new ones.
    `find_accuracy` is about the dish looked up, `recipe_accuracy` about the whole answer; `ingredient_f1` compares with
    the ingredients as the recipe has them.
    """
    names = (*BRIEF, *REPEATING)
    questions = {name: questions_of(SUITES[name], tasks, n, seed, name == "ingredient_f1") for name in names}
    answers = answer_all(engine, questions, progress)
    titles = {recipe.title: recipe for recipe in recipes}
    lists, about = answers["ingredient_f1"], answers["find_accuracy"]
    agreement = [ingredient_f1(titles[str(a.example.truth["title"])], a.reply.text) for a in lists]
    # The grader of recipes gives nothing, and only then, where the first call did not find the dish.
    found = sum(a.grade.reward > 0 for a in about)
    held_out = [name for name in names if name not in ("calculator_accuracy", "copy_accuracy", "ingredient_f1")]
    said = [a for name in held_out for a in answers[name]]
    figures = [
        *(accuracy(stage, name, answers[name]) for name in BRIEF),
        proportion(stage, "find_accuracy", found, len(about)),
        accuracy(stage, "recipe_accuracy", about),
        mean(stage, "ingredient_f1", agreement, "share", bounds=(0, 1)),
        *(accuracy(stage, name, answers[name]) for name in ("copy_accuracy", "follow_up_accuracy")),
        choice_accuracy(engine, tasks["choice"], SUITES["choice_accuracy"].split, n, seed, stage=stage),
        *manners(stage, [*said, *lists]),
    ]
    return Asked(figures, said)


def invented_figures(
    engine: Engine, recipes: Sequence[Recipe], n: int, *, stage: str, seed: int = 0, progress: Progress | None = None
) -> list[Figure]:
    """What a model that only continues text makes of a held-out title: ingredients, none of which it can look up.

    `invented_f1` is the F1 between the words of the invented list and of the true one, numbers and units aside;
    `invented_f1_gain` is by how much it lies above the same with the list of another dish. Only that much was said
    about this dish; the rest is that recipes are alike. `n` inventions, several of each dish where n is larger.
    """
    dishes = Kitchen(recipes).side("test")
    keyed.rng(seed, "invented").shuffle(dishes)
    drawn = [dishes[number % len(dishes)] for number in range(n)]
    bos = engine.tokenizer.special("<|bos|>")
    prompts = [[bos, *engine.tokenizer.encode(f"{recipe.title}\n\nIngredients:\n-")] for recipe in drawn]
    sampling = Sampling(temperature=0.5, max_tokens=128, stop=("\n\n",), seed=seed)
    texts: dict[int, str] = {}
    mine = range(engine.runtime.rank, n, engine.runtime.world)
    for first in range(0, len(mine), 64):
        rows = mine[first : first + 64]
        completions = engine.generate([prompts[row] for row in rows], sampling, rows)
        texts |= {row: completion.text for row, completion in zip(rows, completions, strict=True)}
        if progress is not None:
            progress(min(len(texts) * engine.runtime.world, n), n)
    everyone = {row: text for part in gathered(texts, engine.runtime) for row, text in part.items()}
    said = [ingredient_words(everyone[row].split("\n")) for row in range(n)]
    true = [ingredient_words(recipe.ingredients) for recipe in drawn]
    right, wrong = (list(map(overlap, said, lists)) for lists in (true, [*true[1:], *true[:1]]))
    gains = [one - other for one, other in zip(right, wrong, strict=True)]
    return [
        mean(stage, "invented_f1", right, "share", bounds=(0, 1)),
        mean(stage, "invented_f1_gain", gains, "share", bounds=(-1, 1)),
    ]


def ingredient_words(lines: Sequence[str]) -> frozenset[str]:
    """What ingredient lines name: their words, numbers and units aside."""
    return frozenset(word for line in lines for word in words(line) if word.isalpha() and unit_named(word) is None)


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """F1 between two sets of words."""
    return 2 * len(one & other) / max(1, len(one) + len(other))


def questions_of(suite: Suite, tasks: Mapping[str, Task], n: int, seed: int, lists: bool = False) -> list[Question]:
    """`n` questions, in equal parts from each task of the suite; with `lists` only those for lists of ingredients."""
    questions: list[Question] = []
    for place, name in enumerate(suite.tasks):
        part = n // len(suite.tasks) + (place < n % len(suite.tasks))
        keep = wants_list if lists else None
        questions += [Question(tasks[name], e) for e in first_examples(tasks[name], suite.split, part, seed, keep)]
    return questions


def wants_list(example: Example) -> bool:
    """Whether a question about a recipe asks for its ingredients."""
    return example.truth["kind"] == "ingredients"


def answer_all(
    engine: Engine, questions: Mapping[str, list[Question]], progress: Progress | None
) -> dict[str, list[Graded]]:
    """Answers to the questions of each figure. All short ones are written side by side, and all long ones."""
    found: dict[str, list[Graded]] = {}
    total, done = sum(map(len, questions.values())), 0
    for limit, names in ((SHORT, questions.keys() - set(LENGTHY)), (LONG, LENGTHY)):
        ordered = [name for name in questions if name in names]
        asked = [question for name in ordered for question in questions[name]]
        told = None if progress is None else lambda now, _, before=done: progress(before + now, total)
        answers = iter(answer(engine, asked, replace(GREEDY, max_tokens=limit), progress=told))
        found |= {name: [next(answers) for _ in questions[name]] for name in ordered}
        done += len(asked)
    return found
