"""Multiple choice about the kitchen: four answers with letters, one of them right."""

import re

from nanochat import keyed
from nanochat.tasks.grading import plain, repeats
from nanochat.tasks.task import Example, Grade, Split, dialogue, on_side
from nanochat.tasks.wording import wordings
from nanochat.tokenizer.chat import Message

# Category -> its members; no member fits another category of the table.
CATEGORIES = {
    "a vegetable": "carrot broccoli cabbage spinach leek celery lettuce kale asparagus cauliflower turnip onion",
    "a fruit": "apple banana orange pear grape mango cherry plum peach strawberry pineapple melon kiwi apricot",
    "a fish": "salmon tuna cod trout herring mackerel sardine halibut anchovy haddock",
    "a meat": "beef pork lamb veal bacon ham sausage steak mutton venison",
    "a drink": "coffee tea lemonade juice beer wine cocoa cider soda water",
    "a spice": "cinnamon nutmeg pepper cumin paprika turmeric saffron cardamom ginger cloves",
    "made from milk": "cheese yogurt butter cream buttermilk cheddar mozzarella custard",
    "a grain": "rice wheat oats barley rye corn millet quinoa",
    "a tool": "whisk knife spoon ladle grater spatula fork peeler tongs sieve",
    "a nut": "almond walnut pecan hazelnut cashew pistachio",
    "sweet": "sugar honey syrup jam candy chocolate caramel fudge",
    "a kind of pasta": "spaghetti macaroni lasagna penne ravioli fettuccine linguine",
}

WHICH = wordings("choice.which")
# A letter as a choice: "B", "b)", "(C)"; an A only before a sign, an "or" or the end, since it is a word too.
MARK = re.compile(r"(?<![\w'])(?:([B-D])(?![\w'])|([Aa-d])(?:[).:]|\s*$|\s+(?:or|and)\b))")
LAYOUTS = ("\nA) {0}\nB) {1}\nC) {2}\nD) {3}", " A) {0} B) {1} C) {2} D) {3}", "\nA. {0}\nB. {1}\nC. {2}\nD. {3}")


class Choice:
    """Four words, one of which is of the kind asked for; the reply names its letter."""

    name = "choice"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        while True:
            category = draw.choice(sorted(CATEGORIES))
            others = draw.sample(sorted(set(CATEGORIES) - {category}), 3)
            right = draw.choice(CATEGORIES[category].split())
            options = [right, *(draw.choice(CATEGORIES[other].split()) for other in others)]
            if on_side(split, category, *sorted(options)):
                break
        draw.shuffle(options)
        shown = draw.choice(LAYOUTS).format(*options)
        question = WHICH.ask(split, draw, {"category": category, "options": shown}, keep=("options",))
        letter = "ABCD"[options.index(right)]
        truth: dict[str, object] = {"letter": letter, "options": options}
        return Example(dialogue(question.text, f"{letter}) {right}"), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        options = example.truth["options"]
        assert isinstance(options, list)
        return grade_choice(reply, str(example.truth["letter"]), options)


def grade_choice(reply: Message, letter: str, options: list[str]) -> Grade:
    """Whether the reply names the right letter, or the right option in words, and no other."""
    text = reply.text
    named = {option for option in options if f" {plain(option)} " in f" {plain(text)} "}
    chosen = {options["ABCD".index(mark.upper())] for pair in MARK.findall(text) for mark in pair if mark}
    right = options["ABCD".index(letter)]
    if not named and not chosen:
        return Grade(0.0, "no choice")
    if named | chosen != {right}:
        return Grade(0.0, "another choice, or more than one")
    return Grade(0.5, "right, but repeats itself") if repeats(text) else Grade(1.0, "right")
