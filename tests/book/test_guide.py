"""Each way in which a book can drift from its source, or break, is found: on a small book that is thrown away."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from educational import guide
from educational.book import links, quote, records, references, session, symbols
from educational.book.chapter import Book, Chapter, Wrong
from educational.lesson import changed

ROOT = Path(__file__).parents[2]

MODULE = '''"""A module."""


class Lamp:
    """A lamp."""

    def light(self) -> int:
        """How much light."""
        # Warm up
        heat = 2
        # Shine
        return heat + 2


def unlit() -> int:
    return 0
'''
CHECKS = '''def halves() -> float:
    """Two halves, and a whole."""
    return 0.5 + 0.5 - 1.0


def thirds() -> float:
    """Three thirds, badly rounded, and a whole."""
    return 0.01


def silent() -> float:
    return 0.0
'''
FIGURES = """from matplotlib.figure import Figure


def line() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [0, 1])
    return figure


def broken() -> Figure:
    raise RuntimeError("no pen")
"""
TEXT = """# 4. Lamps

## 4.1 The `light` of it

<!-- walk nanochat/attention.py::Lamp -->
<!-- nanochat/attention.py::Lamp.light -docstring # Warm up .. # Shine -->

<!-- run -->
```python
print("heat", 2, 1 / 3)
```
<!-- output -->

It gives ?<!-- = runs/a.json figures/name=light/value *100 .1f --> percent.

$$
a = b \\tag{4.1}
$$

<!-- check ch04.halves 1e-12 -->

By (4.1) and [the section](#41-the-light-of-it), as [Edison, 1880](references.md#edison1880lamp) says.

> **Predict.** What is it?

<details><summary>Answer</summary>

Light, $x$.

</details>

![A line that goes up, from nothing to one](figures/04_line.svg)

*Figure 4.1. It goes up.*

Figure 4.1 shows it.
"""
BIB = "@article{edison1880lamp,\n  author = {Edison, Thomas},\n  title = {A {Lamp}},\n  year = {1880},\n}\n"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book in which nothing is wrong, made whole by `sync`."""
    root = tmp_path_factory.mktemp("book")
    files = {"nanochat/attention.py": MODULE, "nanochat/gpt.py": "from nanochat.attention import Lamp\n"}
    files |= {"nanochat/__init__.py": '__version__ = "1.0"\n', "educational/lesson.py": ""}
    files |= {
        "runs/a.json": json.dumps({"figures": [{"name": "heat", "value": 2}, {"name": "light", "value": 0.1234}]})
    }
    files |= {"educational/checks/ch04.py": CHECKS, "educational/figures/ch04.py": FIGURES}
    files |= {"educational/04_lamps.md": TEXT, "educational/references.bib": BIB}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    assert guide.sync(Book(root), []) == []
    return root


@pytest.fixture
def book(clean: Path, tmp_path: Path) -> Book:
    """A copy of the clean book, caches and all."""
    shutil.copytree(clean, tmp_path / "copy")
    session.state.cache_clear()
    return Book(tmp_path / "copy")


def edit(book: Book, old: str, new: str, name: str = "educational/04_lamps.md") -> None:
    path = book.root / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def only_fault(book: Book) -> str:
    found = guide.check(book, [])
    assert len(found) == 1, found
    return str(found[0])


def test_a_clean_book_passes_and_says_what_its_comments_stand_for(book: Book) -> None:
    assert guide.check(book, []) == []
    text = (book.folder / "04_lamps.md").read_text(encoding="utf-8")
    assert "```python\n# Warm up\nheat = 2\n```" in text
    assert "```text\nheat 2 0.3333333333333333\n```" in text
    assert "It gives 12.3<!-- = runs" in text
    assert "-->\n*Checked: [halves](checks/ch04.py), error below 1e-12.*\n" in text
    assert (book.folder / "figures/04_line.svg").read_text(encoding="utf-8").count("<svg") == 1
    page = (book.folder / "references.md").read_text(encoding="utf-8")
    assert '<a id="edison1880lamp"></a>\nThomas Edison (1880). *A Lamp*.' in page
    before = text
    assert guide.sync(book, ["04"]) == []
    assert (book.folder / "04_lamps.md").read_text(encoding="utf-8") == before


Change = tuple[str, str]
FAULTS: dict[str, tuple[Change, str]] = {
    "a symbol that is gone": (("Lamp.light -docstring", "Lamp.glow -docstring"), "has no Lamp.glow"),
    "a file that is gone": (("<!-- nanochat/attention.py::Lamp.l", "<!-- nanochat/at.py::Lamp.l"), "is not a file"),
    "a span that is gone": (("# Warm up ..", "# Cool down .."), "'Cool down'"),
    "a span's end that is gone": ((".. # Shine -->", ".. # Dark -->"), "'Dark'"),
    "code that differs": (("\nheat = 2", "\nheat = 3"), "it says 'heat = 3', but now it is 'heat = 2'"),
    "output that differs in words": (("text\nheat 2", "text\nlight 2"), "run `make guide-sync`"),
    "output that differs in a whole number": (("text\nheat 2", "text\nheat 3"), "run `make guide-sync`"),
    "output that differs by 2 %": (("0.3333333333333333\n", "0.34\n"), "run `make guide-sync`"),
    "a block that fails": (('print("heat", 2, 1 / 3)', "print(1 / 0)"), "ZeroDivisionError"),
    "a block that prints nothing": (('print("heat", 2, 1 / 3)', "x = 1"), "nothing is printed"),
    "a number that is not its record's": (("gives 12.3", "gives 12.4"), "12.3"),
    "a record that is gone": (("runs/a.json", "runs/b.json"), "no record runs/b.json"),
    "an entry that is gone": (("name=light", "name=dark"), "0 entries"),
    "a derivation without its check": (("ch04.halves", "ch04.quarters"), "has no quarters"),
    "a check that says nothing": (("<!-- check ch04.halves", "<!-- check ch04.silent"), "no docstring"),
    "a link to no file": (("(#41-the-light-of-it)", "(05_dark.md)"), "there is no 05_dark.md"),
    "a link to no heading": (("(#41-the-light-of-it)", "(#41-the-dark)"), "has no heading #41-the-dark"),
    "a source that is not listed": (("references.md#edison", "references.md#swan"), "no entry 'swan1880lamp'"),
    "a figure without words": (("![A line that goes up, from nothing to one]", "![]"), "no text alternative"),
    "a figure that nothing draws": (("figures/04_line.svg", "figures/04_curve.svg"), "nothing draws"),
    "a caption that is not there": (("Figure 4.1 shows", "Figure 4.2 shows"), "no caption *Figure 4.2."),
    "a figure's number of another chapter": (("*Figure 4.1.", "*Figure 5.1."), "begin with that"),
    "an equation that is not there": (("By (4.1)", "By (4.2)"), "no equation has the number (4.2)"),
    "an equation of another chapter": (("\\tag{4.1}", "\\tag{5.1}"), "(5.1) stands in chapter 4"),
    "a walk through nothing": (("<!-- walk nanochat/attention.py::Lamp -->", "<!-- walk -->"), "names no symbol"),
    "a walk through what is gone": (("py::Lamp -->", "py::Torch -->"), "has no Torch"),
    "a comment of no kind": (("<!-- run -->", "<!-- ran -->"), "'ran' is no comment of ours"),
    "a comment inside a line": (("It gives", "<!-- run --> It gives"), "a line of its own"),
    "a folded part that stays open": (("</details>", ""), "is not closed"),
    "a heading in a folded part": (("Light, $x$.", "### Light\n\nand $x$."), "inside a folded part"),
    "words behind a fold's first line": (("</summary>\n", "</summary>"), "empty line"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_a_chapter_is_found(book: Book, name: str) -> None:
    (old, new), complaint = FAULTS[name]
    edit(book, old, new)
    found = [str(fault) for fault in guide.check(book, [])]
    assert any(complaint in fault for fault in found), found
    assert all(fault.startswith("educational/04_lamps.md:") for fault in found)


def test_faults_name_the_line(book: Book) -> None:
    edit(book, "gives 12.3", "gives 12.4")
    lines = (book.folder / "04_lamps.md").read_text(encoding="utf-8").split("\n")
    number = next(n for n, line in enumerate(lines, 1) if "12.4" in line)
    assert only_fault(book).startswith(f"educational/04_lamps.md:{number}: ")


def test_a_changed_source_is_found_and_mended(book: Book) -> None:
    edit(book, "        heat = 2\n", "        heat = 20\n", "nanochat/attention.py")
    assert "now it is 'heat = 20'" in only_fault(book)
    assert guide.sync(book, []) == []
    assert guide.check(book, []) == []


def test_output_may_differ_by_less_than_one_percent(book: Book) -> None:
    edit(book, "0.3333333333333333\n", "0.3345\n")
    assert guide.check(book, []) == []


def test_a_number_equal_to_its_record_changes_with_it(book: Book) -> None:
    edit(book, "0.1234", "0.2", "runs/a.json")
    assert "20.0" in only_fault(book)


def test_a_check_whose_sides_differ_is_found(book: Book) -> None:
    edit(book, "check ch04.halves 1e-12 -->\n*Checked: [halves]", "check ch04.thirds 1e-12 -->\n*Checked: [thirds]")
    assert "thirds finds an error of 0.01, above 1e-12" in only_fault(book)


def test_a_long_block_is_found(book: Book) -> None:
    edit(book, 'print("heat", 2, 1 / 3)', "x = 1\n" * 10 + 'print("heat", 2, 1 / 3)')
    assert "11 lines of code, at most 10" in only_fault(book)


@pytest.mark.parametrize("loop", ["for x in (1, 2):\n    y = x\n", "def f():\n    x = 1\n\n    return x\n\n"])
def test_a_block_that_cannot_be_pasted_is_found(book: Book, loop: str) -> None:
    edit(book, 'print("heat", 2, 1 / 3)', loop + 'print("heat", 2, 1 / 3)')
    assert "plain prompt needs an empty line" in only_fault(book)


def test_a_block_with_an_empty_line_after_its_loop_can_be_pasted(book: Book) -> None:
    edit(book, 'print("heat", 2, 1 / 3)', 'for x in (1, 2):\n    y = x\n\nprint("heat", 2, 1 / 3)')
    assert guide.check(book, []) == []


def test_output_that_is_not_shown_is_found(book: Book) -> None:
    edit(book, "<!-- output -->\n```text\nheat 2 0.3333333333333333\n```\n", "")
    assert "this block prints" in only_fault(book)


def test_an_equation_numbered_twice_is_found(book: Book) -> None:
    edit(book, "By (4.1)", "$$\nc = d \\tag{4.1}\n$$\n\nBy (4.1)")
    assert "(4.1) is also the number of educational/04_lamps.md:" in only_fault(book)


def test_a_figure_that_is_drawn_otherwise_now_is_found(book: Book) -> None:
    edit(book, "plot([0, 1], [0, 1])", "plot([0, 1], [1, 0])", "educational/figures/ch04.py")
    assert "is not what line() draws now" in only_fault(book)


def test_a_figure_that_cannot_be_drawn_is_found(book: Book) -> None:
    shutil.copy(book.folder / "figures/04_line.svg", book.folder / "figures/04_broken.svg")
    edit(book, "figures/04_line.svg", "figures/04_broken.svg")
    assert "no pen" in only_fault(book)


def test_a_missing_drawing_is_found(book: Book) -> None:
    (book.folder / "figures/04_line.svg").unlink()
    assert "there is no figures/04_line.svg" in only_fault(book)


def test_a_references_page_that_is_old_is_found(book: Book) -> None:
    edit(book, "1880}", "1881}", "educational/references.bib")
    assert "references.md:1: not made from references.bib" in only_fault(book)


def test_an_entry_without_year_is_found(book: Book) -> None:
    edit(book, "  year = {1880},\n", "", "educational/references.bib")
    found = [str(fault) for fault in guide.check(book, [])]
    assert any("edison1880lamp has no year" in fault for fault in found)


def test_symbols_that_nothing_walks_through_are_found(book: Book) -> None:
    assert symbols.public(book) == ["nanochat/attention.py::Lamp"]
    assert symbols.report(book)[1] == []
    edit(book, "import Lamp", "import Lamp, unlit", "nanochat/gpt.py")
    assert symbols.report(book)[1] == ["nanochat/attention.py::unlit"]


def test_every_listed_symbol_is_there() -> None:
    found = symbols.public(Book())
    assert {"nanochat/gpt.py::GPT", "nanochat/optim.py::Muon", "nanochat/engine.py::Batch"} <= set(found)
    assert not [symbol for symbol in found if "::_" in symbol]


def test_chapters_answer_to_short_names(book: Book) -> None:
    assert [c.path.name for c in book.chosen(["4"])] == ["04_lamps.md"]
    assert book.chosen(["04"]) == book.chosen(["04_lamps.md"]) == book.chosen([])
    with pytest.raises(Wrong, match="no chapter is called 9"):
        book.chosen(["9"])


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("loss 8.32", "loss 8.33", True),
        ("loss 8.32", "loss 8.50", False),
        ("ids [1, 2]", "ids [1, 3]", False),
        ("1,000 tokens", "1,000 tokens", True),
        ("0.00 and", "0.01 and", True),
        ("1e-03", "1.005e-03", True),
        ("a  b", "a b", True),
        ("a b", "a c", False),
        ("tensor([ 1.50, -2.00])", "tensor([1.51, -2.01])", True),
        ("nan", "inf", False),
    ],
)
def test_outputs_are_compared_as_a_reader_would(old: str, new: str, same: bool) -> None:
    assert session.alike(old, new) is same


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("5.2 The mask", "52-the-mask"),
        ("Why RMSNorm, and not LayerNorm?", "why-rmsnorm-and-not-layernorm"),
        ("ReLU² in a_b", "relu²-in-a_b"),
        ("Naïve – or not", "naïve--or-not"),
    ],
)
def test_anchors_are_those_of_a_code_host(title: str, anchor: str) -> None:
    assert links.slug(title) == anchor


def test_references_are_read_without_tex() -> None:
    fields = references.fields(' author = {Schr{\\"o}dinger, E. and {\\O}rsted, H.}, title = "On {QM}", year = 1926 }')
    assert fields == {"author": "Schrödinger, E. and Ørsted, H.", "title": "On QM", "year": "1926"}
    assert references.people(fields["author"]) == "E. Schrödinger and H. Ørsted"


def test_records_pick_entries_by_field_and_position(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"loss": 2.5}\n{"loss": 1234.5}\n', encoding="utf-8")
    assert records.value("a.jsonl -1/loss ,.1f", tmp_path) == "1,234.5"
    for reference in ("a.jsonl 7/loss .1f", "a.jsonl 0 .1f", "a.jsonl 0/loss", "a.jsonl 0/loss +1 .1f"):
        with pytest.raises(Wrong):
            records.value(reference, tmp_path)


def test_quotes_leave_docstrings_out(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(MODULE, encoding="utf-8")
    assert quote.quoted("a.py::Lamp -docstring", tmp_path).split("\n")[:2] == [
        "class Lamp:",
        "    def light(self) -> int:",
    ]
    assert '"""' not in quote.quoted("a.py::Lamp.light -docstring", tmp_path)
    assert quote.quoted("a.py::Lamp.light # Shine", tmp_path) == "# Shine\nreturn heat + 2"


def built(book: Book, builder: str) -> subprocess.CompletedProcess[str]:
    """The throw-away book through Sphinx, as `make guide` calls it."""
    for name in ("conf.py", "index.md"):
        shutil.copy(ROOT / "educational" / name, book.folder / name)
    (book.folder / "README.md").write_text("# Lamps\n\nHow lamps give light.\n", encoding="utf-8")
    shutil.copytree(ROOT / "educational/book", book.folder / "book")
    shutil.copytree(ROOT / "educational/_static", book.folder / "_static")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", builder, ".", f"_build/{builder}"]
    return subprocess.run(command, cwd=book.folder, capture_output=True, text=True, timeout=100)


def test_the_clean_book_becomes_a_site(book: Book) -> None:
    ended = built(book, "html")
    assert ended.returncode == 0, ended.stderr
    page = (book.build / "html/04_lamps.html").read_text(encoding="utf-8")
    assert 'class="box predict' in page
    assert '<details class="answer"><summary>Answer</summary>' in page
    assert 'href="#equation-4.1"' in page
    assert 'id="equation-4.1"' in page
    assert 'href="references.html#edison1880lamp"' in page
    assert "<!-- = runs" not in page
    assert "https://" not in "".join(line for line in page.splitlines() if "<script" in line or "stylesheet" in line)
    assert (book.build / "html/source/nanochat/attention.py.html").exists()


def test_the_clean_book_becomes_a_pdf(book: Book) -> None:
    ended = built(book, "typst")
    assert ended.returncode == 0, ended.stderr
    made = (book.build / "typst/book.pdf").read_bytes()
    assert made.startswith(b"%PDF")
    assert b"StructTreeRoot" in made
    assert "#folded(" in (book.build / "typst/book.typ").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("builder", "old", "new", "complaint"),
    [
        ("typst", "Light, $x$.", "Light 漢 too.", "no font of the PDF has '漢'"),
        ("html", "Light, $x$.", "Light, $\\nosuch{x$.", "KaTeX cannot set"),
        ("typst", "Light, $x$.", "Light, $\\nosuch$.", "MathJax cannot set"),
        ("html", "Light, $x$.", "[dark](05_dark.md)", "05_dark.md"),
    ],
)
def test_what_cannot_be_shown_stops_the_build(book: Book, builder: str, old: str, new: str, complaint: str) -> None:
    edit(book, old, new)
    ended = built(book, builder)
    assert ended.returncode != 0
    assert complaint in ended.stderr


def test_a_changed_module_is_a_copy() -> None:
    original = importlib.import_module("nanochat.errors")
    copy = changed("nanochat.errors", "class DataError(", "class LostError(")
    assert hasattr(copy, "LostError")
    assert not hasattr(copy, "DataError")
    assert hasattr(original, "DataError")
    assert sys.modules["nanochat.errors"] is original


def test_dataclasses_work_in_a_changed_module() -> None:
    copy = changed("nanochat.gpt", "n_layer: int = 4", "n_layer: int = 6")
    config = copy.GPTConfig(n_head=8)
    assert (config.n_layer, dataclasses.replace(config, n_layer=3).n_layer) == (6, 3)


def test_a_change_can_follow_a_change() -> None:
    once = changed("nanochat.gpt", "n_layer: int = 4", "n_layer: int = 6")
    twice = changed(once, "n_head: int = 4", "n_head: int = 8")
    assert (twice.GPTConfig().n_layer, twice.GPTConfig().n_head) == (6, 8)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [("no such line", "x", "0 times"), ("return", "x", "times, not once"), ("", "x", "not once")],
)
def test_a_line_that_is_not_there_once_cannot_be_changed(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        changed("nanochat.gpt", old, new)


def test_a_change_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would change"):
        changed("nanochat.gpt", "n_layer: int = 4", "n_layer: int = 4")


def test_a_block_sees_the_ones_before_and_fails_with_its_line(book: Book) -> None:
    path = book.folder / "05_two.md"
    path.write_text("<!-- run -->\n```python\nx = 1\n```\n\n<!-- run -->\n```python\n\nprint(x + y)\n```\n", "utf-8")
    found = [str(fault) for fault in guide.check(book, ["05"])]
    assert len(found) == 1
    assert 'File "05_two.md, block of line 8", line 9' in found[0]
    assert "name 'y' is not defined" in found[0]
    assert len(session.pairs(Chapter(book, path))[0]) == 2
