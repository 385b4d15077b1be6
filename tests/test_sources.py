"""Sources: fetched by the real pip from a folder of wheels (no network), from a hub on this machine, and from paths."""

import hashlib
import importlib.util
import json
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nanochat.data.readers import Document, read_cookbook, read_text
from nanochat.data.recipes import recipe_text
from nanochat.data.sources import COOKBOOK, SOURCES, WIKIPEDIA, Source, attribution, documents, fetch, recipes
from nanochat.errors import DataError
from nanochat.stages import data as verb
from tests.oracles.wheels import wheel

TEXT = "Bread and butter.\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip can see."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def toy(index: Path) -> Source:
    """A source whose wheel lies in `index`. Importing its package would fail."""
    path = index / "toy_corpus-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("toy_corpus/__init__.py", "raise SystemExit('imported')")
        file.writestr("toy_corpus/data.txt", TEXT)
        about = "toy_corpus-1.0.dist-info"
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: toy-corpus\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source("toy", "wheel", "toy-corpus", "1.0", "toy_corpus/data.txt", digest, reader=read_text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_wheel_is_fetched_once_and_never_imported(toy: Source, index: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    assert documents(toy, root) == [Document("Bread and butter.", TEXT.strip(), "toy")]
    assert names(root / "sources") == [toy.file]
    shutil.rmtree(index)
    assert documents(toy, root)[0].text == TEXT.strip()
    assert "toy_corpus" not in sys.modules


def test_without_a_network_the_remedy_is_named(index: Path, tmp_path: Path) -> None:
    lost = Source("lost", "wheel", "lost-corpus", "2.0", "x", "0" * 64)
    with pytest.raises(DataError) as error:
        fetch(lost, tmp_path / "home")
    line = str(error.value)
    assert "\n" not in line
    assert "pip download --no-deps" in line
    assert "lost-corpus==2.0" in line
    assert str(tmp_path / "home" / "sources") in line
    assert names(tmp_path / "home" / "sources") == []


def test_another_file_than_the_pinned_one_is_refused(toy: Source, tmp_path: Path) -> None:
    pinned = Source(toy.name, toy.kind, toy.location, toy.revision, toy.member, "0" * 64)
    with pytest.raises(DataError, match="with sha256 0000"):
        fetch(pinned, tmp_path)
    assert names(tmp_path / "sources") == []


def test_a_damaged_file_is_said_moved_aside_and_fetched_again(toy: Source, tmp_path: Path) -> None:
    path = fetch(toy, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    said: list[str] = []
    assert fetch(toy, tmp_path, said.append).read_bytes() == whole
    assert len(said) == 1
    assert "damaged" in said[0]
    assert names(tmp_path / "sources") == [toy.file, f"{toy.file}.damaged"]


def test_a_member_that_is_not_there(toy: Source, tmp_path: Path) -> None:
    odd = Source(toy.name, toy.kind, toy.location, toy.revision, "toy_corpus/none.txt", toy.sha256)
    with pytest.raises(DataError, match=r"holds toy_corpus/none\.txt"):
        documents(odd, tmp_path)


def test_a_home_that_cannot_be_written(toy: Source, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(DataError, match="NANOCHAT_HOME"):
        fetch(toy, tmp_path / "home")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that lays one file out as the hub does: data set a/b, file data/part.jsonl."""
    body = json.dumps({"title": "One", "text": "From the hub."}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            found = self.path == f"/datasets/a/b/resolve/{'c' * 40}/data/part.jsonl"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.end_headers()
            if found and self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield hashlib.sha256(body).hexdigest()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_from_the_hub(hub: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    source = Source("part", "hub", "a/b", "c" * 40, "data/part.jsonl", hub)
    assert documents(source, tmp_path) == [Document("One", "From the hub.", "part")]
    assert names(tmp_path / "sources") == [f"part-{'c' * 12}-part.jsonl"]
    missing = Source("other", "hub", "a/b", "c" * 40, "data/other.jsonl", hub)
    with pytest.raises(DataError, match=r"the hub to bring data/other\.jsonl of a/b"):
        documents(missing, tmp_path)


def test_the_hub_without_network_or_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source("part", "hub", "a/b", "c" * 40, "data/part.jsonl", "0" * 64)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the library's retries
    if importlib.util.find_spec("huggingface_hub"):
        with pytest.raises(DataError, match=f"copy it to {tmp_path}") as error:
            fetch(source, tmp_path)
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'nanochat\[data\]'"):
        fetch(source, tmp_path)


def test_a_folder_of_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes("\ufeffSalz\r\nund Öl\r\n".encode())
    (tmp_path / "a.jsonl").write_text('{"text": "x\\ny"}\n\n{"text": "z", "title": "Zed"}\n{"text": " "}\n')
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "notes.md").write_text("not read")
    found = documents(tmp_path)
    assert [(d.title, d.text) for d in found] == [("x", "x\ny"), ("Zed", "z"), ("b/one", "Salz\nund Öl")]
    assert documents(str(tmp_path / "b" / "one.txt"))[0].title == "one"


def test_half_a_character_in_json_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "a\ud83e\uddc2b\ud83e"}')
    assert documents(tmp_path)[0].text == "a🧂b\N{REPLACEMENT CHARACTER}"


def test_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "part.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "", "two"], "title": ["A", "B", None], "id": [1, 2, 3]}), path)
    assert [(d.title, d.text) for d in documents(path)] == [("A", "one"), ("two", "two")]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"part\.parquet"):
        documents(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'nanochat\[data\]'"):
        documents(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"gr\xfc\xdfe", "byte 2"),
        ("a.jsonl", b'{"text": "\xff"}', "byte 10"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2"),
        ("a.jsonl", b'{"content": "a"}', "line 1: ['content']"),
        ("a.jsonl", b"[1]", "line 1: list"),
        ("a.txt", b" \n", "holds none"),
        ("a.csv", b"a,b", "ends in .txt, .jsonl, .parquet"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        documents(tmp_path / name)
    assert words in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_no_documents_and_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.txt"):
        documents(tmp_path)
    with pytest.raises(DataError, match=r"cookbook, wikipedia.*'cokbook'"):
        documents("cokbook")


def test_attribution_names_what_the_licence_asks_for() -> None:
    text = attribution(["cookbook", "wikipedia"])
    for word in (
        "Wikibooks Cookbook",
        "Wikipedia",
        "creativecommons.org/licenses/by-sa/4.0",
        "Changes:",
        "contributors",
    ):
        assert word in text
    assert len(text.splitlines()) == 2
    assert attribution(["gone/notes.txt"]) == "- Files: gone/notes.txt. Licence: yours to state."


@pytest.fixture(scope="module")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where the built-in sources are."""
    root = tmp_path_factory.mktemp("home")
    (root / "sources").mkdir()
    for source in SOURCES.values():
        shutil.copy(wheel(source.location, source.revision, source.sha256), root / "sources" / source.file)
        assert (root / "sources" / source.file).stat().st_size == source.size
    return root


def test_the_built_in_sources(real_home: Path) -> None:
    articles = documents("wikipedia", real_home)
    assert len(articles) == 10_033
    tomato = next(article for article in articles if article.title == "Tomato")
    title, description, empty, text = tomato.text.split("\n")
    assert (title, description, empty) == ("Tomato", "Edible berry", "")
    assert text.startswith("The tomato")
    assert not any("\xa0" in article.text or "\u2060" in article.text for article in articles)
    entries = recipes(real_home)
    found = read_cookbook(zipfile.ZipFile(fetch(COOKBOOK, real_home)).read(COOKBOOK.member), "cookbook")
    assert [document.text for document in found] == [recipe_text(recipe) for recipe in entries]
    assert WIKIPEDIA.description.split()[-3] == f"{len(articles):,}"


def test_the_verb(real_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NANOCHAT_HOME", str(real_home))
    assert verb.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["sources"]
    assert [(row["name"], row["here"]) for row in listed] == [("cookbook", True), ("wikipedia", True)]
    assert verb.main(["fetch", "cookbook", "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["fetched"]["cookbook"]).exists()
    assert verb.main(["show", "cookbook", "apple pie i", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["title"], shown["documents"]) == ("Apple Pie I", 3127)
    assert shown["training"] + shown["held_out"] == 3127
    assert verb.main(["list"]) == 0
    assert "CC BY-SA" in capsys.readouterr().out
    with pytest.raises(DataError, match="title"):
        verb.main(["show", "wikipedia", "No such thing"])
    with pytest.raises(SystemExit) as stop:
        verb.main(["fetch", "--jsn"])
    assert stop.value.code == 2


def test_the_verb_shows_files_of_your_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("My own text.")
    assert verb.main(["show", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("\nMy own text.\n")
