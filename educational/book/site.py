"""The site: formulas set at build, folded parts, quoted code, pages of the repository's files."""

import hashlib
import html
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from educational.book import adapt, cross
from educational.book.chapter import Book

log = logging.getLogger(__name__)
KATEX = Path(__file__).parents[1] / "_static" / "katex" / "katex.min.js"
# Records and the like are shown up to this size; longer ones are named, not linked.
MOST_BYTES = 300_000


@cache
def katex() -> Any:
    """KaTeX in a JavaScript engine that pip installs: readers' browsers need its style sheet only."""
    import quickjs

    context = quickjs.Context()
    context.eval(KATEX.read_text(encoding="utf-8"))
    context.eval(
        "function render(tex, display) { try { return '+' + katex.renderToString(tex, {displayMode: display, "
        "throwOnError: true, strict: 'ignore'}) } catch (error) { return '-' + error.message } }"
    )
    return context.get("render")


class Formulas:
    """Formulas as HTML, kept between builds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.used: dict[str, str] = {}

    def html(self, tex: str, display: bool, node: nodes.Node) -> str:
        key = hashlib.sha256(f"{display} {tex}".encode()).hexdigest()[:20]
        if key not in self.kept:
            made = katex()(tex, display)
            if not made.startswith("+"):
                log.warning("KaTeX cannot set %s: %s", tex, made[1:], location=node)
                return f"<code>{html.escape(tex)}</code>"
            self.kept[key] = made[1:]
        return self.kept[key]

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.kept), encoding="utf-8")


FORMULAS = Formulas(Book().build / "formulas.json")


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{FORMULAS.html(node.astext(), False, node)}</span>')
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    number = f" \\tag{{{node['number']}}}" if node.get("number") else ""
    made = FORMULAS.html(node.astext() + number, True, node)
    name = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    kind = "math formula numbered" if number else "math formula"
    label = f"Equation {node['number']}" if node.get("number") else "Formula"
    # A region that scrolls can be reached from the keyboard.
    self.body.append(f'<div class="{kind}"{name} tabindex="0" role="group" aria-label="{label}">{made}</div>\n')
    raise nodes.SkipNode


def visit_details(self: Any, node: adapt.details) -> None:
    kind = "answer" if node["summary"].lower().startswith(("answer", "solution")) else "deeper"
    self.body.append(f'<details class="{kind}"><summary>{html.escape(node["summary"])}</summary>\n')


def depart_details(self: Any, node: adapt.details) -> None:
    self.body.append("</details>\n")


def visit_source(self: Any, node: adapt.source) -> None:
    self.body.append('<div class="quoted">\n')
    if node.get("path"):
        address = cross.source_page(node["path"], node["line"])
        title = html.escape(node["path"]) + (f" · <b>{html.escape(node['symbol'])}</b>" if node["symbol"] else "")
        self.body.append(f'<a class="where" href="{address}">{title}</a>\n')


def depart_source(self: Any, node: adapt.source) -> None:
    self.body.append("</div>\n")


def nothing(self: Any, node: nodes.Node) -> None:
    """Leaves no trace on the site."""


def collect(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file and folder of the repository that the book links to."""
    root, linked = Book().root, {name for document in app.env.metadata.values() for name in document.get("sources", [])}
    linked |= {p.relative_to(root).as_posix() for name in linked for p in (root / name).glob("*.py")}
    for name in sorted(linked):
        path, title = root / name, f"<h1><code>{html.escape(name)}</code></h1>\n"
        if path.is_dir():
            inner = [p.name for p in sorted(path.glob("*.py"))]
            body = title + "".join(f'<p><a href="{path.name}/{n}.html"><code>{n}</code></a></p>\n' for n in inner)
            yield f"source/{name}", {"title": name, "body": body, "parents": []}, "page.html"
            continue
        long = path.stat().st_size > MOST_BYTES
        text = "too long to be shown here" if long else path.read_text(encoding="utf-8", errors="replace")
        try:
            lexer = get_lexer_for_filename(name)
        except ClassNotFound:
            lexer = TextLexer()
        # lineanchors gives every line the name that a quotation's caption leads to.
        formatter = HtmlFormatter(lineanchors="L", anchorlinenos=False, linenos="inline", wrapcode=True)
        body = title + highlight(text, lexer, formatter)
        yield f"source/{name}", {"title": name, "body": body, "parents": []}, "page.html"


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        FORMULAS.save()


def setup(app: Sphinx) -> dict[str, Any]:
    if not KATEX.exists():
        raise ExtensionError(f"{KATEX} is missing")
    app.add_node(nodes.math, override=True, html=(visit_math, None))
    app.add_node(nodes.math_block, override=True, html=(visit_math_block, None))
    app.add_node(adapt.details, override=True, html=(visit_details, depart_details))
    app.add_node(adapt.source, override=True, html=(visit_source, depart_source))
    app.add_node(adapt.indexed, override=True, html=(nothing, nothing))
    app.connect("html-collect-pages", collect)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
