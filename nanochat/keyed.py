"""Random draws named by what they are for, never taken from a shared stream.

`rng(seed, "sft", step, row)` gives the same draws whatever was drawn before it, on whichever process: that is what
makes a resumed run, and a run on many processes, the same run.
"""

import hashlib
import random


def key(*parts: object) -> int:
    """A 63-bit number that depends on every part, the same on every machine.

    >>> key(0, "sft", 7) == key(0, "sft", 7) != key(0, "sft", 8)
    True
    """
    name = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def rng(*parts: object) -> random.Random:
    """A generator of its own for the draws that `parts` name."""
    return random.Random(key(*parts))
