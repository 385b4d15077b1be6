"""What people say after a recipe, without naming the dish again: more of it, its amounts changed, thanks.

The dish stands in the conversation as the words of the first call (see `nanochat.tokenizer.chat.remembered`): the model
copies them into a call of its own. `find` does the sums of a whole list; a line at a time would be twenty calls.
"""

import random
from collections.abc import Sequence
from functools import cached_property

from nanochat import keyed
from nanochat.data.recipes import Recipe
from nanochat.tasks.grading import grade_copy, grade_mentions
from nanochat.tasks.kitchen import Kitchen
from nanochat.tasks.recipes import FACTS, asked, finds, grade_about, number_as_said, query_for, question_of, stating
from nanochat.tasks.task import Example, Grade, Split, dialogue
from nanochat.tasks.wording import Wordings, wordings
from nanochat.tokenizer.chat import Call, Message, Output, Part, Text

NEXT = {kind: wordings(f"follow_up.{kind}") for kind in (
    "minutes", "servings", "difficulty", "step", "thanks", "rescale", "times", "grams", "ingredients", "again",
)}  # fmt: skip
KINDS = (*FACTS, "step", "thanks", "rescale", "rescale", "rescale", "grams", "grams", "times", "ingredients", "again")
WELCOME = "You are welcome! Enjoy your meal."
TIMES = {"doubled": "2", "halved": "1/2", "tripled": "3"}


class FollowUp:
    """A dish is found and shown; the last question is about it, and does not name it. One more may lie between."""

    name = "follow_up"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    @cached_property
    def stating(self) -> dict[str, dict[str, list[Recipe]]]:
        """Split -> fact -> recipes that state it, which most do not; and those whose first steps are shown."""
        return {split: self.by_fact(self.kitchen.side(split)) for split in ("train", "test")}

    def by_fact(self, side: Sequence[Recipe]) -> dict[str, list[Recipe]]:
        steps = [recipe for recipe in side if "\n1. " in self.kitchen.shown(recipe)]
        return {"step": steps} | {fact: stating(side, fact) for fact in FACTS}

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(KINDS)
        among = None
        if kind == "step" or draw.random() < 0.7:
            wanted = kind if kind in FACTS else "servings" if kind == "rescale" else ""
            among = self.stating["train" if split == "train" else "test"].get(wanted)
        first = draw.choice(("make", "make", "make", "ingredients", "ingredients", *FACTS))
        recipe, question = asked(self.kitchen, question_of(first), split, draw, among or None)
        talk = Talk(self.kitchen, recipe, question.fields["dish"])
        turns: list[str | tuple[Part, ...]] = [question.text, talk.about(first)]
        if draw.random() < 0.3:
            between = draw.choice(("rescale", "rescale", "grams", "ingredients", *FACTS))
            turns += talk.goes_on(between, NEXT[between], split, draw)[:2]
        then, reply, wording = talk.goes_on(kind, NEXT[kind], split, draw)
        truth: dict[str, object] = {"kind": kind, "title": recipe.title, "shown": talk.shown, "query": talk.query}
        return Example(dialogue(*turns, then, reply), truth, wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        kind, recipe = str(example.truth["kind"]), self.kitchen.recipes[str(example.truth["title"])]
        if kind == "thanks":
            return grade_mentions(reply, [["welcome", "pleasure", "enjoy", "glad"]], (), len(WELCOME))
        if not finds(self.kitchen, recipe.title, reply):
            return Grade(0.0, "did not find the dish")
        if kind == "step":
            return grade_copy(reply, example.reference.text)
        about = kind if kind in FACTS or kind == "ingredients" else "make"
        return grade_about(recipe, about, str(example.truth["shown"]), reply)


class Talk:
    """A conversation about one dish: what it was called, and how its amounts are wanted by now."""

    def __init__(self, kitchen: Kitchen, recipe: Recipe, dish: str) -> None:
        self.kitchen, self.recipe, self.dish = kitchen, recipe, dish
        self.scale, self.query, self.shown = "", dish, ""

    def about(self, kind: str) -> tuple[Part, ...]:
        """The reply to a question of this kind."""
        self.query = query_for(kind, self.dish)
        return self.reply()

    def reply(self) -> tuple[Part, ...]:
        """What comes back is what is said."""
        self.shown = self.kitchen.find(self.query)
        return Call("find", self.query), Output(self.shown), Text(self.shown)

    def goes_on(
        self, kind: str, wordings: Wordings, split: Split, draw: random.Random
    ) -> tuple[str, tuple[Part, ...], str]:
        """(what is said next, the reply, the wording's id)."""
        shown = self.kitchen.shown(self.recipe)
        steps = [k for k in range(1, len(self.recipe.steps) + 1) if f"\n{k}. " in shown]
        n, k, times = draw.randint(1, 16), draw.choice(steps or [1]), draw.choice(sorted(TIMES))
        question = wordings.ask(split, draw, {"k": k, "n": number_as_said(n, draw), "times": times})
        if kind == "thanks":
            return question.text, (Text(WELCOME),), question.wording
        if kind in ("rescale", "times"):
            self.scale = f" for {n}" if kind == "rescale" else f" times {TIMES[times]}"
        amounts = kind in ("rescale", "times", "grams")
        asked_for = {"step": f"step {k}"}.get(kind, "make" if amounts or kind == "again" else kind)
        self.query = query_for(asked_for, self.dish) + self.scale * amounts + " in grams" * (kind == "grams")
        return question.text, self.reply(), question.wording
