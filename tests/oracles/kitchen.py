"""A dozen recipes made by hand, so that tests of tasks need no network."""

from nanochat.data.recipes import Recipe


def recipe(
    title: str, facts: tuple[int | None, int | None, int | None], ingredients: list[str], steps: list[str]
) -> Recipe:
    servings, minutes, difficulty = facts
    return Recipe(title, None, servings, minutes, difficulty, tuple(ingredients), tuple(steps))


KITCHEN = [
    recipe(
        "Tomato Soup",
        (4, 30, 1),
        ["4 tomatoes", "1 onion, chopped", "2 cups vegetable broth", "1/2 teaspoon salt"],
        ["Fry the onion.", "Add tomatoes and broth, and simmer for 20 minutes.", "Blend and salt."],
    ),
    recipe(
        "Spicy Tomato Soup",
        (4, None, 2),
        ["4 tomatoes", "1 chile", "2 cups broth"],
        ["Boil everything.", "Blend."],
    ),
    recipe(
        "Pancakes (North American)",
        (2, 20, 1),
        ["1 1/2 cups flour", "1 egg", "1 1/4 cups milk", "2 tablespoons sugar", "salt"],
        ["Whisk everything.", "Fry in butter until golden.", "Serve with syrup."],
    ),
    recipe(
        "Frikadeller (Danish Meatballs)",
        (None, None, 2),
        ["250 g ground veal", "250 g ground pork", "1 egg", "Salt to taste"],
        ["Mix all ingredients.", "Shape into patties.", "Fry in butter."],
    ),
    recipe(
        "Crème Brûlée II",
        (6, 90, 4),
        ["5 egg yolks", "2 cups cream", "1/3 cup sugar"],
        ["Heat the cream.", "Beat the yolks with the sugar.", "Bake for 40 minutes.", "Chill, then burn the top."],
    ),
    recipe(
        "Chicken Curry",
        (4, 45, 3),
        ["1 pound chicken", "2 onions", "1 cup coconut milk", "2 tablespoons curry powder", "rice"],
        [
            "Fry the onions.",
            "Add chicken and curry powder.",
            "Pour in the coconut milk and simmer.",
            "Serve with rice.",
        ],
    ),
    recipe(
        "Guacamole I",
        (None, 10, 1),
        ["2 avocados", "1 lime", "1/4 onion", "Salt"],
        ["Mash the avocados.", "Stir in the rest."],
    ),
    recipe(
        "Banana Bread with Walnuts",
        (8, 75, 2),
        ["3 bananas", "2 cups flour", "1/2 cup sugar", "2 eggs", "1/2 cup walnuts"],
        ["Mash the bananas.", "Mix in everything else.", "Bake at 350°F for an hour."],
    ),
    recipe(
        "Beef Stew",
        (6, 120, 2),
        ["2 pounds beef", "4 carrots", "3 potatoes", "1 L broth"],
        ["Brown the beef.", "Add the rest.", "Simmer for 1 hour 30 minutes."],
    ),
    recipe("Green Tea", (1, 5, 1), ["1 teaspoon tea leaves", "1 cup water"], ["Heat the water.", "Let it draw."]),
    recipe(
        "Apple Pie I",
        (8, None, 3),
        ["6 apples", "1 cup sugar", "2 pie crusts", "1 teaspoon cinnamon"],
        ["Slice the apples.", "Fill the crust.", "Bake until brown."],
    ),
    recipe("Hummus", (4, 15, None), ["400 g chickpeas", "2 tablespoons tahini", "1 lemon"], ["Blend.", "Season."]),
    recipe("Egg Salad", (2, 20, 1), ["4 eggs", "2 tablespoons mayonnaise"], ["Boil the eggs.", "Chop and mix."]),
    recipe(
        "Fried Rice",
        (3, 25, 2),
        ["2 cups rice", "2 eggs", "1 onion", "3 tablespoons soy sauce", "1 cup peas"],
        ["Fry onion and peas.", "Add the rice.", "Scramble in the eggs and season."],
    ),
]
