"""A vocabulary from texts: count the pairs, merge the most frequent one, until there are as many tokens as asked.

Which pair is next is decided by a stated rule, so that the same texts give the same tokenizer everywhere:

    the pair with the highest count; of several, the one with the smallest left id, then the smallest right id.

A count is the number of places in all pieces where the two ids stand side by side ("aaa" counts twice for a + a). A
pair seen once is chance and makes no merge. "low lower lowest" is cut into "low", " lower" and " lowest":

    l+o 3, o+w 3, " "+l 2, w+e 2, the rest 1    l+o and o+w tie, and "l" (108) is before "o" (111)    l+o -> 256 "lo"
    256+w 3, " "+256 2, w+e 2                   one is ahead                                          256+w -> 257 "low"
    " "+257 2, 257+e 2                          they tie, and " " (32) is before 257                  " "+257 -> 258
    258+e 2                                     the last pair that is seen twice                      258+e -> 259

    >>> train_tokenizer(["low lower lowest"], 260, specials=()).merges
    [(108, 111), (256, 119), (32, 257), (258, 101)]

Counting all pairs anew for each of thousands of merges would take hours. Three observations make it a matter of
seconds in plain Python:

- Words repeat. We keep each distinct piece once, with the number of times that it was seen.
- A merge changes counts only beside the places where it happens. An index tells which pieces hold a pair, and only
  those are touched; the counts of the neighbours are corrected by the difference.
- A merge never raises the count of a pair that was there before: the pairs it adds all hold the new id. So a priority
  queue may hold counts that are out of date, since they can only be too high. When an entry comes to the top and its
  count is no longer true, it goes back with the true one.

A piece is kept as a `str` in which character number n stands for token n. That sounds odd and is a gift: merging a
piece is then `str.replace`, which goes from left to right as a merge must, at the speed of C; and two characters
compare as two ids do, which is the rule for ties.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from nanochat.errors import TokenizerError
from nanochat.tokenizer import counting, merging
from nanochat.tokenizer.bpe import PATTERN, Pair, Tokenizer, compile_pattern, repair_surrogates, split
from nanochat.tokenizer.chat import SPECIALS


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    pattern: str = PATTERN,
    specials: Sequence[str] = SPECIALS,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` tokens: 256 bytes, merges learned from `texts`, `specials` (the last ids).

    `progress(done, total)` is called as merges are made; `workers` threads count pieces. Raises TokenizerError where
    the texts hold too few merges.
    """
    assert not isinstance(texts, str), "give a list of texts: a str would be read as one text a character"
    smallest = 256 + len(specials)
    if vocab_size < smallest:
        least = f"a vocabulary of {smallest} or more"
        raise TokenizerError(
            least, str(vocab_size), f"it holds 256 bytes and {len(specials)} special tokens: ask for more"
        )
    wanted = vocab_size - smallest
    # The two functions below, as operations on arrays: the same merges in a fraction of the time.
    merges = merging.learn_merges(counting.count_pieces(texts, pattern, workers), wanted, progress)
    if len(merges) < wanted:
        expected = f"text with {wanted} merges for a vocabulary of {vocab_size}"
        remedy = f"give more text or ask for a vocabulary of {smallest + len(merges)}"
        raise TokenizerError(expected, f"text with {len(merges)}", remedy)
    first = 256 + len(merges)
    return Tokenizer(merges, pattern=pattern, specials={name: first + place for place, name in enumerate(specials)})


def count_pieces(texts: Iterable[str], pattern: str) -> Counter[str]:
    """How often each piece occurs; a piece is a str of its bytes, character n for byte n."""
    splitter, counts = compile_pattern(pattern), Counter[str]()
    for text in texts:
        counts.update(split(splitter, repair_surrogates(text)))
    return Counter({piece.encode().decode("latin-1"): count for piece, count in counts.items()})


def learn_merges(pieces: Counter[str], wanted: int, progress: Callable[[int, int], None] | None = None) -> list[Pair]:
    """The first `wanted` merges, or fewer where no pair is left that occurs twice."""
    words, times = list(pieces), list(pieces.values())
    counts, places = index_pairs(words, times)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapify(queue)
    merges: list[Pair] = []
    while queue and len(merges) < wanted:
        count, pair = heappop(queue)
        if -count != counts[pair]:  # it was true when it was put there
            heappush(queue, (-counts[pair], pair))
            continue
        if -count < 2:
            break
        new, born = chr(256 + len(merges)), set[str]()
        merges.append((ord(pair[0]), ord(pair[1])))
        for place in places.pop(pair):
            word = words[place]
            words[place] = word.replace(pair, new)
            for changed, change in count_changes(word, pair, new).items():
                counts[changed] += change * times[place]
                if change > 0:
                    places[changed].append(place)
                    born.add(changed)
        counts[pair] = 0
        for other in born:
            heappush(queue, (-counts[other], other))
        if progress is not None:
            progress(len(merges), wanted)
    return merges


def index_pairs(words: Sequence[str], times: Sequence[int]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """(the count of each pair, the words that hold it), when word number n was seen `times[n]` times."""
    counts: dict[str, int] = defaultdict(int)
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(words):
        for pair, count in Counter(map("".join, pairwise(word))).items():
            counts[pair] += count * times[place]
            places[pair].append(place)
    return counts, places


def count_changes(word: str, pair: str, new: str) -> dict[str, int]:
    """By how much the counts of the neighbouring pairs change when `pair` becomes `new` in one `word`.

    >>> count_changes("xaby", "ab", "N")
    {'xa': -1, 'xN': 1, 'by': -1, 'Ny': 1}
    """
    changes: dict[str, int] = defaultdict(int)
    left, right = pair[0], pair[1]
    rests = word.split(pair)  # the same occurrences as `replace` finds
    for place, (before, after) in enumerate(pairwise(rests)):
        if before:
            changes[before[-1] + left] -= 1
            changes[before[-1] + new] += 1
        elif place:  # two occurrences touch: "abab" loses b + a and gains new + new
            changes[right + left] -= 1
            changes[new + new] += 1
        if after:
            changes[right + after[0]] -= 1
            changes[new + after[0]] += 1
    return dict(changes)
