"""Training under kills and on broken disks, a little of it; `make torture` does more of the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture import COMMANDS, COMMON

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_nothing_is_lost(tmp_path):
    """Kills, polite stops, power cuts and failing file operations, over all stages: each ends in the same bits."""
    times = {"kills": 10, "terminations": 5, "cuts": 5, "points": 10, "faults": 12}
    flags = [word for name, number in times.items() for word in (f"--{name}", str(number))]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert sum(found["happened"].values()) == sum(times.values())
    assert found["slowest_stop_seconds"] < 10
    assert done.returncode == 0


@pytest.fixture
def home(tmp_path):
    """A home with texts and a tokenizer."""
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / "texts" / f"dish {number}.txt").write_text(f"Dish {number}: {number} eggs and flour. " * 9)
    done = start(tmp_path, "tokenizer")
    assert done.returncode == 0, done.stderr
    return tmp_path


def start(home, stage, disk=""):
    """A stage's command, by itself or on a small disk of its own (`tests/small_disk.py`)."""
    command = ["nanochat", *COMMANDS[stage].format(home=home).split(), *COMMON.split()]
    if disk:
        command = ["tests.small_disk", disk, str(home), *command[1:], "--keep", "2"]
        command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", *command]
    else:
        command = [sys.executable, "-m", *command]
    environment = {**os.environ, "NANOCHAT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disk", "said"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_real_disk_that_is_full_or_read_only(home, disk, said):
    """A disk in memory that has room for two checkpoints and not for three; and one that takes nothing any more."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no disk may be mounted here: user namespaces are not allowed")
    done = start(home, "pretrain", disk)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nanochat pretrain: expected")
    assert said in last
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"whole": 4 if disk == "full" else 2, "left": []}
