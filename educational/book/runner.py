"""Runs blocks of code one after another, as if pasted, in a Python of its own: session.py starts this file by its path.

Reads from standard input, as JSON, the blocks (a label, the line where it begins, its code) and whether to go on
after one that fails; writes for each what it printed, its traceback, and its seconds of CPU time.
"""

import contextlib
import io
import json
import linecache
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType


def run(label: str, line: int, code: str, space: dict[str, object]) -> tuple[str, str, float]:
    """One block; tracebacks name the chapter and its line."""
    printed, error, start = io.StringIO(), "", time.process_time()
    source = "\n" * line + code + "\n"
    name = f"{label}, block of line {line + 1}"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(source, name, "exec"), space)
    except BaseException as raised:
        trace = raised.__traceback__.tb_next if raised.__traceback__ else None
        error = "".join(traceback.format_exception(type(raised), raised, trace))
    return printed.getvalue(), error, time.process_time() - start


def main() -> None:
    blocks, keep_going = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a child process prints is no part of the answer
    # The repository's root, where this was started, and not the folder of this file; then where the tools lie.
    sys.path = ["", *sys.path[1:], str(Path(__file__).parents[2])]
    fresh = sys.modules["__main__"] = ModuleType("__main__")
    fresh.__dict__["__builtins__"] = __builtins__
    results = []
    for label, line, code in blocks:
        results.append(run(label, line, code, fresh.__dict__))
        if results[-1][1] and not keep_going:
            break
    with answer:
        json.dump(results, answer)


if __name__ == "__main__":
    main()
