"""What the chapters use to show what a line is for: a copy of a module with that line changed."""

import importlib
import linecache
import zlib
from types import ModuleType


def changed(module: str | ModuleType, old: str, new: str) -> ModuleType:
    """A copy of `module` whose source has `new` where it had `old`; the module itself stays as it is.

    `old` has to stand in the source exactly once, so that a lesson fails, and is noticed, when the line it speaks of is
    gone. What other modules imported from the original they keep: put `copy.name` where it is to be used. A copy can
    be changed once more. Raises ValueError where nothing, or more than one place, would change.

        >>> loud = changed("nanochat.errors", "class DataError(", "class DataError2(")
        >>> hasattr(loud, "DataError"), hasattr(importlib.import_module("nanochat.errors"), "DataError")
        (False, True)
    """
    original = importlib.import_module(module) if isinstance(module, str) else module
    source = "".join(linecache.getlines(original.__file__ or "", original.__dict__))
    times = source.count(old)
    if times != 1 or not old:
        raise ValueError(f"{original.__name__} has this {times} times, not once: {old!r}")
    if new == old:
        raise ValueError(f"nothing would change in {original.__name__}: old and new are both {old!r}")
    source = source.replace(old, new)
    # The copy keeps the name, by which dataclasses and pickle find the original; it is in no table of modules.
    copy = ModuleType(original.__name__, original.__doc__)
    copy.__package__ = original.__package__
    copy.__file__ = f"<{original.__name__} with {new!r:.60} #{zlib.crc32(source.encode()):x}>"
    # Tracebacks and inspect read the changed lines from here.
    linecache.cache[copy.__file__] = (len(source), None, source.splitlines(keepends=True), copy.__file__)
    exec(compile(source, copy.__file__, "exec"), copy.__dict__)
    return copy
