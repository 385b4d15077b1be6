"""Letters of words, which a model that reads tokens cannot see. It would have to learn each by heart; so it looks."""

import re
from collections.abc import Callable

from nanochat import keyed
from nanochat.errors import ToolError
from nanochat.tasks.grading import plain, repeats
from nanochat.tasks.task import Example, Grade, Split, dialogue, is_held_out
from nanochat.tasks.wording import wordings
from nanochat.tokenizer.chat import Call, Message, Output, Text

WORDS = re.findall(
    "[a-z]+",
    """
    almond apple apricot asparagus avocado bacon bagel baguette banana basil batter beef berry biscuit blender
    blueberry bottle bowl bread broccoli broth brownie bucket burger butter cabbage cake candy caramel carrot
    casserole celery cereal cheese cherry chicken chili chive chocolate cinnamon clove cocoa coconut coffee cookie
    corn cracker cranberry cream cucumber cumin cupboard curry custard date dessert dill dinner dish dough
    dressing duck dumpling egg eggplant fennel fig fish flour fork freezer fridge fruit garlic gelatin ginger
    glass grape grater gravy grill guava ham hazelnut herb honey jam jelly juice kale kettle kitchen kiwi knife
    ladle lamb lasagna leek lemon lentil lettuce lime lobster lunch macaroni mango maple margarine marinade meal
    meat melon milk mint mixer molasses muffin mushroom mussel mustard napkin noodle nutmeg oats oil olive
    omelette onion orange oregano oven oyster pan pancake papaya paprika parsley parsnip pasta pastry peach peanut
    pear pecan pepper pickle pie pineapple pistachio pizza plate plum popcorn pork potato pretzel pudding pumpkin
    quinoa radish raisin raspberry recipe rhubarb rice rosemary saffron sage salad salami salmon salt sandwich
    sauce sausage scallop scone sesame shallot shrimp skillet soda soup spatula spice spinach spoon squash squid
    steak stew stock stove strawberry sugar supper syrup table tart tea teapot thyme tin toast tofu tomato tray
    trout tuna turkey turmeric turnip vanilla veal vinegar waffle walnut water whisk wine wok yeast yogurt
    zucchini
    """,
)

SPELL = wordings("spelling.spell")
COUNT = wordings("spelling.count")
LENGTH = wordings("spelling.length")
FIRST = wordings("spelling.first")
LAST = wordings("spelling.last")
KINDS = {"spell": SPELL, "count": COUNT, "length": LENGTH, "first": FIRST, "last": LAST}


# What the model asks `find` for each kind of question.
QUERIES = {
    "spell": "letters of {word}",
    "count": "letter {letter} in {word}",
    "length": "number of letters in {word}",
    "first": "first letter of {word}",
    "last": "last letter of {word}",
}


class Spelling:
    """Spelling words, counting letters, the first and the last letter: looked up, since a token hides its letters."""

    name = "spelling"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(("spell", "spell", "count", "count", "length", "first", "last"))
        word = draw.choice([word for word in WORDS if is_held_out(word) == (split != "train")])
        letter = draw.choice(word) if draw.random() < 0.85 else draw.choice("abcdefghiklmnoprstuy")
        question = KINDS[kind].ask(split, draw, {"word": word, "letter": letter}, keep=("word", "letter"))
        said = answer(kind, word, letter)
        reply = Call("find", QUERIES[kind].format(word=word, letter=letter)), Output(said), Text(said)
        truth: dict[str, object] = {"kind": kind, "word": word, "letter": letter}
        return Example(dialogue(question.text, reply), truth, question.wording)

    def grade(self, example: Example, reply: Message) -> Grade:
        kind, word = str(example.truth["kind"]), str(example.truth["word"])
        text = reply.text.strip()
        expected = answer(kind, word, str(example.truth["letter"]))
        if not text:
            return Grade(0.0, "empty")
        if repeats(text) or len(text) > 2 * len(expected) + 60:
            return Grade(0.0, "repeats itself or runs on")
        spelled = kind == "spell" and letters(text) in (word, word + word)
        right = spelled or (kind != "spell" and conclusion(text) == conclusion(expected))
        return Grade(1.0, "right") if right else Grade(0.0, f"not {expected}")


def answer(kind: str, word: str, letter: str = "") -> str:
    """What is said about the letters of a word.

    >>> answer("spell", "egg"), answer("count", "egg", "g"), answer("length", "egg"), answer("last", "egg")
    ('e-g-g', 'The letter g is in egg 2 times.', 'It has 3 letters.', 'The last letter is G.')
    """
    if kind == "spell":
        return "-".join(word)
    if kind in ("first", "last"):
        return f"The {kind} letter is {word[0 if kind == 'first' else -1].upper()}."
    if kind == "length":
        return f"It has {len(word)} letters."
    number = word.count(letter)
    return f"The letter {letter} is in {word} {number} time{'s' * (number != 1)}."


def looked_up(kind: str) -> Callable[[str], str]:
    """What `find` answers to one kind of query, given what stands behind its first words."""

    def look_up(rest: str) -> str:
        letter, _, word = rest.strip().lower().rpartition(" in ")
        if not (word.isalpha() and len(word) <= LONGEST and len(letter) == (kind == "count")):
            raise ToolError("name one word, as in: find letters of zucchini")
        return answer(kind, word, letter)

    return look_up


LONGEST = 30  # letters of a word
# What a query begins with -> what answers it.
LETTERS = {QUERIES[kind].partition(" {")[0]: looked_up(kind) for kind in KINDS}


def letters(text: str) -> str:
    """The letters of a text that are set apart, or all of them, without what parts them."""
    return "".join(sign for sign in text.lower() if sign.isalpha())


def conclusion(text: str) -> str:
    """What an answer comes to: its last number, or else its last word."""
    numbers = re.findall(r"\d+", text)
    return numbers[-1] if numbers else (plain(text).split() or [""])[-1]
