"""A Sphinx builder that makes the whole book one Typst document, and of that a tagged PDF."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.errors import SphinxError
from sphinx.util import logging
from sphinx.util.nodes import inline_all_toctrees

from educational.book.chapter import Book
from educational.book.writer import Writer, quote

log = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("template.typ")


class TypstError(SphinxError):
    category = "Typst"


class TypstBuilder(Builder):
    """`sphinx -b typst`: book.typ, its pictures, and book.pdf."""

    name, format, epilog = "typst", "typst", "The book is %(outdir)s/book.pdf."
    supported_image_types: ClassVar = ["image/svg+xml", "image/png", "image/jpeg"]
    allow_parallel = False

    def get_outdated_docs(self) -> str:
        return "the whole book"

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return "%" + docname

    def get_relative_uri(self, from_: str, to: str, typ: str | None = None) -> str:
        return self.get_target_uri(to)

    def write_doc(self, docname: str, doctree: nodes.document) -> None:
        """Nothing: the book is written at once."""

    def write_documents(self, _docnames: Iterable[str]) -> None:
        import typst

        root, out = self.config.root_doc, Path(self.outdir)
        tree = inline_all_toctrees(self, set(), root, self.env.get_doctree(root), lambda text: text, [root])
        self.env.resolve_references(tree, root, self)
        self.post_process_images(tree)
        writer = Writer(self)
        body = "".join(writer.emit(chapter) for chapter in tree.findall(addnodes.start_of_file))
        (out / "img").mkdir(parents=True, exist_ok=True)
        for source, name in self.images.items():
            shutil.copy(Path(self.srcdir) / source, out / "img" / name)
        for label in sorted(writer.wanted - writer.labels):
            log.warning("typst: nothing has the anchor %s", label)
            body += f"#metadata(none) <{label}>\n"
        given = {"title": self.config.project, "author": self.config.author, "release": self.config.release}
        head = "".join(f"#let {name} = {quote(value)}\n" for name, value in given.items())
        end = "\n#heading(level: 1)[Index]\n#index()\n" if "#entry(" in body else ""
        document = out / "book.typ"
        document.write_text(head + TEMPLATE.read_text(encoding="utf-8") + body + end, encoding="utf-8")
        try:
            _, warnings = typst.compile_with_warnings(
                str(document), output=str(out / "book.pdf"), pdf_standards="ua-1", ignore_system_fonts=True
            )
        except typst.TypstError as error:
            raise TypstError(explained(str(error.diagnostic or error))) from error
        for warning in warnings:
            log.warning("typst: %s", warning.message)


def explained(message: str) -> str:
    """What Typst says; letters that no font has with the places of the book where they stand."""
    lost = sorted(set(re.findall(r"the text `\"(.+?)\"` could not be displayed", message)))
    if not lost:
        return message
    places = [
        chapter.fault(number, f"no font of the PDF has {letter!r} (U+{ord(letter[0]):04X}): write it in another way")
        for chapter in Book().chapters()
        for number, line in enumerate(chapter.lines)
        for letter in lost
        if letter in line
    ]
    return "\n".join(map(str, places)) or f"no font of the PDF has {', '.join(lost)}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_builder(TypstBuilder)
    return {"version": "1", "parallel_read_safe": True}
