"""Five questions about one vocabulary, each with one answer: they are about all of the training text.

    python educational/experiments/vocabulary_details.py

How often was each merge made; how many words do incremental counts touch; what do another rule for ties and other ways
to cut digits change; how many words would a vocabulary of words not know; how often does each token of the shipped
vocabulary occur. No draws, so no seeds. Half a minute on one core; writes runs/book/vocabulary_details.json.
"""

import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the book is no installed package

from educational.experiments.vocabulary import Pair, corpus, figure, num_bytes, tokens_at, write
from educational.lesson import changed
from nanochat.tokenizer import PATTERN, Tokenizer, training

SHIPPED = Path(__file__).parents[2] / "runs" / "reference" / "tokenizer"
DIGITS = {1: r"\p{N}", 2: r"\p{N}{1,2}", 3: r"\p{N}{1,3}"}
LARGEST = 32_768
SHOWN = 4096  # the vocabulary at which single questions are asked


def mirrored(pieces: Counter[str]) -> Counter[str]:
    """Bytes numbered backwards: then of two equal counts the one with the larger byte goes first."""
    table = {byte: 255 - byte for byte in range(256)}
    return Counter({piece.translate(table): times for piece, times in pieces.items()})


def back(token: int) -> int:
    """The token that a mirrored one stands for."""
    return 255 - token if token < 256 else token


def bytes_a_token(merges: list[Pair], pieces: Counter[str]) -> float:
    return num_bytes(pieces) / tokens_at(pieces, merges, (256 + len(merges),))[256 + len(merges)].total()


def cut(tokenizer: Tokenizer, text: str) -> list[bytes]:
    """The bytes of each token of `text`: where it is cut, whatever the tokens' numbers."""
    return [tokenizer.token_bytes(token) for token in tokenizer.encode(text)]


def main() -> None:
    """Measure, print as it comes, write the record."""
    began = time.process_time()
    train, held = corpus()
    everything = [text for texts in held.values() for text in texts]
    pieces, tested = training.count_pieces(train, PATTERN), training.count_pieces(everything, PATTERN)

    # The counts that merges had when they were learned, and how many words were touched.
    line = "merges.append((ord(pair[0]), ord(pair[1])))"
    watched = changed(training, line, f"{line}; LOG.append((-count, len(places[pair])))")
    watched.LOG = []
    merges = watched.learn_merges(pieces, LARGEST - 256)
    counts, touched = [count for count, _ in watched.LOG], [number for _, number in watched.LOG]
    figures = [
        figure("pieces", [pieces.total()], "pieces"),
        figure("distinct_pieces", [len(pieces)], "pieces"),
        figure("training_bytes", [num_bytes(pieces)], "bytes"),
        figure("words_touched", [sum(touched[: SHOWN - 256])], "words"),
        figure("words_read_naively", [len(pieces) * (SHOWN - 256)], "words"),
    ]

    # A vocabulary of whole words would not know these.
    unknown = [piece for piece in tested if piece not in pieces]
    figures += [
        figure("held_pieces_unknown", [len(unknown) / len(tested)], "share of distinct pieces"),
        figure("held_places_unknown", [sum(tested[piece] for piece in unknown) / tested.total()], "share of pieces"),
    ]

    # Two rules for ties.
    ours = Tokenizer(merges[: SHOWN - 256])
    learned = training.learn_merges(mirrored(pieces), SHOWN - 256)
    other = Tokenizer([(back(left), back(right)) for left, right in learned])
    spelled = [{tokenizer.token_bytes(token) for token in range(256, SHOWN)} for tokenizer in (ours, other)]
    figures += [
        figure("ties_merges_equal", [sum(a == b for a, b in zip(ours.merges, other.merges, strict=True))], "merges"),
        figure("ties_tokens_shared", [len(spelled[0] & spelled[1])], "tokens"),
        figure("ties_bytes_a_token_ours", [bytes_a_token(ours.merges, tested)], "bytes/token"),
        figure("ties_bytes_a_token_other", [bytes_a_token(other.merges, tested)], "bytes/token"),
        figure(
            "ties_documents_cut_alike", [sum(cut(ours, text) == cut(other, text) for text in everything)], "documents"
        ),
        figure("held_documents", [len(everything)], "documents"),
    ]

    # Three ways to cut digits.
    for longest, digits in DIGITS.items():
        pattern = PATTERN.replace(DIGITS[2], digits)
        so_cut = training.count_pieces(train, pattern) if longest != 2 else pieces
        some = training.learn_merges(so_cut, SHOWN - 256)
        tokenizer = Tokenizer(some)
        of_digits = [token for token in range(SHOWN) if tokenizer.token_bytes(token).isdigit()]
        figures += [
            figure(
                f"digits_{longest}_bytes_a_token",
                [bytes_a_token(some, training.count_pieces(everything, pattern))],
                "bytes/token",
            ),
            figure(f"digits_{longest}_tokens", [len(of_digits)], "tokens"),
        ]

    # How often each token of the shipped vocabulary occurs in the text it was learned from.
    shipped = Tokenizer.load(SHIPPED)
    assert shipped.merges == merges[: len(shipped.merges)], "the corpus is another than the shipped run's"
    size = 256 + len(shipped.merges)
    occurs = tokens_at(pieces, shipped.merges, (size,))[size]
    figures += [
        figure("shipped_bytes_never", [sum(occurs[token] == 0 for token in range(256))], "tokens"),
        figure("shipped_merged_never", [sum(occurs[token] == 0 for token in range(256, size))], "tokens"),
        figure("shipped_merged_below_10", [sum(occurs[token] < 10 for token in range(256, size))], "tokens"),
    ]
    write("vocabulary_details", began, seeds=[], figures=figures, merge_counts=counts,
          occurrences=[occurs[token] for token in range(size)])  # fmt: skip


if __name__ == "__main__":
    main()
