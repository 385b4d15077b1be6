"""`nanochat eval`: a stage's figures on held-out text and questions, with intervals, and answers to read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from nanochat.checkpoint import find_run, load_model, write_atomically
from nanochat.config import dumps, parse, to_json
from nanochat.data import Document, open_store, recipes
from nanochat.engine import Engine
from nanochat.errors import CheckpointError
from nanochat.evaluate.bits import encode_held, score_held
from nanochat.evaluate.compression import xz_bits_per_byte
from nanochat.evaluate.figures import Figure, load_figures, save_figures
from nanochat.evaluate.graded import Graded
from nanochat.evaluate.kitchen import kitchen_figures
from nanochat.evaluate.ngram import train_ngram
from nanochat.runtime import detect, home
from nanochat.stages.presets import PRESETS
from nanochat.stages.progress import Ticks
from nanochat.stages.stage import read_stage
from nanochat.stages.tokenizer import read_sides
from nanochat.tasks import catalogue, limit_for, tools_for
from nanochat.tokenizer import Tokenizer

# What the report calls the bits per byte of the two sources of the default corpus.
BPB_NAMES = {"cookbook": "bpb_recipes", "wikipedia": "bpb_wiki"}


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a stage on held-out text and questions."""

    run: str = ""
    """NAME or NAME:STAGE; by default the preset's run and its last stage"""
    preset: str = "laptop"
    """fills the fields below; a flag beside it wins"""
    stage: Literal["", "pretrain", "midtrain", "sft", "rl"] = ""
    """the stage, where --run does not name it"""
    questions: int = 200
    """held-out questions of each kind"""
    documents: int = 0
    """held-out documents of each source; 0: all"""
    conversations: int = 12
    """answers kept for reading"""
    seed: int = 0
    """of the questions"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """of products: auto, bfloat16, float32 or float64"""
    json: bool = False
    """one JSON object on standard output, and nothing else"""


def main(argv: Sequence[str]) -> int:
    """The verb `eval`."""
    presets = {preset: fields.get("eval", {}) for preset, fields in PRESETS.items()}
    config = parse(EvaluateConfig, argv, prog="nanochat eval", presets=presets)
    figures = evaluate(config)
    if config.json:
        print(dumps({"figures": figures}), end="")
    return 0


def evaluate(config: EvaluateConfig) -> list[Figure]:
    """The figures of a stage: measured, or read again where neither the model nor the questions have changed."""
    selector = config.run if ":" in config.run or not config.stage else f"{config.run or config.preset}:{config.stage}"
    folder = find_run(selector, config.preset)
    runtime = detect(config.device, config.dtype)
    model, tokenizer, state = load_model(folder, runtime)
    stamp = to_json(config) | {"weights": state["files"]["model.safetensors"]}
    console = Console(stderr=True)
    if measured_before(folder, stamp):
        figures = load_figures(folder / "figures.json")
    else:
        # Every process measures the same; the main one writes. One in N would be N times quicker: that is issue 6.
        figures = bits(folder, config, model, tokenizer, runtime, console) + baselines(folder, tokenizer, config)
        if folder.name != "pretrain":
            kitchen = recipes(home())
            engine = Engine(model, tokenizer, runtime, tools_for(kitchen, limit_for(model.config.context)))
            with Ticks(console, "questions") as ticks:
                asked = kitchen_figures(
                    engine, catalogue(kitchen, limit_for(model.config.context)), kitchen, config.questions,
                    stage=folder.name, seed=config.seed, progress=ticks.show,
                )  # fmt: skip
            figures += asked.figures
            if runtime.is_main:
                write_atomically(folder / "conversations.json", dumps(chosen(asked.answers, config.conversations)))
        if runtime.is_main:
            save_figures(folder / "figures.json", figures)
            write_atomically(folder / "evaluated.json", dumps(stamp))
    if runtime.is_main and not config.json:
        show(console, figures)
    return figures


def measured_before(folder: Path, stamp: dict[str, Any]) -> bool:
    """Whether the figures in `folder` are those of these weights and questions."""
    try:
        before = json.loads((folder / "evaluated.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(before == json.loads(json.dumps(stamp))) and (folder / "figures.json").exists()


def held_out_sides(run: Path) -> dict[str, list[Document]]:
    """Held-out documents by source."""
    done = read_stage(run, "tokenizer")
    if not done:
        raise CheckpointError(
            f"a finished tokenizer stage in {run}", "none", "run it first: python -m nanochat tokenizer"
        )
    return {
        name.removesuffix(".held"): docs for name, docs in read_sides(done["sources"]).items() if name.endswith(".held")
    }


def bits(
    folder: Path, config: EvaluateConfig, model: Any, tokenizer: Tokenizer, runtime: Any, console: Console
) -> list[Figure]:
    """Bits per byte of each source's held-out documents."""
    figures = []
    for source, docs in held_out_sides(folder.parent).items():
        if docs:
            held = encode_held(tokenizer, [doc.text for doc in docs], config.documents or None, config.seed)
            with Ticks(console, f"bits per byte, {source}") as ticks:
                name = BPB_NAMES.get(source, f"bpb_{source}")
                figures.append(score_held(model, held, runtime, stage=folder.name, name=name, progress=ticks.show))
    return figures


def baselines(folder: Path, tokenizer: Tokenizer, config: EvaluateConfig) -> list[Figure]:
    """What xz and a Kneser-Ney trigram make of the same documents: computed once a run, beside the base model's."""
    if folder.name != "pretrain":
        return []
    stamp, kept = read_stage(folder.parent, "tokenizer")["fingerprint"], folder.parent / "tokenizer" / "baselines.json"
    if (
        kept.exists()
        and (saved := json.loads(kept.read_text()))["tokenizer"] == stamp
        and saved["documents"] == config.documents
    ):
        return [Figure(**figure) for figure in saved["figures"]]
    figures = []
    done = read_stage(folder.parent, "tokenizer")
    sides = read_sides(done["sources"])
    stores = [
        open_store(folder.parent / "tokens" / f"{name}.npy", verify=False) for name in sides if name.endswith(".train")
    ]
    bos = tokenizer.special("<|bos|>")
    trigram = train_ngram([store[i].tolist() for store in stores for i in range(len(store))], tokenizer.vocab_size, bos)
    everything = [doc.text for name, docs in sides.items() if name.endswith(".train") for doc in docs]
    for name, docs in sides.items():
        source, _, side = name.rpartition(".")
        if side == "held" and docs:
            texts = [doc.text for doc in docs]
            label = BPB_NAMES.get(source, f"bpb_{source}")
            held = encode_held(tokenizer, texts, config.documents or None, config.seed)
            figures.append(trigram.bits_per_byte(held, stage="pretrain", name=f"{label}_trigram"))
            figures.append(xz_bits_per_byte(everything, texts, stage="pretrain", name=f"{label}_xz"))
    write_atomically(kept, dumps({"tokenizer": stamp, "documents": config.documents, "figures": figures}))
    return figures


def chosen(answers: Sequence[Graded], count: int) -> list[dict[str, Any]]:
    """Some answers from all over the list, to be read."""
    every = max(1, len(answers) // max(1, count))
    return [answer.as_sample() for answer in answers[::every][:count]]


def show(console: Console, figures: Sequence[Figure]) -> None:
    """The figures as a table."""
    table = Table(box=None, padding=(0, 2))
    for heading in ("figure", "value", "95 % interval", "n"):
        table.add_column(
            heading, justify="left" if heading == "figure" else "right", style="dim" if heading == "n" else ""
        )
    for figure in figures:
        value, low, high = (written(x, figure.unit) for x in (figure.value, figure.low, figure.high))
        table.add_row(figure.name, value, f"{low} to {high}" if figure.has_interval else "", str(figure.n))
    console.print(table)


def written(value: float, unit: str) -> str:
    """A figure's value as it is read: shares in per cent."""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3f}"
