"""What a compressor makes of the same text: the bar that needs no learning.

xz finds repeats (LZ77) and codes them with adaptive probabilities. Given the training text first, it may use all of it
as a dictionary, as the model uses its weights: what the held-out text adds to the file is what it costs.
"""

import lzma
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from nanochat.errors import DataError
from nanochat.evaluate.bits import UNIT
from nanochat.evaluate.figures import Figure

NAME = "bpb_xz"
SEPARATOR = b"\n\n"
LARGEST_DICTIONARY = 1 << 28  # the encoder holds about ten times its dictionary in memory


def xz_bits_per_byte(train: Sequence[str], held: Sequence[str], *, stage: str = "pretrain", name: str = NAME) -> Figure:
    """(xz(train + held) - xz(train)) x 8 over the bytes of `held`; one number, so without an interval."""
    return xz_figures(train, {name: held}, stage=stage)[0]


def xz_figures(train: Sequence[str], held: Mapping[str, Sequence[str]], *, stage: str = "pretrain") -> list[Figure]:
    """A figure for each set of held-out texts, by name; the training text alone is compressed once for all.

    About 6 seconds for each 7 MB where a core is free: keep the figures, the texts do not change.
    """
    num_bytes = {name: sum(len(text.encode()) for text in texts) for name, texts in held.items()}
    if not all(num_bytes.values()):
        raise DataError("held-out documents that hold text", f"none in {dict(num_bytes)}", "use a larger source")
    before = joined(train)
    # lzma lets go of Python's lock: two files are made side by side.
    with ThreadPoolExecutor(2) as threads:
        shorter, *longer = threads.map(xz_size, (before, *(before + joined(texts) for texts in held.values())))
    values = {name: (size - shorter) * 8 / num_bytes[name] for name, size in zip(held, longer, strict=True)}
    return [Figure(stage, name, value, value, value, len(held[name]), UNIT) for name, value in values.items()]


def joined(texts: Sequence[str]) -> bytes:
    """Documents one after another. What separates them is xz's to encode, and no part of the bytes divided by."""
    return b"".join(text.encode() + SEPARATOR for text in texts)


def xz_size(data: bytes) -> int:
    """Bytes of the .xz file, at the strongest setting and with a dictionary that reaches back to the first byte."""
    dictionary = min(max(4096, len(data)), LARGEST_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))
