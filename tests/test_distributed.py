"""Many processes as one: the same numbers as one process, whatever is shared out; and what happens when one is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nanochat.checkpoint import newest
from nanochat.cluster import sent_bytes
from nanochat.distributed import share
from nanochat.errors import UsageError
from nanochat.runtime import Runtime
from tests.ranked import CONFIG

ROOT = Path(__file__).parent.parent
WORLDS = [2, 4]
WAYS = ["ddp", "zero", "fsdp"]


def launch(folder: Path, world: int, *words: object, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`tests.ranked` in one process, or in several by torchrun; how it ended."""
    folder.mkdir(exist_ok=True)
    start = [sys.executable, "-m"]
    if world > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={world}", *options, "-m", "--"]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "NANOCHAT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [*start, "tests.ranked", str(words[0]), str(folder), *map(str, words[1:])]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)


def run(folder: Path, world: int, *words: object, options: tuple[str, ...] = ()) -> str:
    """`launch`, which must end well; what it wrote to standard error."""
    done = launch(folder, world, *words, options=options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def texts(folder: Path) -> Path:
    """The same folder, with thirty short documents in it."""
    (folder / "dishes.txt").mkdir(parents=True)
    for number in range(30):
        words = f"Dish {number}: take {number} eggs and bake them with flour. " * 8
        (folder / "dishes.txt" / f"dish {number}.txt").write_text(words)
    return folder


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What `tests.ranked ways` left behind in one, two and four processes."""
    found = {}
    for world in (1, *WORLDS):
        found[world] = tmp_path_factory.mktemp(f"ways{world}")
        run(found[world], world, "ways")
    return found


def told(folder: Path) -> dict:
    return json.loads((folder / "told.json").read_text())


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("way", WAYS)
def test_however_work_is_shared_out_the_steps_are_those_of_one_process(ways, world, way):
    """A hundred of them in float64: uneven rows, two micro-batches each, some with nothing to learn for a process."""
    one, many = told(ways[1])["alone float64"], told(ways[world])[f"{way} float64"]
    assert many["losses"] == pytest.approx(one["losses"], abs=1e-9)
    assert many["norms"] == pytest.approx(one["norms"], abs=1e-9)
    here, there = tensors(ways[1], "alone_float64"), tensors(ways[world], f"{way}_float64")
    assert here.keys() == there.keys()
    assert max((here[name] - there[name]).abs().max() for name in here) < 1e-9


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("way", WAYS)
def test_in_float32_the_first_gradient_agrees_to_1e_5_and_losses_to_1e_3(ways, world, way):
    here, there = tensors(ways[1], "alone_float32"), tensors(ways[world], f"{way}_float32")
    for name in (name for name in here if name.endswith(".grad")):
        assert (here[name] - there[name]).norm() <= 1e-5 * here[name].norm(), name
    one, many = told(ways[1])["alone float32"], told(ways[world])[f"{way} float32"]
    assert many["losses"] == pytest.approx(one["losses"], abs=1e-3)
    # In bfloat16 weights travel rounded, but only to what products would round them to.
    one, many = told(ways[1])["alone bfloat16"], told(ways[world])[f"{way} bfloat16"]
    assert many["losses"] == pytest.approx(one["losses"], abs=2e-2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_row_that_is_not_finite_in_one_process_skips_the_step_in_all(ways, world, way):
    assert told(ways[1])["alone skips"] == [["", "not finite", ""]]
    assert told(ways[world])[f"{way} skips"] == [["", "not finite", ""]] * world


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["ddp", "zero"])
def test_four_micro_batches_send_no_more_than_one(ways, way):
    for world in WORLDS:
        found = told(ways[world])
        assert found[f"{way} 4"]["messages"] == found[f"{way} 1"]["messages"]
        assert sum(found[f"{way} 1"]["messages"].values()) > 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", WORLDS)
def test_momentum_and_moments_are_shared_out(ways, world):
    everything = told(ways[1])["alone 1"]["moments"]
    assert told(ways[world])["ddp 1"]["moments"] == everything
    for way in ("zero", "fsdp"):  # 61 rows are cut into 31 and 30, and matrices stay whole
        assert told(ways[world])[f"{way} 1"]["moments"] == pytest.approx(everything / world, rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_plan_says_how_many_bytes_are_sent(ways, world, way):
    """Numbers here have eight bytes, not four; and 61 rows are filled up to 62 or 64."""
    for accumulate in (1, 4):
        planned = 2 * sent_bytes(CONFIG, world, way, accumulate, product_bytes=4)
        assert told(ways[world])[f"{way} {accumulate}"]["bytes"] == pytest.approx(planned, rel=0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["zero", "fsdp"])
def test_a_checkpoint_of_shares_loads_in_any_other_number_of_processes(tmp_path, way):
    """2 -> 1, 1 -> 4, 4 -> 2: four steps each; then as one process that was never stopped."""
    whole = tmp_path / "whole"
    run(whole, 1, "part", way, 16)
    moved = tmp_path / "moved"
    for world, until in ((2, 4), (1, 8), (4, 12), (2, 16)):
        run(moved, world, "part", way, until)
        names = {path.name for path in (moved / f"step_{until:06d}").iterdir()}
        pieces = {f"{kind}-{n:05d}-of-{world:05d}" for kind in ("model", "optimizer") for n in range(1, world + 1)}
        assert names == {f"{name}.safetensors" for name in pieces if world > 1} | {"state.json"} | (
            {"model.safetensors", "optimizer.safetensors"} if world == 1 else set()
        )
    one, many = newest(whole).weights(), newest(moved).weights()
    assert one.keys() == many.keys()
    assert max((one[name] - many[name]).abs().max() for name in one) < 1e-9


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_stage_under_torchrun_is_the_stage_of_one_process(tmp_path):
    """A hundred steps of each of pretrain, midtrain and sft, five of rl, in 1, 2 and 4 processes, in float64."""
    folders = {world: texts(tmp_path / str(world)) for world in (1, *WORLDS)}
    for world, folder in folders.items():
        run(folder, world, "stages", 100)
    one = losses(folders[1])
    assert {stage: len(found) for stage, found in one.items()} == {
        "pretrain": 100,
        "midtrain": 100,
        "sft": 100,
        "rl": 5,
    }
    answers = json.loads((folders[1] / "answers.json").read_text())
    assert len(answers) == 5 * 4 * 2
    assert len(set(map(str, answers.values()))) > 5
    for world in WORLDS:
        many = losses(folders[world])
        for stage in one:
            assert many[stage] == pytest.approx(one[stage], abs=1e-9), (world, stage)
        assert json.loads((folders[world] / "answers.json").read_text()) == answers
        same_figures(folders[1], folders[world])


def losses(folder: Path) -> dict[str, list[float]]:
    """Losses of a run by stage."""
    found: dict[str, list[float]] = {}
    for line in (folder / "home" / "toy" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name in ("loss", "val_bpb"):
            if name in row:
                found.setdefault(row["stage"] + (".val" if name == "val_bpb" else ""), []).append(row[name])
    assert all(found.pop("pretrain.val"))
    return found


def same_figures(one: Path, many: Path) -> None:
    """Evaluation counts each example once, whatever the number of processes: the same n, the same values."""
    for stage in ("pretrain", "rl"):
        here, there = (json.loads((folder / f"figures_{stage}.json").read_text()) for folder in (one, many))
        assert [(f[0], f[4]) for f in here] == [(f[0], f[4]) for f in there]
        assert [f[1:4] for f in there] == [pytest.approx(f[1:4], abs=1e-9) for f in here]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_dies_ends_the_job_with_its_name(tmp_path):
    done = launch(texts(tmp_path / "dies"), 2, "dies")
    assert done.returncode == 1
    assert "2 processes that answer; got process 1 on" in done.stderr
    assert "the same command goes on from the last checkpoint" in done.stderr
    assert "exitcode  : -9" in done.stderr  # torchrun's own report


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_falls_silent_is_named_when_the_time_is_up(tmp_path):
    done = launch(texts(tmp_path / "sleeps"), 2, "sleeps")
    assert done.returncode == 1
    assert "got process 1 on" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_does_not_see_the_folder_of_the_run_ends_the_job(tmp_path):
    """Its share of every checkpoint would lie elsewhere, and nobody would notice before it is needed."""
    done = launch(texts(tmp_path / "apart"), 2, "apart")
    assert done.returncode == 1
    assert "other/toy/pretrain, where this stage began; got nothing there" in done.stderr
    assert "let all machines see the same NANOCHAT_HOME" in done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes to which nothing happened."""
    folder = texts(tmp_path_factory.mktemp("lives"))
    run(folder, 2, "lives")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torchrun_starts_a_job_again_that_then_ends_with_the_same_bits(undisturbed, tmp_path):
    killed = texts(tmp_path / "killed")
    assert "resuming pretrain after step 4" in run(killed, 2, "dies", options=("--max-restarts=1",))
    same_end(undisturbed, killed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_one_process_is_asked_to_stop_all_save_and_the_same_command_goes_on(undisturbed, tmp_path):
    stopped = texts(tmp_path / "stopped")
    done = launch(stopped, 2, "asked")
    assert "pretrain saved after step 6 of 10; the same command goes on from there" in done.stderr
    assert "exitcode  : 130" in done.stderr  # torchrun's own report
    assert "resuming pretrain after step 6" in run(stopped, 2, "asked")
    same_end(undisturbed, stopped)


def same_end(undisturbed: Path, disturbed: Path) -> None:
    """Both are done, and in nothing do they differ."""
    one, other = (newest(folder / "home" / "toy" / "pretrain") for folder in (undisturbed, disturbed))
    assert one.step == other.step == 10
    here, there = one.weights(), other.weights()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert one.state["cursor"] == other.state["cursor"]
    assert losses_of(undisturbed) == losses_of(disturbed)


def losses_of(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "home" / "toy" / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_rows_that_cannot_be_shared_out_are_refused():
    runtime = Runtime(torch.device("cpu"), torch.float32, rank=1, world=4)
    assert share(8, "rows", runtime) == 2
    with pytest.raises(UsageError, match="rows a multiple of the processes; got 6 and 4; change --rows"):
        share(6, "rows", runtime)
