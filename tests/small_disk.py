"""A verb on a disk of its own, in memory: `unshare -Urm python -m tests.small_disk full|read-only HOME VERB ...`.

HOME is copied there, and the verb makes its first checkpoint. Then the disk is given room for one more, and not for
two; or it takes nothing any more. What is whole in the end is printed, since with this process the disk is gone.
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


def on(disk: str, home: Path, words: list[str]) -> int:
    """The verb's exit code."""
    place = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50M", "none", place], check=True)
    shutil.copytree(home, place / "home")
    os.environ["NANOCHAT_HOME"] = str(place / "home")
    stage = place / "home" / "toy" / words[0]
    assert main([*words, "--stop-after", "2"]) == 130
    one = sum(path.stat().st_size for path in (stage / "step_000002").iterdir())
    room = f"size={shutil.disk_usage(place).used + one * 3 // 2}"
    subprocess.run(["mount", "-o", f"remount,{'ro' if disk == 'read-only' else room}", place], check=True)
    code = main(words)
    found = newest(stage)
    left = [path.name for path in stage.glob(".step*")]
    print(json.dumps({"whole": found.step if found else 0, "left": left}))
    return code


if __name__ == "__main__":
    sys.exit(on(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
