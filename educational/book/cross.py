"""Links between the chapters, and out of them, as the builder at work wants them. A Sphinx extension."""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

from educational.book.chapter import Book


def cross(kind: str, target: str, *children: nodes.Node) -> addnodes.pending_xref:
    """A link that is resolved when all chapters have been read."""
    return addnodes.pending_xref(
        "", *children, refdomain="", reftype=f"book-{kind}", reftarget=target, refwarn=True, refexplicit=True
    )


def resolve(app: Sphinx, env: Any, node: addnodes.pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Where such a link leads, for the builder at work."""
    kind, target = str(node["reftype"]).removeprefix("book-"), str(node["reftarget"])
    inner = nodes.inline("", "", *(child.deepcopy() for child in node.children))
    if kind == "source":
        if app.builder.format != "html":
            return inner
        return nodes.reference("", "", inner, refuri=source_page(target), internal=True)
    if kind == "references":
        return make_refnode(app.builder, node["refdoc"], "references", target, inner)
    if kind in {"equation", "figure"}:
        first = target.partition("-")[2].partition(".")[0]
        chapter = next((c.path.stem for c in Book().chapters() if c.number == first), None)
        return make_refnode(app.builder, node["refdoc"], chapter, target, inner) if chapter else inner
    return None


def list_chapters(app: Sphinx, name: str, text: list[str]) -> None:
    """The start page's table of contents has every chapter that there is."""
    if name == app.config.root_doc:
        names = [chapter.path.stem for chapter in Book().chapters()]
        names += ["references"] * (Book().folder / "references.md").exists()
        text[0] = text[0].replace("every chapter", "\n".join(names))


def source_page(path: str, line: int = 0) -> str:
    """The address of a repository's file on the site, from a chapter's page."""
    return f"source/{path}.html" + (f"#L-{line}" if line > 1 else "")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", list_chapters)
    app.connect("env-get-outdated", lambda app, *given: [app.config.root_doc])  # a chapter may have been added
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
