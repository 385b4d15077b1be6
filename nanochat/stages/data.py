"""`nanochat data`: which sources there are, bring them here, look inside."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from nanochat.data.readers import Document
from nanochat.data.recipes import parse_recipes
from nanochat.data.sources import COOKBOOK, SOURCES, Source, documents, fetch, find_source, read_content
from nanochat.data.split import family, held_out, split_documents
from nanochat.errors import DataError
from nanochat.runtime import home


@dataclass(frozen=True)
class ListConfig:
    """The sources that are built in, and whether they are here already."""

    json: bool = False
    """print one JSON object and nothing else"""


@dataclass(frozen=True)
class FetchConfig:
    """Bring sources to ROOT/sources and verify them. ROOT is $NANOCHAT_HOME, else ~/.cache/nanochat."""

    names: tyro.conf.Positional[tuple[str, ...]] = tuple(SOURCES)
    """sources to bring; all of them by default"""
    json: bool = False
    """print one JSON object and nothing else"""


@dataclass(frozen=True)
class ShowConfig:
    """What a source holds, and one of its documents as a model reads it."""

    source: tyro.conf.Positional[str]
    """a source's name, or a path to a .txt, .jsonl or .parquet file or to a folder of them"""
    title: tyro.conf.Positional[str] = ""
    """the document to show; by default the first"""
    json: bool = False
    """print one JSON object and nothing else"""


Config = (
    Annotated[ListConfig, tyro.conf.subcommand("list")]
    | Annotated[FetchConfig, tyro.conf.subcommand("fetch")]
    | Annotated[ShowConfig, tyro.conf.subcommand("show")]
)


def main(argv: Sequence[str]) -> int:
    """The verb `data`; 0 when done. Raises DataError for what cannot be found, fetched or read."""
    config: ListConfig | FetchConfig | ShowConfig = tyro.cli(
        Config,
        args=list(argv),
        prog="nanochat data",
        description="The text that models learn from.",
    )
    if isinstance(config, ListConfig):
        return list_sources(config)
    return fetch_sources(config) if isinstance(config, FetchConfig) else show_source(config)


def list_sources(config: ListConfig) -> int:
    """Print the built-in sources."""
    rows = [described(source) for source in SOURCES.values()]
    if config.json:
        return print_json({"home": str(home()), "sources": rows})
    table = Table("source", "download", "here", "what", "licence")
    for row in rows:
        here = "yes" if row["here"] else "no"
        table.add_row(
            row["name"], f"{row['bytes'] / 1e6:.1f} MB", here, row["description"], row["licence"].split(" (")[0]
        )
    Console().print(table)
    return 0


def described(source: Source) -> dict[str, Any]:
    """A source as JSON: its manifest, and whether its file is here."""
    return {
        "name": source.name,
        "kind": source.kind,
        "location": source.location,
        "revision": source.revision,
        "bytes": source.size,
        "sha256": source.sha256,
        "description": source.description,
        "licence": source.licence,
        "attribution": source.attribution,
        "here": source.kind == "path" or (home() / "sources" / source.file).exists(),
    }


def fetch_sources(config: FetchConfig) -> int:
    """Bring each source, and print where it is."""
    console = Console(stderr=True)
    paths = {}
    for source in [find_source(name) for name in config.names]:
        with console.status(f"fetching {source.name} ({source.size / 1e6:.1f} MB)"):
            paths[source.name] = str(fetch(source, say=lambda message: console.print(message, markup=False)))
    if config.json:
        return print_json({"fetched": paths})
    for name, path in paths.items():
        print(f"{name}: {path}")
    return 0


def show_source(config: ShowConfig) -> int:
    """Print what a source holds, and one document."""
    source = find_source(config.source)
    found = documents(source)
    training, held = split_documents(found)
    chosen = find_document(found, config.title) if config.title else found[0]
    facts = described(source) | {
        "documents": len(found),
        "training": len(training),
        "held_out": len(held),
        "characters": sum(len(document.text) for document in found),
    }
    if source == COOKBOOK:
        facts["dropped"] = parse_recipes(read_content(source))[1]
    if config.json:
        return print_json(
            facts | {"title": chosen.title, "title_held_out": held_out(chosen.title), "text": chosen.text}
        )
    size = f"{facts['characters'] / 1e6:.2f} million characters"
    print(f"{source.name}: {source.description}; licence: {source.licence}")
    print(f"{len(found)} documents, {size}; {len(training)} to train on, {len(held)} held out")
    for reason, count in facts.get("dropped", {}).items():
        print(f"left out: {count} ({reason})")
    print(f"\n{chosen.text}")
    return 0


def find_document(found: Sequence[Document], title: str) -> Document:
    """The document of that title, or else the first whose title says the same in other words."""
    exact = (document for document in found if document.title.casefold() == title.casefold())
    alike = (document for document in found if family(document.title) == family(title))
    chosen = next(exact, None) or next(alike, None)
    if chosen is None:
        raise DataError("the title of a document", f"{title!r}, which none has")
    return chosen


def print_json(value: dict[str, Any]) -> int:
    """Print one JSON object; 0."""
    print(json.dumps(value, ensure_ascii=False, indent=2))
    return 0
