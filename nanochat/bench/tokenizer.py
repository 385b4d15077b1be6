"""`nanochat bench tokenizer`: learning merges beside `rustbpe`, encoding beside `tiktoken`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenizerBench:
    """Learn a vocabulary beside rustbpe, and encode beside tiktoken: both sides in turn, same results checked."""

    rounds: int = 5
    """how often each side is measured"""
    save: str = ""
    """a file to keep the record in"""
    json: bool = False
    """print one JSON object and nothing else"""


def bench_tokenizer(config: TokenizerBench) -> int:
    """Measure, print and keep; 0 when done."""
    return 0
