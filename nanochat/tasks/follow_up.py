"""A second question after a recipe: answered from what already stands in the conversation, or scaled line by line."""

import random
import re
from collections.abc import Sequence
from functools import cached_property

from nanochat import keyed
from nanochat.data.quantities import counted, quantity
from nanochat.data.recipes import Recipe
from nanochat.tasks.grading import SMALL, grade_copy, grade_mentions, plain, stated_numbers
from nanochat.tasks.kitchen import Kitchen, ingredient_lines
from nanochat.tasks.recipes import FACTS, INGREDIENTS, MAKE, answer_to, asked, grade_fact, stating
from nanochat.tasks.task import Example, Grade, Split, dialogue
from nanochat.tasks.wording import Wordings
from nanochat.tokenizer.chat import Call, Message, Output, Part, Text
from nanochat.tools import CUT, Calculator

NEXT = {
    "minutes": Wordings(
        "follow_up.minutes",
        train=(
            "And how long does it take?",
            "And how long is that?",
            "How much time do I need?",
            "How many minutes?",
            "Is it quick?",
            "How long must I cook it?",
            "What time does it take?",
            "How long?",
        ),
        test=("When can we eat?", "Will it keep me long?", "Tell me how long that takes.", "Do I need much time?"),
    ),
    "servings": Wordings(
        "follow_up.servings",
        train=(
            "How many does it serve?",
            "For how many people is it?",
            "How many people can eat that?",
            "How many servings is that?",
            "And for how many?",
            "How many portions?",
            "For how many is this recipe?",
            "How many people?",
        ),
        test=("Is that enough for us all?", "How many plates do I set?", "How many guests does it feed?", "Servings?"),
    ),
    "difficulty": Wordings(
        "follow_up.difficulty",
        train=(
            "Is it hard?",
            "How hard is that?",
            "Is that difficult?",
            "Is it easy to make?",
            "How difficult is it?",
            "Can I do that?",
            "Can a beginner make it?",
            "How easy is it?",
        ),
        test=(
            "Would I manage that?",
            "Does it take much skill?",
            "Is that too much for me?",
            "Tell me how hard it is.",
        ),
    ),
    "step": Wordings(
        "follow_up.step",
        train=(
            "What is step {k}?",
            "What do I do in step {k}?",
            "Read step {k} again.",
            "Step {k}, please.",
            "Tell me step {k}.",
            "And step {k}?",
            "Say step {k} again.",
            "Repeat step {k}.",
        ),
        test=("I am at step {k}. What now?", "What was step {k}?", "I forgot step {k}.", "Only step {k}, please."),
    ),
    "thanks": Wordings(
        "follow_up.thanks",
        train=(
            "Thanks!",
            "Thank you!",
            "Thanks a lot!",
            "Great, thank you!",
            "Perfect.",
            "That is all, thanks.",
            "Nice, thanks!",
            "Wonderful, thank you very much.",
        ),
        test=("Very kind of you!", "That helps me.", "Lovely, cheers!", "I am grateful."),
    ),
    "rescale": Wordings(
        "follow_up.rescale",
        train=(
            "For {n} people, please.",
            "I need it for {n}.",
            "Can you make that for {n} people?",
            "We are {n}. How much is it then?",
            "And for {n}?",
            "Scale it to {n} people.",
            "What do I need for {n} people?",
            "Make it for {n}.",
            "How much for {n} people?",
        ),
        test=(
            "There will be {n} of us.",
            "I have {n} guests. What do I need?",
            "Change the amounts to {n} servings.",
            "Could I have this for {n}?",
        ),
    ),
}
KINDS = ("minutes", "servings", "difficulty", "step", "step", "thanks", "rescale", "rescale", "rescale")
WELCOME = "You are welcome! Enjoy your meal."
MOST_LINES = 8  # a longer list makes too long a reply of its sums


class FollowUp:
    """A dish is found and shown; the last question is about it, and does not name it."""

    name = "follow_up"

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen

    @cached_property
    def short(self) -> dict[str, dict[str, list[Recipe]]]:
        """Split -> kind of question -> recipes that two turns have room for and that have an answer to it."""
        return {split: self.fitting(self.kitchen.side(split)) for split in ("train", "test")}

    def fitting(self, side: Sequence[Recipe]) -> dict[str, list[Recipe]]:
        whole = [recipe for recipe in side if fits(self.kitchen.shown(recipe), self.kitchen.find.limit)]
        scalable = [recipe for recipe in stating(side, "servings") if can_scale(recipe, self.kitchen.find.limit)]
        facts = {fact: stating(whole, fact) for fact in FACTS}
        return facts | {"step": whole, "thanks": whole, "rescale": scalable}

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        lists = self.short["train" if split == "train" else "test"]
        kind = draw.choice([kind for kind in KINDS if lists[kind]])
        first = INGREDIENTS if kind == "rescale" or (kind != "step" and draw.random() < 0.5) else MAKE
        recipe, question = asked(self.kitchen, first, split, draw, lists[kind])
        shown = self.kitchen.shown(recipe)
        said = Text(answer_to("make" if first is MAKE else "ingredients", recipe, shown))
        k, n = draw.randint(1, len(recipe.steps)), wanted(recipe, draw)
        while f"\n{k}. " not in shown and k > 1:
            k -= 1
        number = SMALL[n] if n < len(SMALL) and draw.random() < 0.3 else n
        then = NEXT[kind].ask(split, draw, {"k": k, "n": number})
        reply = self.reply(kind, recipe, k, n)
        turns = dialogue(question.text, (Call("find", question.fields["dish"]), Output(shown), said), then.text, reply)
        return Example(turns, {"kind": kind, "title": recipe.title, "k": k, "n": n}, then.wording)

    def reply(self, kind: str, recipe: Recipe, k: int, n: int) -> tuple[Part, ...]:
        if kind in FACTS:
            return (Text(FACTS[kind].answer(recipe)),)
        if kind == "rescale":
            return rescaled(recipe, n)
        return (Text(recipe.steps[k - 1] if kind == "step" else WELCOME),)

    def grade(self, example: Example, reply: Message) -> Grade:
        kind, recipe = str(example.truth["kind"]), self.kitchen.recipes[str(example.truth["title"])]
        if kind in FACTS:
            return grade_fact(recipe, kind, reply)
        if kind == "thanks":
            return grade_mentions(reply, [["welcome", "pleasure", "enjoy", "glad"]], (), len(WELCOME))
        if kind == "step":
            return grade_copy(reply, example.reference.text)
        return grade_rescaled(example.reference.text, reply)


def fits(shown: str, limit: int) -> bool:
    """Whether a recipe is shown whole, and short enough to stand in a conversation twice."""
    return CUT not in shown and len(shown) < 0.7 * limit


def wanted(recipe: Recipe, draw: random.Random) -> int:
    """For how many people instead: seldom an odd share."""
    served = recipe.servings or 4
    nice = [n for n in range(1, 25) if n != served and (n % served == 0 or served % n == 0 or 2 * n % served == 0)]
    return draw.choice(nice) if nice and draw.random() < 0.7 else draw.choice([n for n in range(2, 13) if n != served])


def can_scale(recipe: Recipe, limit: int) -> bool:
    """Whether every line has one amount at its head, or none at all, and the whole list is short."""
    amounts = [quantity(line) for line in recipe.ingredients]
    plainly = all(
        not re.search(r"\d", amount.rest if amount else line) and (not amount or amount.low == amount.high)
        for amount, line in zip(amounts, recipe.ingredients, strict=True)
    )
    few = 2 <= len(recipe.ingredients) <= MOST_LINES and sum(map(len, recipe.ingredients)) < limit / 3
    return plainly and few and any(amounts)


def rescaled(recipe: Recipe, n: int) -> tuple[Part, ...]:
    """The ingredients for `n` people, each amount worked out by a call of the calculator."""
    parts: list[Part] = []
    said = f"For {n}:"
    for line in recipe.ingredients:
        amount = quantity(line)
        if amount is None:
            said += f"\n- {line}"
            continue
        written = line.removeprefix("About ").removeprefix("about ")
        head = re.match(r"[\d./]+(?: \d+/\d+)?", written)
        assert head is not None
        expression = f"{head.group()}*{n}/{recipe.servings}"
        result = Calculator()(expression)
        unit = counted(amount.unit, Calculator().value(expression))
        parts += [Text(f"{said}\n- "), Call("calculator", expression), Output(result)]
        said = " ".join(word for word in ("about" * amount.about, result, unit, amount.rest) if word).replace(" ,", ",")
    return (*parts, Text(said))


def grade_rescaled(expected: str, reply: Message) -> Grade:
    """The share of the expected lines that the reply has, amounts compared as numbers."""
    wanted_lines, given = scaled_lines(expected), scaled_lines(reply.text)
    right = sum(line in given for line in wanted_lines)
    extra = len(given) - len(wanted_lines)
    if right == len(wanted_lines) and extra == 0:
        return Grade(1.0, "right")
    return Grade(0.6 * right / max(len(wanted_lines), len(given)), f"{right} of {len(wanted_lines)} lines")


def scaled_lines(text: str) -> list[tuple[str, str]]:
    """(amount, the rest of the line in its normal form) for each ingredient line."""
    found = []
    for line in ingredient_lines(text):
        numbers = stated_numbers(line)
        rest = re.sub(r"^\s*(?:about\s+)?[\d./½¼¾]+(?:\s+\d+/\d+)?\s*", "", line)
        found.append((str(float(round(numbers[0].value, 4))) if numbers else "", plain(rest)))
    return found
