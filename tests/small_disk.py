"""A verb on a disk of its own, in memory: `unshare -Urm python -m tests.small_disk full|read-only HOME VERB ...`.

HOME is copied there. A full disk has room for two checkpoints and not for three; a read-only one has one already.
What is whole in the end is printed, since with this process the disk is gone.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nanochat.checkpoint import newest
from nanochat.cli import main

ROOM = {"full": 3_400_000, "read-only": 20_000_000}  # a checkpoint has 1.2 MB, the toy corpus 0.1


def on(disk: str, home: Path, words: list[str]) -> int:
    """The verb's exit code."""
    place = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM[disk]}", "none", place], check=True)
    shutil.copytree(home, place / "home")
    os.environ["NANOCHAT_HOME"] = str(place / "home")
    if disk == "read-only":
        assert main([*words, "--stop-after", "2"]) == 130
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    code = main(words)
    stage = place / "home" / "toy" / words[0]
    found = newest(stage)
    left = [path.name for path in stage.glob(".step*")]
    print(json.dumps({"whole": found.step if found else 0, "left": left}))
    return code


if __name__ == "__main__":
    sys.exit(on(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
