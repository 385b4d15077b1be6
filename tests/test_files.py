"""Files: there whole or not at all, and nothing left lying about."""

import errno
import os
import subprocess
import sys

import pytest

from nanochat.files import discard, sweep, whole_folder, write_atomically
from tests.faults import Layer


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, "old")
    for kind in ("write", "short", "fsync", "rename"):
        with monkeypatch.context() as patch:
            Layer(tmp_path, kind, 0, errno.ENOSPC).install(patch.setattr)
            with pytest.raises(OSError, match="No space left"):
                write_atomically(path, "new and longer")
        assert path.read_text() == "old", kind
        assert [one.name for one in path.parent.iterdir()] == ["file.json"], "nothing half-written keeps its space"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    layer = Layer(tmp_path)
    with monkeypatch.context() as patch:
        layer.install(patch.setattr)
        write_atomically(tmp_path / "file", "text")
    assert layer.seen == ["write", "fsync", "rename", "fsync"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    final = tmp_path / "step_000001"
    with whole_folder(final) as partial:
        (partial / "a").write_text("1")
        assert not final.exists()
    assert (final / "a").read_text() == "1"
    with pytest.raises(RuntimeError), whole_folder(final) as partial:
        (partial / "a").write_text("2")
        raise RuntimeError
    assert (final / "a").read_text() == "1"
    with whole_folder(final) as partial:
        (partial / "b").write_text("3")
    assert [path.name for path in final.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


def test_what_is_discarded_is_gone_at_once(tmp_path, monkeypatch):
    """Killed while it removes the files, it leaves no folder of that name with half of them."""
    folder = tmp_path / "step_000001"
    folder.mkdir()
    (folder / "file").write_text("1")

    def die(path, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            discard(folder)
    assert not folder.exists()
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_crash_left_is_swept_and_what_is_being_written_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    alive = os.getppid()
    names = [f".a.json.{ended.pid}.partial", f".a.json.{os.getpid()}.partial", f".b.json.{alive}.partial", ".hidden"]
    for name in (*names, "file.partial"):
        (tmp_path / name).write_text("")
    (tmp_path / ".step_000001.partial").mkdir()
    (tmp_path / ".step_000002.removed").mkdir()
    (tmp_path / ".step_000003.damaged").mkdir()
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f".b.json.{alive}.partial", ".hidden", "file.partial", ".step_000003.damaged"}
