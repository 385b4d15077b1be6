"""Public symbols of the core, and the chapters that walk through them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from educational.book.chapter import Book, Chapter, Fault, Wrong
from educational.book.quote import REFERENCE, find

CORE = [
    *("tokenizer", "attention", "gpt", "loss", "optim", "train", "data/packing", "checkpoint", "engine", "rollout"),
    *("evaluate", "distributed", "sharded", "sharded_checkpoint"),
]
# Walked through although no other module imports them by name.
ALSO = {
    *("attend_plainly", "attend_in_blocks", "attend_one", "Attention", "MLP", "Block", "Linear", "Head", "rms_norm"),
    *("RMSNorm", "AdamW", "Muon", "orthogonalise", "merge", "learn_merges", "count_pieces", "count_changes"),
    *("ChunkedNLL", "weighted_nll_plainly", "Packer", "Replicated", "Cut", "engine.Batch", "LanguageModel"),
    *("interpolated", "discounts", "bits_per_byte", "wilson", "rollout.reward"),
}


def public(book: Book) -> list[str]:
    """`nanochat/gpt.py::GPT` and so on: what another module imports, and what is on the list above."""
    used = imports(book.root)
    found: dict[str, None] = {}
    listed: set[str] = set()
    for path in core(book.root):
        name = path.relative_to(book.root).as_posix()
        module = name.removesuffix(".py").replace("/", ".")
        for symbol in defined(path):
            called = {symbol, f"{path.stem}.{symbol}"} & ALSO
            listed |= called
            if called or (not symbol.startswith("_") and used.get(f"{module}.{symbol}", set()) - {module}):
                found[f"{name}::{symbol}"] = None
    if book.root == Book().root and (gone := ALSO - listed):
        raise Wrong(f"educational/book/symbols.py lists what the core has not: {', '.join(sorted(gone))}")
    return list(found)


def core(root: Path) -> Iterator[Path]:
    """The files of the core."""
    for name in CORE:
        whole = root / "nanochat" / name
        yield from (
            sorted(whole.glob("*.py")) if whole.is_dir() else [p for p in [whole.with_suffix(".py")] if p.exists()]
        )


def defined(path: Path) -> list[str]:
    """Classes and functions at the top of a file, in order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def imports(root: Path) -> dict[str, set[str]]:
    """`nanochat.gpt.GPT` -> the modules that import it. A package that passes a name on passes the import on too."""
    found: dict[str, set[str]] = {}
    passed: dict[str, str] = {}
    for path in (root / "nanochat").rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    found.setdefault(f"{node.module}.{alias.name}", set()).add(module)
                    if parts[-1] == "__init__":
                        passed[f"{module}.{alias.name}"] = f"{node.module}.{alias.name}"
    for outer, inner in passed.items():
        found[inner] = found.get(inner, set()) | found.get(outer, set())
    return found


def walked(chapters: list[Chapter]) -> dict[str, list[str]]:
    """Symbol -> the chapters that walk through it."""
    found: dict[str, list[str]] = {}
    for chapter in chapters:
        for mark in chapter.marks:
            for symbol in mark.argument.split() if mark.kind == "walk" else []:
                found.setdefault(symbol, []).append(chapter.path.stem)
    return found


def faults(chapter: Chapter) -> Iterator[Fault]:
    """Walks through nothing, or through something that is not there."""
    for mark in (mark for mark in chapter.marks if mark.kind == "walk"):
        if not mark.argument:
            yield chapter.fault(mark.line, "this walk names no symbol: write walk FILE.py::Symbol ...")
        for symbol in mark.argument.split():
            reference = REFERENCE.fullmatch(symbol)
            try:
                if not reference or not reference["symbol"]:
                    raise Wrong(f"not understood: {symbol!r}; write walk FILE.py::Symbol ...")
                if not (chapter.book.root / reference["path"]).is_file():
                    raise Wrong(f"{reference['path']} is not a file of the repository")
                source = (chapter.book.root / reference["path"]).read_text(encoding="utf-8")
                find(source, reference["symbol"], reference["path"])
            except Wrong as error:
                yield chapter.fault(mark.line, str(error))


def report(book: Book) -> tuple[str, list[str]]:
    """The table that `symbols` prints, and the symbols that no chapter walks through."""
    where = walked(book.chapters())
    lines, lacking = [], []
    for symbol in public(book):
        lines.append(f"{symbol:60} {', '.join(where.get(symbol, [])) or '-'}")
        lacking += [symbol] * (symbol not in where)
    return "\n".join(lines), lacking
