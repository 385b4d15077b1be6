"""Turns the chapters' plain Markdown into what the site and the PDF set apart: folded parts, boxes, figures, equations.

A Sphinx extension. Its transform works on one chapter after it was read, for whichever builder.
"""

import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from educational.book.chapter import Book, Wrong
from educational.book.cross import cross
from educational.book.links import TAG
from educational.book.quote import REFERENCE, find

log = logging.getLogger(__name__)

FOLDED = re.compile(r"\s*<details(?: open)?>\s*<summary>(.*?)</summary>\s*", re.DOTALL)
BOXES = {"predict", "note", "warning", "try it", "experiment"}
REFERRED = re.compile(r"\((?P<tag>(?:\d|[A-Z])\.\d{1,2}[a-z]?)\)|\bFigure (?P<figure>(?:\d|[A-Z])\.\d{1,2})\b")
CAPTION = re.compile(r"Figure ((?:\d|[A-Z])\.\d{1,2})\.")


class details(nodes.General, nodes.Element):
    """A folded part; `summary` is what is seen of it."""


class source(nodes.General, nodes.Element):
    """Code quoted from the repository: the block, and in `path`, `symbol` and `line` where it stands."""


class indexed(nodes.Invisible, nodes.Element):
    """A place that the index sends readers of `term` to."""


class Adapt(SphinxTransform):
    """Everything below, in order."""

    default_priority = 900

    def apply(self, **given: Any) -> None:
        for parent in [self.document, *self.document.findall(nodes.Element)]:
            if any(isinstance(child, nodes.raw) for child in parent.children):
                self.take_html(parent)
        self.fold(self.document)
        self.boxes()
        self.figures()
        self.equations()
        self.terms()
        self.links()
        self.numbers()

    def take_html(self, parent: nodes.Element) -> None:
        """Comments and anchors: what raw HTML the chapters may have, apart from folded parts and a few marks."""
        kept: list[nodes.Node] = []
        for child in parent.children:
            text = child.astext() if isinstance(child, nodes.raw) else ""
            if not text:
                kept.append(child)
            elif text.startswith("<!--"):
                kept += self.comment(text.strip()[4:-3].strip())
            elif found := re.match(r"<a (?:id|name)=\"([^\"]+)\">", text):
                kept.append(nodes.target("", "", ids=[found[1]]))
            elif FOLDED.fullmatch(text) or text.strip() in {"</details>", "<br>", "<br/>", "<br />"}:
                kept.append(child)
            elif text.strip() not in {"</a>"}:
                log.warning("HTML that only a browser can show: %s", text.strip()[:60], location=child)
        join(parent, kept)

    def comment(self, text: str) -> list[nodes.Node]:
        """What a comment of ours leaves behind: a note for the block below, or an entry of the index."""
        if text.startswith("walk "):
            return [indexed(term=symbol.partition("::")[2], code=True) for symbol in text.split()[1:]]
        if re.match(r"\S+\.py(::\S+)?( |$)", text):
            return [source(reference=text)]
        return [nodes.comment("", text)] if text == "output" else []

    def fold(self, parent: nodes.Element) -> None:
        """`<details>` and what follows up to its `</details>` become one node."""
        stack: list[nodes.Element] = [parent]
        kept: dict[int, list[nodes.Node]] = {0: []}
        for child in parent.children:
            text = child.astext() if isinstance(child, nodes.raw) else ""
            if found := FOLDED.fullmatch(text):
                stack.append(details(summary=html.unescape(re.sub(r"<[^>]+>", "", found[1]).strip())))
                kept[len(stack) - 1] = []
            elif text.strip() == "</details>" and len(stack) > 1:
                folded = stack.pop()
                folded.extend(kept.pop(len(stack)))
                kept[len(stack) - 1].append(folded)
            elif text.strip() == "</details>":
                log.warning("</details> closes nothing", location=child)
            else:
                if isinstance(child, nodes.Element):
                    self.fold(child)
                kept[len(stack) - 1].append(child)
        if len(stack) > 1:
            log.warning("<details> is not closed in its section: %s", stack[-1]["summary"], location=parent)
        elif any(a is not b for a, b in zip(kept[0], parent.children, strict=False)) or len(kept[0]) != len(parent):
            join(parent, kept[0])

    def boxes(self) -> None:
        """Quotes that begin with one of the bold words, quoted code, and what code printed."""
        for quote in list(self.document.findall(nodes.block_quote)):
            first = quote.next_node(nodes.strong)
            word = first.astext().rstrip(".:").lower() if first is not None else ""
            if word in BOXES:
                box = nodes.container("", *quote.children, classes=["box", word.replace(" ", "-")])
                quote.replace_self(box)
        for paragraph in self.document.findall(nodes.paragraph):
            if paragraph.astext().startswith("Checked: ") and isinstance(paragraph[0], nodes.emphasis):
                paragraph["classes"].append("checked")
        for mark in list(self.document.findall(lambda n: isinstance(n, source | nodes.comment))):
            block = mark.next_node(descend=False, siblings=True)
            if not isinstance(block, nodes.literal_block):
                mark.parent.remove(mark)
            elif isinstance(mark, nodes.comment):
                block["classes"].append("printed")
                mark.parent.remove(mark)
            else:
                block.parent.remove(block)
                mark.append(block)
                self.locate(mark)

    def locate(self, mark: source) -> None:
        """Where quoted code stands, for its caption."""
        found = REFERENCE.fullmatch(mark["reference"])
        if not found:
            return
        path = Book().root / found["path"]
        mark["path"], mark["symbol"], mark["line"] = found["path"], found["symbol"] or "", 1
        self.env.metadata[self.env.docname].setdefault("sources", []).append(found["path"])
        self.env.note_dependency(str(path))
        try:
            if mark["symbol"]:
                mark["line"] = find(path.read_text(encoding="utf-8"), mark["symbol"], found["path"]).lineno
        except (OSError, Wrong) as error:
            log.warning("%s", error, location=mark)
        if mark["symbol"]:
            mark.insert(0, indexed(term=mark["symbol"], code=True))

    def figures(self) -> None:
        """A picture alone in its paragraph, with the caption below it."""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if len(paragraph) != 1 or not isinstance(paragraph[0], nodes.image):
                continue
            below = paragraph.next_node(descend=False, siblings=True)
            figure = nodes.figure("", paragraph[0])
            if isinstance(below, nodes.paragraph) and (found := CAPTION.match(below.astext())):
                caption = nodes.caption("", "")
                for child in below.children:
                    caption.extend(child.children if isinstance(child, nodes.emphasis) else [child])
                below.parent.remove(below)
                figure += caption
                figure["ids"] = [f"figure-{found[1]}"]
            paragraph.replace_self(figure)

    def equations(self) -> None:
        """The number out of the formula and into the node."""
        for block in self.document.findall(nodes.math_block):
            found = TAG.search(block.astext())
            tex = re.sub(r"\s*\\tag\{[^}]*\}", "", block.astext()).strip()
            block.children = [nodes.Text(tex)]
            block["number"], block["nowrap"] = (found[1] if found else None), True
            block["ids"] = [f"equation-{found[1]}"] if found else []

    def terms(self) -> None:
        """A bold word in running text is where it is explained: the index says so."""
        for strong in list(self.document.findall(nodes.strong)):
            text = strong.astext()
            box = isinstance(strong.parent.parent, nodes.container) and strong.parent.index(strong) == 0
            inside = isinstance(strong.parent, nodes.paragraph) and not isinstance(strong.parent.parent, nodes.entry)
            if inside and not box and re.fullmatch(r"[a-z][\w\- ]{2,30}", text) and len(text.split()) <= 3:
                strong.parent.insert(strong.parent.index(strong), indexed(term=text, code=False))

    def links(self) -> None:
        """Links to sources of the book go to their anchors, those to the repository's files to pages of their own."""
        folder = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = link.get("reftarget", "")
            if link.get("refdomain") == "doc" and target == "references":
                link.replace_self(cross("references", link.get("reftargetid") or "", *link.children))
            elif link.get("refdomain") == "doc" and Path(target).is_absolute():  # a Markdown file outside the book
                link.replace_self(self.repository(Path(f"{target}.md"), link))
            elif link.get("reftype") == "myst" and target.startswith("../") and (folder / target).exists():
                link.replace_self(self.repository(folder / target, link))
        for link in list(self.document.findall(addnodes.download_reference)):
            link.replace_self(self.repository(folder / link["reftarget"].partition("#")[0], link))

    def repository(self, path: Path, link: nodes.Element) -> nodes.Node:
        """A link to a file or folder outside the book, which gets a page of its own on the site."""
        name = path.resolve().relative_to(Book().root).as_posix()
        self.env.metadata[self.env.docname].setdefault("sources", []).append(name)
        return cross("source", name, *link.children)

    def numbers(self) -> None:
        """(4.3) and Figure 4.2 in running text become links."""
        for text in list(self.document.findall(nodes.Text)):
            skipped = (
                nodes.literal | nodes.literal_block | nodes.math | nodes.math_block | nodes.reference | nodes.title
            )
            if isinstance(text.parent, skipped | addnodes.pending_xref) or inside(text, nodes.caption | nodes.title):
                continue
            pieces, place = [], 0
            for found in REFERRED.finditer(text.astext()):
                name = f"equation-{found['tag']}" if found["tag"] else f"figure-{found['figure']}"
                pieces.append(nodes.Text(text.astext()[place : found.start()]))
                pieces.append(cross(name.partition("-")[0], name, nodes.inline("", found[0])))
                place = found.end()
            if pieces:
                text.parent.replace(text, [*pieces, nodes.Text(text.astext()[place:])])


def join(parent: nodes.Element, children: list[nodes.Node]) -> None:
    """Makes `children` those of `parent`."""
    parent.children = []
    parent.extend(children)


def inside(node: nodes.Node, kinds: Any) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(details)
    app.add_node(source)
    app.add_node(indexed)
    app.add_transform(Adapt)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
