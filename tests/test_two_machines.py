"""One job on two machines: two network namespaces with an address each, and a cable that is pulled midway."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import newest
from tests.test_distributed import ROOT, losses_of, texts

NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--uts"]


def why_not() -> str:
    """What stands in the way of making namespaces here; empty where nothing does."""
    if missing := [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]:
        return f"{', '.join(missing)} is not installed"
    tried = subprocess.run([*NAMESPACES, "ip", "link", "add", "type", "veth"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"network namespaces may not be made here: {tried.stderr.strip()}"


REASON = why_not()


def both(folder: Path, *more: str) -> tuple[list[int], list[str]]:
    """Exit codes and logs of the job's two halves."""
    command = [*NAMESPACES, "bash", "tests/two_machines.sh", str(folder), *more]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    names = ("first", "second")
    logs = [(folder / f"{name}.log").read_text() for name in names]
    return [int((folder / f"{name}.code").read_text()) for name in names], logs


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_a_process_that_dies_on_the_other_machine_is_started_again(tmp_path):
    folder = texts(tmp_path / "dies")
    codes, logs = both(folder, "dies")
    assert codes == [0, 0], logs
    assert (folder / "doomed").exists()
    assert "resuming pretrain after step 4" in logs[0] + logs[1]
    assert newest(folder / "home" / "toy" / "pretrain").step == 10
    assert [step for step, _ in losses_of(folder)] == list(range(10))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_a_machine_that_is_cut_off_is_named_and_the_same_command_goes_on(tmp_path):
    undisturbed, cut = texts(tmp_path / "undisturbed"), texts(tmp_path / "cut")
    codes, logs = both(undisturbed)
    assert codes == [0, 0], logs
    codes, logs = both(cut, "cut")
    assert 0 not in codes
    assert "got process 1 on second gone" in logs[0]
    assert "got no way to 10.77.0.1, where the list of processes is kept" in logs[1]
    assert len(losses_of(cut)) < 60
    codes, logs = both(cut)
    assert codes == [0, 0], logs
    assert "resuming pretrain after step" in logs[0]
    one, other = (newest(folder / "home" / "toy" / "pretrain") for folder in (undisturbed, cut))
    assert one.step == other.step == 60
    here, there = one.weights(), other.weights()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert losses_of(undisturbed) == losses_of(cut)
    machines = json.dumps(one.state["machine"])
    assert '"world": 2' in machines
