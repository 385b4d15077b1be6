"""`nanochat eval`: a stage's figures on held-out text and questions, with intervals, and answers to read."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.console import Console
from rich.table import Table

from nanochat.checkpoint import find_run, load_model
from nanochat.config import dumps, parse
from nanochat.data import open_store, recipes
from nanochat.distributed import PATIENCE, gathered, joined
from nanochat.engine import Engine
from nanochat.errors import CheckpointError
from nanochat.evaluate.bits import UNIT, Held, document_nats, encode_held, sample
from nanochat.evaluate.compression import xz_figures
from nanochat.evaluate.dialogue import as_samples, converse_all, read_scripts
from nanochat.evaluate.figures import Figure, load_figures, ratio, save_figures
from nanochat.evaluate.graded import Graded
from nanochat.evaluate.kitchen import invented_figures, kitchen_figures
from nanochat.evaluate.ngram import train_ngram
from nanochat.files import write_atomically
from nanochat.gpt import GPT
from nanochat.keyed import key
from nanochat.runtime import Runtime, detect, home
from nanochat.stages.presets import presets_of
from nanochat.stages.progress import Ticks
from nanochat.stages.records import read_json, read_stage
from nanochat.stages.tokenizer import read_sides
from nanochat.tasks import catalogue, limit_for, tools_for
from nanochat.tokenizer import Tokenizer
from nanochat.train import Ranks

# What the report calls the bits per byte of the two sources of the default corpus.
BPB_NAMES = {"cookbook": "bpb_recipes", "wikipedia": "bpb_wiki"}


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a stage on held-out text and questions."""

    AT_LEAST_ONE: ClassVar = ("questions",)

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
    prompts: str = ""
    """a .jsonl file of conversations to have and to print in the report: {"id", "turns"} a line"""
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
    config = parse(EvaluateConfig, argv, prog="nanochat eval", presets=presets_of("eval", argv))
    figures = evaluate(config)
    if config.json and detect(config.device, config.dtype).is_main:
        print(dumps({"figures": figures}), end="")
    return 0


def evaluate(config: EvaluateConfig) -> list[Figure]:
    """The figures of a stage: measured, or read again where neither the model nor the questions have changed."""
    selector = config.run if ":" in config.run or not config.stage else f"{config.run or config.preset}:{config.stage}"
    folder = find_run(selector, config.preset)
    runtime = detect(config.device, config.dtype)
    console = Console(stderr=True, quiet=not runtime.is_main)
    with joined(runtime, timeout=round(PATIENCE.total_seconds())) as ranks:
        model, tokenizer, state = load_model(folder, runtime)
        decides = {
            name: getattr(config, name)
            for name in ("questions", "documents", "conversations", "prompts", "seed", "dtype")
        }
        files = state["files"]
        stamp = decides | {"weights": files.get("model.safetensors", files)}
        # Asked once for all: the main process may be writing it anew before the others have looked.
        if gathered(measured_before(folder, stamp), runtime)[0]:
            figures = load_figures(folder / "figures.json")
        else:
            figures = measured(config, folder, Engine(model, tokenizer, runtime), ranks, console)
            if runtime.is_main:
                save_figures(folder / "figures.json", figures)
                write_atomically(folder / "evaluated.json", dumps(stamp))
        ranks.wait()
    if not config.json:
        show(console, figures)
    return figures


def measured(config: EvaluateConfig, folder: Path, engine: Engine, ranks: Ranks, console: Console) -> list[Figure]:
    """Every figure of a stage, all processes sharing the examples out; samples are left in the stage's folder."""
    model, tokenizer, runtime = engine.model, engine.tokenizer, engine.runtime
    assert isinstance(model, GPT)
    texts = held_out(folder.parent, config)
    sets = {name: encode_held(tokenizer, some) for name, some in texts.items()}
    figures = bits(model, sets, folder.name, runtime, console)
    if folder.name == "pretrain" and texts:
        counted = baselines(folder.parent, tokenizer, texts, sets) if runtime.is_main else []
        ranks.wait(patiently=True)
        figures += gathered(counted, runtime)[0]
    if folder.name == "pretrain" and "bpb_recipes" in texts:
        with Ticks(console, "inventions") as ticks:
            figures += invented_figures(
                engine, recipes(home()), config.questions, stage=folder.name, seed=config.seed, progress=ticks.show
            )
    if folder.name != "pretrain":
        kitchen = recipes(home())
        engine = Engine(model, tokenizer, runtime, tools_for(kitchen, limit_for(model.config.context)))
        with Ticks(console, "questions") as ticks:
            asked = kitchen_figures(
                engine, catalogue(kitchen, limit_for(model.config.context)), kitchen, config.questions,
                stage=folder.name, seed=config.seed, progress=ticks.show,
            )  # fmt: skip
        figures += asked.figures
        scripts = read_scripts(Path(config.prompts)) if config.prompts else []
        talks = converse_all(engine, scripts)
        if runtime.is_main:
            write_atomically(folder / "conversations.json", dumps(chosen(asked.answers, config.conversations)))
        if runtime.is_main and config.prompts:
            write_atomically(folder / "dialogues.json", dumps(as_samples(scripts, talks)))
    return figures


def measured_before(folder: Path, stamp: dict[str, Any]) -> bool:
    """Whether the figures in `folder` are those of these weights and questions."""
    try:
        before = json.loads((folder / "evaluated.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(before == json.loads(json.dumps(stamp))) and (folder / "figures.json").exists()


def held_out(run: Path, config: EvaluateConfig) -> dict[str, list[str]]:
    """Held-out texts by the name of their figure: those of each source, and all together where there are several."""
    done = read_stage(run, "tokenizer")
    if not done:
        remedy = "run it first: python -m nanochat tokenizer"
        raise CheckpointError(f"a finished tokenizer stage in {run}", "none", remedy)
    sets = {}
    for side, docs in read_sides(done["sources"]).items():
        source, _, kind = side.rpartition(".")
        texts = [doc.text for doc in docs if doc.text]
        if kind == "held" and texts:
            drawn = sample(len(texts), config.documents or None, config.seed)
            sets[BPB_NAMES.get(source, f"bpb_{source}")] = [texts[index] for index in drawn]
    return sets if len(sets) < 2 else sets | {"bpb": [text for texts in sets.values() for text in texts]}


def bits(model: GPT, sets: dict[str, Held], stage: str, runtime: Runtime, console: Console) -> list[Figure]:
    """Bits per byte of each set of held-out documents; "bpb" is all of the others together, and read once."""
    nats: dict[str, list[float]] = {}
    for name, held in sets.items():
        if name != "bpb":
            with Ticks(console, name) as ticks:
                nats[name] = document_nats(model, held, runtime, progress=ticks.show).tolist()
    together = {"bpb": [one for of_source in nats.values() for one in of_source]}
    return [
        ratio(stage, name, [one / math.log(2) for one in (nats | together)[name]], held.num_bytes, UNIT)
        for name, held in sets.items()
    ]


def baselines(run: Path, tokenizer: Tokenizer, texts: dict[str, list[str]], sets: dict[str, Held]) -> list[Figure]:
    """What xz and Kneser-Ney n-grams make of the same documents: measured once a run, kept with its tokenizer."""
    kept, done = run / "tokenizer" / "baselines.json", read_stage(run, "tokenizer")
    stamp = [done["fingerprint"], {name: key(*some) for name, some in texts.items()}]
    saved = read_json(kept) or {}
    if saved.get("stamp") == stamp:
        return [Figure(**figure) for figure in saved["figures"]]
    training = {name: docs for name, docs in read_sides(done["sources"]).items() if name.endswith(".train")}
    stores = [open_store(run / "tokens" / f"{name}.npy", verify=False) for name in training]
    documents = [store[i].tolist() for store in stores for i in range(len(store))]
    figures = []
    for order, called in ((3, "trigram"), (5, "5gram")):
        ngram = train_ngram(documents, tokenizer.vocab_size, tokenizer.special("<|bos|>"), order)
        figures += [ngram.bits_per_byte(held, name=f"{name}_{called}") for name, held in sets.items()]
    everything = [doc.text for docs in training.values() for doc in docs]
    figures += xz_figures(everything, {f"{name}_xz": some for name, some in texts.items()})
    write_atomically(kept, dumps({"stamp": stamp, "figures": figures}))
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
