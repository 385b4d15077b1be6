"""The tokenizer stage: bring the text, set a twentieth aside, learn a vocabulary, write the corpus as tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nanochat.config import parse
from nanochat.data import (
    SOURCES,
    Document,
    attribution,
    documents,
    find_source,
    fingerprint,
    is_current,
    open_store,
    split_documents,
    write_store,
)
from nanochat.distributed import Parallel
from nanochat.errors import DataError, TokenizerError
from nanochat.files import sweep
from nanochat.keyed import rng
from nanochat.runtime import available_cores, home
from nanochat.stages.presets import presets_of
from nanochat.stages.progress import Ticks
from nanochat.stages.records import read_stage
from nanochat.stages.stage import Stage, open_stage
from nanochat.tokenizer import BulkEncoder, Tokenizer, train_tokenizer


@dataclass(frozen=True)
class TokenizerConfig:
    """Learn a vocabulary from the training text, and write the corpus as tokens."""

    AT_LEAST_ONE: ClassVar = ("vocab_size",)

    run: str = ""
    """the run's name; by default the preset's"""
    preset: str = "laptop"
    """fills the fields below; a flag beside it wins"""
    sources: tuple[str, ...] = ("cookbook", "wikipedia")
    """names of sources (see `nanochat data list`), or paths of .txt, .jsonl and .parquet files or folders"""
    vocab_size: int = 4096
    """tokens of the vocabulary: 256 bytes, merges, and the special tokens of the chat format"""
    training_bytes: int = 10_000_000
    """how much text to learn merges from, drawn by document; 0: all"""
    parallel: Parallel = "zero"
    """for the record: one process learns, the others wait for it"""
    timeout: int = 600
    """seconds without a sign of another process, after which it counts as lost"""
    seed: int = 0
    """of the draw"""
    device: str = "auto"
    """for the record: merges are counted on the processor"""
    dtype: str = "auto"
    """for the record"""
    deterministic: bool = False
    """this stage always is"""


def main(argv: Sequence[str]) -> int:
    """The verb `tokenizer`."""
    return prepare(parse(TokenizerConfig, argv, prog="nanochat tokenizer", presets=presets_of("tokenizer", argv)))


def prepare(config: TokenizerConfig) -> int:
    """Run the stage; 0 when it is done."""
    sides = read_sides(config.sources)
    stamps = {name: fingerprint(docs) for name, docs in sides.items()}
    with open_stage("tokenizer", config, parents=[], inputs=stamps, whole=is_whole) as stage:
        if stage is None:
            return 0
        training = [doc for name, docs in sides.items() if name.endswith(".train") for doc in docs]
        if not training:
            raise DataError("documents to train on", f"none in {', '.join(config.sources)}", "add some with --sources")
        tokenizer = learn(stage, drawn(training, config.training_bytes, config.seed), config.vocab_size)
        encoder = BulkEncoder(tokenizer)
        tokens = {name: encode(stage, encoder, name, docs, stamps[name]) for name, docs in sides.items()}
        stage.ranks.wait(patiently=True)
        corpus = {name: tally(docs, tokens[name]) for name, docs in sides.items()}
        for name, counts in corpus.items():
            of = "{documents:,} documents, {bytes:,} bytes, {tokens:,} tokens".format(**counts)
            stage.say(f"{name}: {of}, {counts['bytes'] / max(1, counts['tokens']):.2f} bytes each")
        stage.finish(
            tokenizer=tokenizer.fingerprint,
            # From any folder a later stage finds them again.
            sources=[name if name in SOURCES else str(Path(name).expanduser().resolve()) for name in config.sources],
            attribution=attribution(config.sources),
            corpus=corpus,
        )
    return 0


def read_sides(sources: Sequence[str]) -> dict[str, list[Document]]:
    """Documents by `SOURCE.train` and `SOURCE.held`."""
    sides: dict[str, list[Document]] = {}
    for source in sources:
        name = find_source(source).name
        if f"{name}.train" in sides:
            remedy = "rename a file, or put both into a folder"
            raise DataError("sources of different names", f"two called {name}", remedy)
        sides[f"{name}.train"], sides[f"{name}.held"] = split_documents(documents(source, home()))
    return sides


def tally(docs: Sequence[Document], tokens: int) -> dict[str, int]:
    """How much one side of a source holds."""
    return {"documents": len(docs), "bytes": sum(len(doc.text.encode()) for doc in docs), "tokens": tokens}


def drawn(training: Sequence[Document], most: int, seed: int) -> list[str]:
    """Texts of documents in a keyed order, up to `most` bytes; all where `most` is 0."""
    order = list(training)
    if most:
        rng(seed, "tokenizer", "documents").shuffle(order)
    texts, held = [], 0
    for document in order:
        if most and held >= most:
            break
        texts.append(document.text)
        held += len(document.text.encode())
    return texts


def is_whole(folder: Path) -> bool:
    """Whether the tokenizer in a run's folder, and the tokens that it made, are those on record."""
    done = read_stage(folder.parent, "tokenizer")
    try:
        learned = Tokenizer.load(folder).fingerprint
        for name in done["corpus"]:
            open_store(folder.parent / "tokens" / f"{name}.npy", tokenizer=learned)
    except (TokenizerError, DataError):
        return False
    return bool(learned == done["tokenizer"])


def learn(stage: Stage, texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """The tokenizer, trained by the main process and read by the others; or the one of a stage that was stopped."""
    learned = before = None
    if stage.runtime.is_main:
        with stage.breaking(), Ticks(stage.console, "merges") as ticks:
            before = learned_before(stage)
            learned = before or train_tokenizer(
                counted(stage, texts), vocab_size, progress=ticks.show, workers=available_cores()
            )
    stage.ranks.wait(patiently=True)
    stage.claim()
    if learned:
        learned.save(stage.folder)
        if before is None:  # else what was begun with it goes on
            sweep(stage.run / "tokens")
    stage.ranks.wait()
    return Tokenizer.load(stage.folder)


def learned_before(stage: Stage) -> Tokenizer | None:
    """The tokenizer that this stage had learned from the same inputs, before it was stopped or its tokens damaged."""
    if not stage.began_before:
        return None
    try:
        found = Tokenizer.load(stage.folder)
    except TokenizerError:
        return None
    done = read_stage(stage.run, "tokenizer")
    return found if found.fingerprint == done.get("tokenizer", found.fingerprint) else None


def counted(stage: Stage, texts: Sequence[str]) -> Iterator[str]:
    """The texts, one after the other, with a bar that tells how many were taken."""
    with Ticks(stage.console, "count") as ticks:
        for number, text in enumerate(texts, 1):
            yield text
            if number % 100 == 0:
                ticks.show(number, len(texts))


def encode(stage: Stage, encoder: BulkEncoder, name: str, docs: Sequence[Document], stamp: str) -> int:
    """Write the tokens of one side of a source, unless that was done before; how many there are.

    What was interrupted goes on after the last part that is safe on disk.
    """
    if not stage.runtime.is_main:
        return 0
    path = stage.run / "tokens" / f"{name}.npy"
    with stage.breaking(), Ticks(stage.console, f"encode {name}") as ticks:
        if is_current(path, encoder.fingerprint, stamp):
            return int(open_store(path, verify=False).record.tokens)
        return int(write_store(path, docs, encoder, ticks.show).record.tokens)
