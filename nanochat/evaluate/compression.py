"""What a compressor makes of the same text: the bar that needs no learning.

xz finds repeats (LZ77) and codes them with adaptive probabilities. Given the training text first, it may use all of it
as a dictionary, as the model uses its weights: what the held-out text adds to the file is what it costs.
"""

import lzma
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from nanochat.errors import DataError
from nanochat.evaluate.bits import UNIT
from nanochat.evaluate.figures import Figure

NAME = "bpb_xz"
SEPARATOR = b"\n\n"
LARGEST_DICTIONARY = 1 << 28  # the encoder holds about ten times its dictionary in memory


def xz_bits_per_byte(train: Sequence[str], held: Sequence[str], *, stage: str = "pretrain", name: str = NAME) -> Figure:
    """(xz(train + held) - xz(train)) x 8 over the bytes of `held`; one number, so without an interval.

    About 6 seconds for 7 MB of text where two cores are free: keep the figure, the text does not change.
    """
    num_bytes = sum(len(text.encode()) for text in held)
    if num_bytes == 0:
        raise DataError("held-out documents that hold text", f"none in {len(held)}", "use a larger source")
    before = joined(train)
    # lzma lets go of Python's lock: the two files are made side by side.
    with ThreadPoolExecutor(2) as threads:
        shorter, longer = threads.map(xz_size, (before, before + joined(held)))
    value = (longer - shorter) * 8 / num_bytes
    return Figure(stage, name, value, value, value, len(held), UNIT)


def joined(texts: Sequence[str]) -> bytes:
    """Documents one after another. What separates them is xz's to encode, and no part of the bytes divided by."""
    return b"".join(text.encode() + SEPARATOR for text in texts)


def xz_size(data: bytes) -> int:
    """Bytes of the .xz file, at the strongest setting and with a dictionary that reaches back to the first byte."""
    dictionary = min(max(4096, len(data)), LARGEST_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))
