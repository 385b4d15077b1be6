"""Guessing what comes next, so that one pass of the model can write several tokens: speculation by prompt look-up.

An answer that copies a recipe says again what stands above it. Where its last tokens stood before, what followed then
is the guess now; no second model is needed (Saxena, "Prompt lookup decoding", 2023). The pass that reads the newest
token reads the guesses too, in far less time than passes of their own would take. Then the tokens are drawn one after
the other, each with the random number that it would have had, from the scores that it would have had; as long as the
draw is the guess, the next scores are there already. So the answer does not change at all, and a guess is accepted as
often as its probability says, which is the most that any such scheme reaches (arXiv:2211.17192, theorem 1).
"""

from collections.abc import Iterable

LENGTH = 3  # tokens that must have stood before
MOST = 16  # guesses at once
PAUSE = 24  # tokens without a guess after some that were wrong


class Lookup:
    """The tokens of one row, and where each three of them stood last.

    >>> row = Lookup()
    >>> row.extend([1, 2, 3, 4, 5, 9, 1, 2, 3])
    >>> row.guess(most=2)
    [4, 5]
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ends: dict[tuple[int, ...], int] = {}  # after which position these tokens stood, before the newest
        self.count, self.resting = 4, 0

    def extend(self, ids: Iterable[int]) -> None:
        """Add tokens at the end."""
        for token in ids:
            if len(self.ids) >= LENGTH:
                self.ends[tuple(self.ids[-LENGTH:])] = len(self.ids)
            self.ids.append(token)
            self.resting = max(0, self.resting - 1)

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where nothing speaks for any."""
        if self.resting or most < 1:
            return []
        start = self.ends.get(tuple(self.ids[-LENGTH:]), len(self.ids))
        return self.ids[start : start + min(self.count, most)]

    def learn(self, guessed: int, accepted: int) -> None:
        """Guess more after guesses that were right, fewer after wrong ones, and then for a while none."""
        if accepted == guessed:
            self.count = min(2 * self.count, MOST)
        elif accepted < guessed / 2:
            self.count, self.resting = max(2, self.count // 2), PAUSE if self.count == 2 else 0
