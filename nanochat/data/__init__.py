"""Text from a source to rows of tokens: sources, readers, recipes, the held-out split, stores on disk, packing."""

from nanochat.data.packing import Row, rows, shares
from nanochat.data.quantities import Quantity, format_amount, quantity, scaled
from nanochat.data.readers import Document
from nanochat.data.recipes import Recipe, duration_text, recipe_text
from nanochat.data.shards import TokenStore, fingerprint, is_current, open_store, write_store
from nanochat.data.sources import SOURCES, Source, attribution, documents, fetch, find_source, recipes
from nanochat.data.split import held_out, split_documents

__all__ = [
    "SOURCES",
    "Document",
    "Quantity",
    "Recipe",
    "Row",
    "Source",
    "TokenStore",
    "attribution",
    "documents",
    "duration_text",
    "fetch",
    "find_source",
    "fingerprint",
    "format_amount",
    "held_out",
    "is_current",
    "open_store",
    "quantity",
    "recipe_text",
    "recipes",
    "rows",
    "scaled",
    "shares",
    "split_documents",
    "write_store",
]
