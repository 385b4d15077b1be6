"""Makes nanochat_educational_guide.pdf: `cd educational && python compile_to_pdf.py`.

Needs what pip installs: `pip install "nanochat[guide]"`, or `make guide` in the repository's root. With
`--engine latex` it takes pandoc and LaTeX instead, where both are installed.
"""

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PDF = FOLDER / "nanochat_educational_guide.pdf"
NEEDED = {"sphinx": "sphinx", "myst_parser": "myst-parser", "furo": "furo", "typst": "typst", "quickjax": "quickjax"}
sys.path[:0] = [path for path in [str(FOLDER.parent)] if path not in sys.path]


def with_typst(pdf: Path) -> None:
    """Sphinx reads the chapters, Typst sets them; any warning is an error."""
    lacking = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if lacking:
        sys.exit(
            f'{", ".join(lacking)} missing. In the repository\'s root: pip install -c constraints.txt -e ".[guide]"'
        )
    build = FOLDER / "_build"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "typst", "-d", str(build / "doctrees")]
    if subprocess.run([*command, str(FOLDER), str(build / "pdf")]).returncode:
        sys.exit("No PDF: mend what is named above.")
    shutil.copy(build / "pdf" / "book.pdf", pdf)


def with_latex(pdf: Path) -> None:
    """The way of the first edition: one Markdown file through pandoc and XeLaTeX. Plainer, without index and tags."""
    from educational.book.chapter import Book

    engine = next((name for name in ("xelatex", "lualatex") if shutil.which(name)), "xelatex")
    lacking = [name for name in ("pandoc", engine) if not shutil.which(name)]
    if lacking:
        sys.exit(
            f"--engine latex needs {' and '.join(lacking)}, which this machine has not; the default engine does without"
        )
    book = Book()
    texts = [chapter.text for chapter in book.chapters()]
    texts += [(FOLDER / "references.md").read_text(encoding="utf-8")]
    with tempfile.TemporaryDirectory() as scratch:
        text = "\n\n".join(for_pandoc(text) for text in texts)
        source = Path(scratch) / "book.md"
        source.write_text(pictures(text, Path(scratch)), encoding="utf-8")
        reader = "markdown-implicit_figures+gfm_auto_identifiers-yaml_metadata_block+lists_without_preceding_blankline"
        options = ["--toc", "--toc-depth=2", "--pdf-engine", engine, "-V", "geometry:margin=24mm", "-V", "colorlinks"]
        fonts = ["-V", "mainfont=DejaVu Serif", "-V", "monofont=DejaVu Sans Mono", "-V", "fontsize=10pt"]
        title = ["--metadata", "title=Nanochat: a language model from an empty file"]
        command = ["pandoc", str(source), "-f", reader, "-o", str(pdf), *options, *fonts, *title]
        if subprocess.run(command, cwd=FOLDER).returncode:
            sys.exit("pandoc made no PDF: see above")


def for_pandoc(text: str) -> str:
    """A chapter without its comments, with folded parts open and links to files of their own as plain words."""
    text = re.sub(r"<!--.*?-->\n?", "", text)
    text = re.sub(r"<details>\s*<summary>(.*?)</summary>", r"**\1**", text).replace("</details>", "")
    text = re.sub(r"<a id=\"([^\"]+)\"></a>", r"[]{#\1}", text)
    text = re.sub(r"(?<!!)\[([^\]]*)\]\(references\.md#([\w-]+)\)", r"[\1](#\2)", text)
    text = re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)#]*(#[^)]+)\)", r"[\1](\2)", text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def pictures(text: str, scratch: Path) -> str:
    """SVG figures as PDF, which LaTeX can place; Typst makes them where it is installed."""
    if importlib.util.find_spec("typst") is None:
        return text  # pandoc then asks for rsvg-convert
    import typst

    names = sorted(set(re.findall(r"\]\((figures/\w+\.svg)\)", text)))
    for name in (name for name in names if (FOLDER / name).exists()):
        page = scratch / f"{Path(name).stem}.typ"
        (scratch / Path(name).name).write_bytes((FOLDER / name).read_bytes())
        page.write_text(
            f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{Path(name).name}")\n', encoding="utf-8"
        )
        typst.compile(str(page), output=str(page.with_suffix(".pdf")))
        text = text.replace(f"]({name})", f"]({page.with_suffix('.pdf')}){{width=95%}}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["typst", "latex"], default="typst")
    parser.add_argument("--output", type=Path, default=PDF)
    given = parser.parse_args()
    (with_typst if given.engine == "typst" else with_latex)(given.output)
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
