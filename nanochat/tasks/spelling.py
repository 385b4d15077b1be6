"""Letters of words, which a model that reads tokens cannot see: it must know how each token is spelled."""

import re

from nanochat import keyed
from nanochat.tasks.grading import plain, repeats
from nanochat.tasks.task import Example, Grade, Split, dialogue, is_held_out
from nanochat.tasks.wording import Wordings
from nanochat.tokenizer.chat import Message

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

SPELL = Wordings(
    "spelling.spell",
    train=(
        "Spell {word}.",
        "How do you spell {word}?",
        "How is {word} spelled?",
        "Spell the word {word}.",
        "Can you spell {word}?",
        "Spell {word} for me.",
        "Write {word} letter by letter.",
        "What are the letters of {word}?",
        "Please spell {word}.",
    ),
    test=(
        "I can't spell {word}. Help me.",
        "Which letters make up {word}?",
        "Say {word} one letter at a time.",
        "Give me the spelling of {word}.",
    ),
)
COUNT = Wordings(
    "spelling.count",
    train=(
        "How many {letter}'s are in {word}?",
        "How many times is {letter} in {word}?",
        "How often does {word} have the letter {letter}?",
        "Count the {letter}'s in {word}.",
        "How many {letter} are there in {word}?",
        "How many letters {letter} does {word} have?",
        "Count the letter {letter} in {word}.",
        "In {word}, how many {letter}'s are there?",
    ),
    test=(
        "Tell me how often {letter} comes up in {word}.",
        "I wonder how many {letter}'s {word} has.",
        "What is the number of {letter}'s in {word}?",
        "Does {word} have one {letter} or more? How many?",
    ),
)
LENGTH = Wordings(
    "spelling.length",
    train=(
        "How many letters are in {word}?",
        "How many letters does {word} have?",
        "How long is the word {word}?",
        "Count the letters of {word}.",
        "How many letters has {word}?",
        "{word}: how many letters?",
        "The word {word} has how many letters?",
        "Count the letters in {word}.",
    ),
    test=(
        "Tell me how many letters {word} has.",
        "What is the number of letters in {word}?",
        "If I write {word}, how many letters is that?",
        "Letters in {word}, how many?",
    ),
)
FIRST = Wordings(
    "spelling.first",
    train=(
        "What letter does {word} start with?",
        "What is the first letter of {word}?",
        "Which letter does {word} begin with?",
        "{word} starts with which letter?",
        "With which letter does {word} start?",
        "The first letter of {word}?",
        "What does {word} begin with?",
        "Tell me the first letter of {word}.",
    ),
    test=(
        "Under which letter do I find {word}?",
        "Give me the letter at the start of {word}.",
        "What is the letter that {word} begins with?",
        "How does {word} begin?",
    ),
)
LAST = Wordings(
    "spelling.last",
    train=(
        "What letter does {word} end with?",
        "What is the last letter of {word}?",
        "Which letter does {word} end in?",
        "{word} ends with which letter?",
        "With which letter does {word} end?",
        "The last letter of {word}?",
        "What does {word} end with?",
        "Tell me the last letter of {word}.",
    ),
    test=(
        "Give me the letter at the end of {word}.",
        "How does {word} end?",
        "What letter stands last in {word}?",
        "What is the letter that {word} ends on?",
    ),
)
KINDS = {"spell": SPELL, "count": COUNT, "length": LENGTH, "first": FIRST, "last": LAST}


class Spelling:
    """Spelling words, counting letters, the first and the last letter. Counting spells the word out on the way."""

    name = "spelling"

    def example(self, split: Split, index: int, seed: int = 0) -> Example:
        draw = keyed.rng(seed, self.name, split, index)
        kind = draw.choice(("spell", "spell", "count", "count", "length", "first", "last"))
        word = draw.choice([word for word in WORDS if is_held_out(word) == (split != "train")])
        letter = draw.choice(word) if draw.random() < 0.85 else draw.choice("abcdefghiklmnoprstuy")
        question = KINDS[kind].ask(split, draw, {"word": word, "letter": letter}, keep=("word", "letter"))
        truth: dict[str, object] = {"kind": kind, "word": word, "letter": letter}
        return Example(dialogue(question.text, answer(kind, word, letter)), truth, question.wording)

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


def answer(kind: str, word: str, letter: str) -> str:
    """The reference answer.

    >>> answer("spell", "egg", ""), answer("count", "egg", "g"), answer("length", "egg", ""), answer("last", "egg", "")
    ('e-g-g', 'e g(1) g(2): 2.', 'e(1) g(2) g(3): 3.', 'G.')
    """
    if kind == "spell":
        return "-".join(word)
    if kind in ("first", "last"):
        return f"{word[0 if kind == 'first' else -1].upper()}."
    counted, told = 0, []
    for sign in word:
        counts = kind == "length" or sign == letter
        counted += counts
        told.append(f"{sign}({counted})" if counts else sign)
    return f"{' '.join(told)}: {counted}."


def letters(text: str) -> str:
    """The letters of a text that are set apart, or all of them, without what parts them."""
    return "".join(sign for sign in text.lower() if sign.isalpha())


def conclusion(text: str) -> str:
    """The last word of a text: what an answer comes to."""
    return plain(text).split()[-1] if plain(text) else ""
