"""Token stores: what NumPy itself reads is what was encoded; nothing damaged, short or stale passes for whole."""

import json
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data import shards
from nanochat.data.readers import Document
from nanochat.data.shards import fingerprint, is_current, open_store, write_store
from nanochat.errors import DataError


@dataclass
class Letters:
    """A tokenizer of one token a character."""

    vocab_size: int = 1 << 16
    fingerprint: str = "letters"

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if any("!" in text for text in texts):
            raise RuntimeError("interrupted")
        return np.array([ord(sign) for text in texts for sign in text], np.uint32), np.array(list(map(len, texts)))


def documents_of(*texts: str) -> list[Document]:
    return [Document(text[:3], text, "test") for text in texts]


TEXTS = documents_of("flour", "", "sugar and salt", "öl")


def test_a_store_holds_what_was_encoded(tmp_path: Path) -> None:
    path = tmp_path / "tokens" / "a.train.npy"
    done: list[tuple[int, int]] = []
    store = write_store(path, TEXTS, Letters(), lambda *count: done.append(count))
    assert done == [(4, 4)]
    assert len(store) == 4
    assert ["".join(map(chr, store[index])) for index in range(4)] == [document.text for document in TEXTS]
    assert store.lengths.tolist() == [5, 0, 14, 2]
    assert store.record.text_bytes == sum(len(document.text.encode()) for document in TEXTS)
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.train.json", "a.train.npy", "a.train.offsets.npy"]
    plain = np.load(path)
    assert plain.dtype == np.uint16
    assert "".join(map(chr, plain)) == "".join(document.text for document in TEXTS)
    assert np.load(tmp_path / "tokens" / "a.train.offsets.npy").tolist() == [0, 5, 5, 19, 21]
    assert isinstance(store.tokens, np.memmap)
    with pytest.raises(IndexError):
        store[4]


def test_a_large_vocabulary_needs_four_bytes(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.npy", documents_of("salt 🧂"), Letters(vocab_size=(1 << 16) + 1))
    assert store.tokens.dtype == np.uint32
    assert chr(store[0][-1]) == "🧂"


@given(
    st.lists(
        st.text(st.characters(max_codepoint=0xFFFF, exclude_characters="!", exclude_categories=["Cs"]), max_size=20),
        max_size=8,
    )
)
def test_any_documents_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("store") / "a.npy"
    written = write_store(path, documents_of(*texts), Letters())
    again = open_store(path)
    assert ["".join(map(chr, again[index])) for index in range(len(again))] == texts
    assert again.record == written.record


@pytest.mark.parametrize("name", ["a.npy", "a.offsets.npy", "a.json"])
@pytest.mark.parametrize("harm", ["gone", "short", "empty", "flipped", "other"])
def test_damage_is_noticed(tmp_path: Path, name: str, harm: str) -> None:
    path = tmp_path / "a.npy"
    write_store(path, TEXTS, Letters())
    whole = (tmp_path / name).read_bytes()
    flipped = whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]
    changed = {"short": whole[:-2], "empty": b"", "flipped": flipped, "other": b"something else entirely"}
    if harm == "gone":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(changed[harm])
    with pytest.raises(DataError) as error:
        open_store(path)
    assert "encode the corpus again" in str(error.value)
    assert "\n" not in str(error.value)
    assert not is_current(path, "letters", fingerprint(TEXTS))


def test_a_stale_store_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_store(path, TEXTS, Letters())
    source = fingerprint(TEXTS)
    assert is_current(path, "letters", source)
    assert open_store(path, tokenizer="letters", source=source).record.documents == 4
    with pytest.raises(DataError, match="tokens of tokenizer words"):
        open_store(path, tokenizer="words")
    with pytest.raises(DataError, match="tokens of the documents"):
        open_store(path, source=fingerprint(TEXTS[:3]))
    record = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(DataError, match=r"version 1; got .* of version 99"):
        open_store(path)


def test_the_fingerprint_sees_every_change() -> None:
    one = [Document("a", "bc", "x")]
    others = [[Document("ab", "c", "x")], [Document("a", "bd", "x")], one * 2, []]
    assert len({fingerprint(documents) for documents in [one, *others]}) == 5
    assert fingerprint(one) == fingerprint([Document("a", "bc", "another name for the source")])


def test_an_interrupted_write_leaves_the_old_store(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_store(path, TEXTS, Letters())
    with pytest.raises(RuntimeError):
        write_store(path, documents_of("new", "stop!"), Letters())
    assert is_current(path, "letters", fingerprint(TEXTS))
    write_store(path, TEXTS, Letters())
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("torn", [0, 1, 7, 1000])
def test_an_interrupted_write_goes_on(tmp_path: Path, after: int, torn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PART", 12)
    texts = documents_of("flour", "", "sugar and salt", "öl", "butter", "x" * 40, "milk", "", "eggs and cream")
    whole = write_store(tmp_path / "whole.npy", texts, Letters())

    def stop(done: int, total: int) -> None:
        counts.append(done)
        if len(counts) == after:
            raise KeyboardInterrupt

    counts: list[int] = []
    path = tmp_path / "a.npy"
    with pytest.raises(KeyboardInterrupt):
        write_store(path, texts, Letters(), stop)
    assert not path.exists()
    for name in (".a.npy.partial", ".a.offsets.partial"):  # killed while it wrote the next part
        with (tmp_path / name).open("ab") as file:
            file.write(b"?" * torn)
    asked: list[int] = []

    class Counted(Letters):
        def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            asked.append(len(texts))
            return super().encode_batch(texts)

    store = write_store(path, texts, Counted())
    assert store.record == whole.record
    assert sum(asked) == len(texts) - counts[-1]
    assert is_current(path, "letters", fingerprint(texts))
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("at", range(10))
def test_a_kill_in_the_last_moments_is_no_harm(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two operations that put the store in its place; the file of a killed writer goes too."""
    whole = write_store(tmp_path / "whole.npy", TEXTS, Letters())
    path, calls = tmp_path / "a.npy", [0]

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def killed(*arguments: Any, **more: Any) -> Any:
            calls[0] += 1
            if calls[0] > at:
                raise KeyboardInterrupt
            return work(*arguments, **more)

        return killed

    finish = shards.Partial.finish

    def finish_in_part(partial: shards.Partial) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("flush", "sha256", "write_atomically"):
                patch.setattr(shards, name, dying(getattr(shards, name)))
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, dying(getattr(Path, name)))
            finish(partial)

    monkeypatch.setattr(shards.Partial, "finish", finish_in_part)
    with pytest.raises(KeyboardInterrupt):
        write_store(path, TEXTS, Letters())
    monkeypatch.undo()
    (tmp_path / ".a.json.99999999.partial").write_text("{")
    assert write_store(path, TEXTS, Letters()).record == whole.record
    assert is_current(path, "letters", fingerprint(TEXTS))
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("change", ["tokenizer", "documents", "short", "no journal", "bad journal"])
def test_what_was_begun_otherwise_begins_anew(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PART", 5)
    path = tmp_path / "a.npy"
    with pytest.raises(RuntimeError):
        write_store(path, [*TEXTS, *documents_of("stop!")], Letters(fingerprint="other"))
    texts, encoder = [*TEXTS, *documents_of("end")], Letters()
    if change == "documents":
        encoder = Letters(fingerprint="other")
    else:
        with pytest.raises(RuntimeError):
            write_store(path, [*texts, *documents_of("stop!")], Letters())
        texts = [*texts, *documents_of("stop")] if change == "tokenizer" else texts
    journal = tmp_path / ".a.json.partial"
    if change == "short":
        (tmp_path / ".a.npy.partial").write_bytes(b"?")
    elif change == "no journal":
        journal.unlink()
    elif change == "bad journal":
        journal.write_text("{")
    store = write_store(path, texts, encoder)
    assert ["".join(map(chr, store[index])) for index in range(len(store))] == [text.text for text in texts]
    assert is_current(path, encoder.fingerprint, fingerprint(texts))


def write_and_wait(path: Path, ready: Event, end: Event) -> None:
    def wait(done: int, total: int) -> None:
        ready.set()
        end.wait(60)

    write_store(path, TEXTS, Letters(), wait)


def test_two_processes_do_not_write_one_store(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    context = multiprocessing.get_context("spawn")
    ready, end, path = context.Event(), context.Event(), tmp_path / "a.npy"
    other = context.Process(target=write_and_wait, args=(path, ready, end))
    other.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="another process"):
        write_store(path, TEXTS, Letters())
    end.set()
    other.join(60)
    assert other.exitcode == 0
    assert is_current(path, "letters", fingerprint(TEXTS))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="to write"):
        write_store(tmp_path / "file" / "a.npy", TEXTS, Letters())
