"""Checkpoints: bit for bit, whole or not at all, and found past damaged ones."""

import errno
import json
import shutil
import stat

import pytest
import torch
from safetensors import SafetensorError

from nanochat import checkpoint
from nanochat.checkpoint import find_run, load_model, newest, open_checkpoint, save, stages_of, step_folders
from nanochat.errors import CheckpointError, UsageError
from nanochat.optim import trapezoid
from nanochat.runtime import detect
from nanochat.tokenizer import train_tokenizer
from nanochat.train import train
from tests.faults import Layer
from tests.test_train import batches, parts

RUNTIME = detect("cpu", "float32", threads=1)


@pytest.fixture
def trained():
    model, optimizer = parts(torch.float32)
    list(train(model, optimizer, batches(), trapezoid(20, 2, 10), steps=3))
    return model, optimizer


def write(folder, step, trained):
    return save(folder, step, *trained, RUNTIME, {"stage": "pretrain", "cursor": {"next": step}, "seconds": 1.0})


def test_model_and_optimizer_come_back_to_the_bit(tmp_path, trained):
    write(tmp_path, 3, trained)
    model, optimizer = parts(torch.float32)
    found = newest(tmp_path)
    found.restore(model, optimizer)
    assert found.step == 3
    assert found.state["cursor"] == {"next": 3}
    ours = [s.loss for s in train(*trained, batches(start=3), trapezoid(20, 2, 10), steps=8, start=3)]
    theirs = [s.loss for s in train(model, optimizer, batches(start=3), trapezoid(20, 2, 10), steps=8, start=3)]
    assert ours == theirs
    assert all(torch.equal(a, b) for a, b in zip(trained[0].parameters(), model.parameters(), strict=True))


def test_only_the_newest_are_kept(tmp_path, trained):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, trained)
    assert [path.name for path in step_folders(tmp_path)] == ["step_000003", "step_000004"]


def test_of_one_that_is_kept_there_is_always_one(tmp_path, trained):
    for step in (1, 2, 3):
        save(tmp_path, step, *trained, RUNTIME, {}, keep=1)
        assert [path.name for path in tmp_path.iterdir()] == [f"step_{step:06d}"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, trained, monkeypatch):
    layer = Layer(tmp_path)
    with monkeypatch.context() as patch:
        layer.install(patch.setattr)
        write(tmp_path, 1, trained)
    # Weights, optimizer, state.json; these three and their folder; the name; the folder that has the name.
    assert layer.seen == ["write"] * 3 + ["fsync"] * 4 + ["rename", "fsync"]


@pytest.mark.parametrize(
    ("kind", "at"), [("write", 0), ("write", 1), ("write", 2), ("short", 2), ("fsync", 0), ("fsync", 3), ("rename", 0)]
)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_leaves_the_checkpoint_before_it(tmp_path, trained, monkeypatch, kind, at, error):
    write(tmp_path, 1, trained)
    with monkeypatch.context() as patch:
        Layer(tmp_path, kind, at, error).install(patch.setattr)
        with pytest.raises(CheckpointError, match=r"expected to write .*step_000002; got .*; the checkpoint before it"):
            write(tmp_path, 2, trained)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]
    assert newest(tmp_path).step == 1


def test_a_disk_that_takes_only_a_part_of_a_file_is_noticed(tmp_path, trained):
    """By the system's own limit on the size of files: safetensors writes from Rust, where no layer of ours is."""
    resource = pytest.importorskip("resource")
    write(tmp_path, 1, trained)
    largest = max(path.stat().st_size for path in tmp_path.glob("step_*/*.safetensors"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1000, largest // 2, largest - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(CheckpointError, match="File too large"):
                write(tmp_path, 2, trained)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "state", "cursor"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, trained, damage):
    write(tmp_path, 1, trained)
    bad = write(tmp_path, 2, trained)
    weights = bad / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
        weights.write_bytes(data)
    elif damage == "cut":
        weights.write_bytes(data[:-100])
    elif damage == "remove":
        weights.unlink()
    elif damage == "cursor":
        state = (bad / "state.json").read_text()
        (bad / "state.json").write_text(state.replace('"next": 2', '"next": 6'))
    else:
        (bad / "state.json").write_text('{"schema": 1, "st')
    with pytest.warns(UserWarning, match="step_000002"):
        found = newest(tmp_path)
    assert found.step == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_half_written_one_is_never_seen(tmp_path, trained, monkeypatch, error):
    write(tmp_path, 1, trained)

    def crash(tensors, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", crash)
    with pytest.raises(CheckpointError, match=r"No space.*the checkpoint before it is whole"):
        write(tmp_path, 2, trained)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"], "nothing half-written keeps its space"
    assert newest(tmp_path).step == 1
    assert write(tmp_path, 2, trained).name == "step_000002"


def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path, trained):
    folder = write(tmp_path, 1, trained)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"schema": 99}))
    for read in (lambda: open_checkpoint(folder), lambda: newest(tmp_path)):
        with pytest.raises(CheckpointError, match="schema version 1; got schema version 99"):
            read()


def test_weights_of_another_shape_are_refused(tmp_path, trained):
    folder = write(tmp_path, 1, trained)
    model, _ = parts(torch.float32)
    model.head = type(model.head)(32, 62, 15.0)
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        open_checkpoint(folder).restore(model)


@pytest.fixture
def root(tmp_path, monkeypatch, trained):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    tokenizer = train_tokenizer(["a short text that is long enough for some merges, some merges"] * 3, 256 + 11 + 5)
    tokenizer.save(tmp_path / "tiny" / "tokenizer")
    for stage in ("pretrain", "sft"):
        save(tmp_path / "tiny" / stage, 3, *trained, RUNTIME, {"tokenizer": tokenizer.fingerprint})
    return tmp_path


def test_a_run_is_selected_by_name_and_stage(root):
    assert find_run("tiny") == root / "tiny" / "sft"
    assert find_run("tiny:pretrain") == root / "tiny" / "pretrain"
    assert find_run("", preset="tiny") == root / "tiny" / "sft"
    assert stages_of(root / "tiny") == ["pretrain", "sft"]


@pytest.mark.parametrize(
    ("selector", "error", "said"),
    [
        ("absent", CheckpointError, "runs here: tiny"),
        ("tiny:rl", CheckpointError, "stages here: pretrain, sft"),
        ("tiny:dessert", UsageError, "pretrain, midtrain, sft, rl"),
        ("../tiny", UsageError, "letters, digits"),
    ],
)
def test_a_wrong_selection_says_what_there_is(root, selector, error, said):
    with pytest.raises(error, match=said):
        find_run(selector)


def test_a_model_is_loaded_with_its_own_tokenizer(root):
    model, tokenizer, state = load_model(root / "tiny" / "sft", RUNTIME)
    assert model.config.vocab_size == 61
    assert state["step"] == 3
    other = train_tokenizer(["another text altogether, altogether and another"] * 3, 256 + 11 + 5)
    shutil.rmtree(root / "tiny" / "tokenizer")
    other.save(root / "tiny" / "tokenizer")
    with pytest.raises(CheckpointError, match="the tokenizer that"):
        load_model(root / "tiny" / "sft", RUNTIME)
    assert tokenizer.fingerprint != other.fingerprint


def test_checkpoints_are_readable_files(tmp_path, trained):
    folder = write(tmp_path, 1, trained)
    for path in folder.iterdir():
        assert path.stat().st_mode & stat.S_IRUSR
        assert path.name in {"model.safetensors", "optimizer.safetensors", "state.json"}
