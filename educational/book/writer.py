"""The book's nodes as Typst: one method for each kind."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.builders import Builder
from sphinx.util import logging

log = logging.getLogger(__name__)
EX = 0.4415  # MathJax's ex, in em
LONGEST_WORD = 60  # of code, before it may be broken anywhere


def quote(text: str) -> str:
    """A string of Typst."""
    return json.dumps(text, ensure_ascii=False)


def escape(text: str) -> str:
    """Words of the text: none of Typst's signs means anything, and `2. ` begins no list. Quotes it makes round."""
    return re.sub(r"([\\#$*_`<>@\[\]~=+\-/]|(?<=\d)\.(?=\s|$))", r"\\\1", text)


class Writer:
    """Each node as Typst: `on_NAME` for the node's class, or for the first of its bases that has one."""

    def __init__(self, builder: Builder) -> None:
        self.builder, self.doc, self.depth = builder, "", 0
        self.labels: set[str] = set()
        self.wanted: set[str] = set()

    def emit(self, node: Any) -> str:
        if isinstance(node, nodes.Text):
            return escape(node.astext())
        for kind in type(node).__mro__:
            method: Callable[[Any], str] | None = getattr(self, "on_" + kind.__name__, None)
            if method:
                return method(node)
        log.warning("typst: no way to print %s", type(node).__name__, location=node)
        return self.inner(node)

    def inner(self, node: Any) -> str:
        return "".join(self.emit(child) for child in node.children)

    def cells(self, parts: Iterable[Any]) -> str:
        return ", ".join(f"[{self.inner(part).strip()}]" for part in parts)

    def label(self, name: str) -> str:
        return re.sub(r"[^\w.:-]", "-", f"{self.doc}--{name}")

    def anchors(self, node: Any) -> str:
        """Where links to the node lead."""
        fresh = dict.fromkeys(label for name in node.get("ids", []) if (label := self.label(name)) not in self.labels)
        self.labels.update(fresh)
        return "".join(f"#metadata(none) <{label}>" for label in fresh)

    def skip(self, node: Any) -> str:
        return ""

    on_comment = on_index = on_substitution_definition = on_meta = on_colspec = on_toctree = on_compound = skip
    on_inline = on_tgroup = on_legend = on_title_reference = on_definition_list = on_definition_list_item = inner

    def on_start_of_file(self, node: Any) -> str:
        before, self.doc, self.depth = self.doc, node["docname"], 0
        # A link to the chapter itself leads to its beginning.
        self.labels.add(self.label(""))
        text = self.inner(node)
        start, self.doc = f"#metadata(none) <{self.label('')}>", before
        return text.replace("]\n", f"]{start}\n", 1)

    def on_compact_paragraph(self, node: Any) -> str:
        return self.inner(node)

    def on_section(self, node: Any) -> str:
        self.depth += 1
        text = self.inner(node)
        self.depth -= 1
        return f"\n{text}\n"

    def on_title(self, node: Any) -> str:
        return f"\n#heading(level: {self.depth})[{self.inner(node)}]\n{self.anchors(node.parent)}\n\n"

    def on_target(self, node: Any) -> str:
        return self.anchors(node) + self.inner(node)

    def on_paragraph(self, node: Any) -> str:
        text = self.anchors(node) + self.inner(node)
        return f"#checked[{text}]\n\n" if "checked" in node["classes"] else f"{text}\n\n"

    def on_emphasis(self, node: Any) -> str:
        return f"#emph[{self.inner(node)}]"

    def on_strong(self, node: Any) -> str:
        return f"#strong[{self.inner(node)}]"

    def on_literal(self, node: Any) -> str:
        return f"#raw({quote(node.astext())})"

    def on_subscript(self, node: Any) -> str:
        return f"#sub[{self.inner(node)}]"

    def on_superscript(self, node: Any) -> str:
        return f"#super[{self.inner(node)}]"

    def on_reference(self, node: Any) -> str:
        address = node.get("refuri", "")
        if address and not address.startswith("%"):
            return f"#link({quote(address)})[{self.inner(node)}]"
        document, _, anchor = address[1:].partition("#")
        before, self.doc = self.doc, document or self.doc
        label, self.doc = self.label(anchor or node.get("refid", "")), before
        self.wanted.add(label)
        return f"#link(label({quote(label)}))[{self.inner(node)}]"

    def on_raw(self, node: Any) -> str:
        return "#linebreak()" if node.astext().strip().startswith("<br") else ""

    def on_indexed(self, node: Any) -> str:
        return f"#entry({quote(node['term'])}, {str(node['code']).lower()})"

    def on_math(self, node: Any) -> str:
        picture, shift = self.formula(node.astext(), False, node)
        return f"#inline({picture}, {shift:.4f}em)"

    def on_math_block(self, node: Any) -> str:
        picture, _ = self.formula(node.astext(), True, node)
        return f"{self.anchors(node)}#equation({picture}, {quote(node.get('number') or '')})\n\n"

    def formula(self, tex: str, display: bool, node: Any) -> tuple[str, float]:
        """A formula as a picture by MathJax, whose words are the TeX, and how far it reaches below the line."""
        path = Path(self.builder.outdir) / "math" / f"{hashlib.sha256(f'{display}{tex}'.encode()).hexdigest()[:16]}.svg"
        if not path.exists():
            import quickjax

            found = re.search(r"<svg.*</svg>", quickjax.render(tex, display=display), re.DOTALL)
            if not found or any(sign in found[0] for sign in ("merror", "<text", 'fill="red"', 'color="red"')):
                log.warning("typst: MathJax cannot set %s", tex, location=node)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found[0] if found else "", encoding="utf-8")
        made = path.read_text(encoding="utf-8")
        width, shift = (
            float(match[1]) if (match := re.search(pattern, made)) else 0.0
            for pattern in (r"width=.([0-9.]+)ex", r"vertical-align: ?(-?[0-9.]+)")
        )
        return f'image("math/{path.name}", width: {width * EX:.4f}em, alt: {quote(tex)})', -shift * EX

    def on_literal_block(self, node: Any) -> str:
        language = {"default": "python", "none": "text", "console": "bash"}.get(node["language"], node["language"])
        text = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda found: "\u200b".join(found[0]), node.astext().expandtabs(4))
        width = max(map(len, node.astext().splitlines()), default=0)
        printed = ", printed: true" if "printed" in node["classes"] else ""
        lines = text.count("\n") + 1
        return f"#code({width}, {lines}, raw(block: true, lang: {quote(language)}, {quote(text)}){printed})\n\n"

    on_doctest_block = on_literal_block

    def on_source(self, node: Any) -> str:
        where = f"#raw({quote(node['path'])})" if node.get("path") else ""
        where += f" · #raw({quote(node['symbol'])})" if node.get("symbol") else ""
        return f"#quoted([{where}])[{self.inner(node)}]\n\n"

    def on_details(self, node: Any) -> str:
        kind = "answer" if node["summary"].lower().startswith(("answer", "solution")) else "deeper"
        return f"{self.anchors(node)}#folded({quote(kind)}, {quote(node['summary'])})[{self.inner(node)}]\n\n"

    def on_container(self, node: Any) -> str:
        if "box" not in node["classes"]:
            return self.inner(node)
        return f"#callout({quote(node['classes'][-1])})[{self.inner(node)}]\n\n"

    def on_block_quote(self, node: Any) -> str:
        return f"#quote(block: true)[{self.inner(node)}]\n\n"

    def on_image(self, node: Any) -> str:
        if node["uri"] not in self.builder.images:
            return ""  # Sphinx has said that the file is missing
        name = "img/" + self.builder.images[node["uri"]]
        return f"#picture({quote(name)}, {quote(node.get('alt') or '')})"

    def on_figure(self, node: Any) -> str:
        caption = "".join(self.inner(child) for child in node.children if isinstance(child, nodes.caption))
        pictures = "".join(self.emit(child) for child in node.children if isinstance(child, nodes.image))
        return f"{self.anchors(node)}#drawn([{caption}], [{pictures}])\n\n"

    def on_table(self, node: Any) -> str:
        rows = list(node.findall(nodes.row))
        sides = [next((c[5:] for c in e["classes"] if c.startswith("text-")), "left") for e in rows[0].children]
        body = "".join(f"{self.cells(row.children)}, " for row in rows[1:])
        head = f"({self.cells(rows[0].children)},)"
        return f"{self.anchors(node)}#tabled({len(sides)}, ({', '.join(sides)},), {head}, {body})\n\n"

    def on_bullet_list(self, node: Any) -> str:
        return f"#list({self.cells(node.children)})\n\n"

    def on_enumerated_list(self, node: Any) -> str:
        return f"#enum(start: {node.get('start', 1)}, {self.cells(node.children)})\n\n"

    def on_transition(self, node: Any) -> str:
        return "#align(center)[\\* #h(1em) \\* #h(1em) \\*]\n\n"
