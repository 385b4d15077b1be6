"""How Sphinx makes the site, and with `-b typst` the PDF: see the Makefile's `guide` and compile_to_pdf.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from educational.book.chapter import Book

project = "Nanochat: a language model from an empty file"
author = "The nanochat contributors"
project_copyright = author
extensions = ["myst_parser", *(f"educational.book.{name}" for name in ("cross", "adapt", "site", "typst"))]
root_doc = "index"
exclude_patterns = ["_build", "AUTHORING.md", "experiments", "staircase", "slides"]
# What the PDF's cover and the site's corner say beside the title.
release = Book().version

myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_dmath_allow_labels = False
myst_heading_anchors = 4
myst_heading_slug_func = "educational.book.links.slug"

html_theme = "furo"
html_title = "Nanochat, the book"
html_static_path = ["_static"]
html_css_files = ["katex/katex.min.css", "book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
