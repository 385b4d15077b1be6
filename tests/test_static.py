"""The page's files: small, self-contained, and without a way for text to become elements or code."""

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[1] / "nanochat" / "serve" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
STYLES = sorted(STATIC.glob("*.css"))

# What makes elements or code of a text, and what the strict policy forbids anyway.
DANGERS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|\beval\(|"
    r"new Function|setTimeout\(\s*[\"'`]|javascript:|setHTMLUnsafe"
)
ADDRESS = re.compile(r"https?://[^\s\"'`)\\]+")
# A namespace, a link in a comment, and the start of a pattern: nothing that is fetched.
KNOWN = ("http://www.w3.org/2000/svg", "https://html.spec.whatwg.org/", "https://...")


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) <= 150_000


def test_there_is_no_build_step() -> None:
    kinds = {path.suffix for path in STATIC.iterdir()}
    assert kinds == {".html", ".css", ".js", ".svg", ".woff2"}
    assert max(len(line) for path in [*SCRIPTS, *STYLES] for line in path.read_text("utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", [*SCRIPTS, STATIC / "index.html"], ids=lambda path: path.name)
def test_no_text_becomes_elements_or_code(path: Path) -> None:
    assert DANGERS.findall(path.read_text("utf-8")) == []


@pytest.mark.parametrize("text", ["a.innerHTML = x", "eval('1')", "new Function('x')", "setTimeout('x', 1)"])
def test_a_danger_is_found(text: str) -> None:
    assert DANGERS.search(text)


@pytest.mark.parametrize("path", [*SCRIPTS, *STYLES, STATIC / "index.html", STATIC / "icon.svg"], ids=lambda p: p.name)
def test_nothing_is_asked_of_other_servers(path: Path) -> None:
    assert [found for found in ADDRESS.findall(path.read_text("utf-8")) if not found.startswith(KNOWN)] == []


def test_every_module_and_file_that_is_named_is_there() -> None:
    html = (STATIC / "index.html").read_text("utf-8")
    named = set(re.findall(r'(?:href|src)="([\w.-]+)"', html))
    for path in SCRIPTS:
        named |= set(re.findall(r'from "\./([\w.-]+)"', path.read_text("utf-8")))
    for path in STYLES:
        named |= set(re.findall(r"url\(([\w.-]+)\)", path.read_text("utf-8")))
    views = re.search(r"const VIEWS = \{(.*?)\};", (STATIC / "app.js").read_text("utf-8"), re.DOTALL)
    assert views
    named |= {f"{view}.js" for view in re.findall(r"^  (\w+):", views.group(1), re.MULTILINE)}
    there = {path.name for path in STATIC.iterdir()}
    assert named <= there
    assert there - named == {"index.html"}


def test_styles_and_scripts_stand_in_files_of_their_own() -> None:
    html = (STATIC / "index.html").read_text("utf-8")
    assert "style=" not in html
    assert "<style" not in html
    assert re.findall(r"<script(?![^>]*src=)", html) == []
    assert re.findall(r"\son\w+=", html) == []
