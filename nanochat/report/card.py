"""What the report card shows, before it is Markdown or HTML: rows, groups and choices, as plain text."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.evaluate.figures import Figure
from nanochat.report.read import STAGES, Run, Sample, StageRecord, mapping, number
from nanochat.report.tally import Tally, core_minutes, minutes_of, parameters, reference_minutes, tally
from nanochat.report.words import (
    ABSENT,
    FIGURES,
    amount,
    beside,
    duration,
    interval_text,
    is_baseline,
    plain,
    short_amount,
    title,
    value_text,
)

LAPSES = 7  # samples of one prompt shown of each stage
SHOWN = 8  # conversations of the last stage; half as many of the others
HEADLINES = ("bpb", "bpb_recipes", "calculator_accuracy", "recipe_accuracy", "find_accuracy", "stop_rate")
# Columns of the table of sources, where the record has them.
SOURCE_FIELDS = ("name", "title", "version", "revision", "licence", "documents", "bytes", "tokens", "sha256")


@dataclass(frozen=True)
class Fact:
    """A name, its value, and a remark in small print."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class PlanRow:
    """One stage: time, steps, tokens, speed, utilisation and loss; each with what was planned as its note."""

    stage: str
    remark: str
    cells: tuple[Fact, ...]


@dataclass(frozen=True)
class Lapse:
    """What a prompt led to after a number of steps."""

    stage: str
    step: int
    text: str


def tiles(run: Run) -> list[Fact]:
    """The few figures to see first: the time, and what the finished model is like."""
    if not run.present:
        return []
    reference = reference_minutes(run)
    found = [
        Fact("Time", duration(minutes_of(run)), f"{duration(reference)} of reference" if reference is not None else "")
    ]
    for name in HEADLINES:
        figure = run.figure(name)
        if figure is not None and not (name == "bpb_recipes" and run.figure("bpb")):
            found.append(Fact(title(name), value_text(figure), interval_text(figure)))
    return found[:4]


def plan_rows(run: Run) -> list[PlanRow]:
    """The plan of every stage against what happened."""
    return [plan_row(stage) for stage in run.stages]


def plan_row(stage: StageRecord) -> PlanRow:
    """One stage of the table."""
    t = tally(stage)
    planned = [amount_planned(value) for value in (t.steps_planned, t.tokens_planned)]
    cells = (
        Fact("time", duration(t.minutes), f"planned {duration(t.minutes_planned)}" if t.minutes_planned else ""),
        Fact("steps", amount(t.steps), planned[0]),
        Fact("tokens", short_amount(t.tokens), planned[1]),
        Fact("tokens/s", amount(t.tokens_per_second)),
        Fact("mfu", f"{100 * t.mfu:.0f} %" if t.mfu is not None else ABSENT),
        loss_cell(t),
    )
    return PlanRow(
        stage.name,
        "" if stage.status == "finished" else {"unfinished": "not finished", "missing": "not run"}[stage.status],
        cells,
    )


def amount_planned(value: float | None) -> str:
    """The small print under a count."""
    return f"planned {short_amount(value)}" if value else ""


def loss_cell(t: Tally) -> Fact:
    """First to last loss; for reinforcement the reward that was reached."""
    if t.reward is not None:
        return Fact("loss", f"reward {plain(t.reward)}")
    if t.first_loss is None or t.last_loss is None:
        return Fact("loss", ABSENT)
    return Fact("loss", plain(t.last_loss), f"from {plain(t.first_loss)}")


def figure_groups(run: Run) -> dict[str, list[Figure]]:
    """Figures of models by name: those with a title of their own first, each over the stages in order."""
    models = [figure for figure in run.figures if not is_baseline(figure.name)]
    names = [*FIGURES, *sorted({figure.name for figure in models} - FIGURES.keys())]
    order = {stage: place for place, stage in enumerate(STAGES)}
    groups = {name: [figure for figure in models if figure.name == name] for name in names}
    return {
        name: sorted(found, key=lambda f: order.get(f.stage, len(order))) for name, found in groups.items() if found
    }


def baselines_of(run: Run, name: str) -> list[Figure]:
    """What to set beside the bits per byte of this name: the baselines on the same documents."""
    return [figure for figure in run.figures if beside(figure.name) == name and math.isfinite(figure.value)]


def lapses_by_prompt(run: Run) -> dict[str, list[Lapse]]:
    """prompt -> samples in the order of learning, of each stage at most LAPSES: dense at first, when most happens."""
    found: dict[str, list[Lapse]] = {}
    for stage in run.stages:
        prompts: dict[str, dict[int, Lapse]] = {}
        for row in stage.lapses:
            step = int(row["step"])
            prompts.setdefault(row["prompt"], {})[step] = Lapse(stage.name, step, row["text"])
        for prompt, lapses in prompts.items():
            found.setdefault(prompt, []).extend(sparse([lapses[step] for step in sorted(lapses)]))
    return found


def sparse(lapses: Sequence[Lapse]) -> list[Lapse]:
    """First and last, and between them places that grow by a factor."""
    if len(lapses) <= LAPSES:
        return list(lapses)
    factor = len(lapses) ** (1 / (LAPSES - 1))
    places = sorted({min(len(lapses), round(factor**power)) - 1 for power in range(LAPSES)})
    return [lapses[place] for place in places]


def samples_to_show(run: Run) -> list[tuple[str, list[Sample]]]:
    """(stage, conversations), the last stage first."""
    found = [stage for stage in reversed(run.stages) if stage.samples or stage.dialogues]
    counts = [SHOWN, *(SHOWN // 2 for _ in found)]
    return [
        (stage.name, [*stage.dialogues, *stage.samples[:count]]) for stage, count in zip(found, counts, strict=False)
    ]


def source_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """(names of columns, rows) of the text that the tokenizer stage recorded, or at least of its sources."""
    about = run.stage("tokenizer").about
    recorded = about.get("corpus") or about.get("sources")
    if isinstance(recorded, dict):
        recorded = [{"name": name, **mapping(side)} for name, side in recorded.items()]
    rows = [row if isinstance(row, dict) else {"name": row} for row in recorded] if isinstance(recorded, list) else []
    heads = [name for name in SOURCE_FIELDS if any(name in row for row in rows)]
    return [head.replace("_", " ") for head in heads], [[cell(row.get(head)) for head in heads] for row in rows]


def cell(value: Any) -> str:
    """One value of a source: counts with commas, hashes cut."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = ABSENT if value is None else str(value)
    return text[:12] + "…" if len(text) == 64 and " " not in text else text


def facts(run: Run) -> list[Fact]:
    """Machine, time, versions, seed."""
    machine, versions = mapping(run.latest("machine")), mapping(run.latest("versions"))
    reference, peak, size = reference_minutes(run), peak_memory(run), parameters(run)
    found = [
        Fact("Model", f"{amount(size)} parameters" if size else ABSENT, shape(run)),
        Fact("Machine", str(machine.get("processor") or ABSENT), about_machine(machine)),
        Fact("Time", duration(minutes_of(run)), f"{core_minutes(run):.1f} core-minutes"),
        Fact(
            "Reference minutes",
            f"{reference:.1f}" if reference is not None else ABSENT,
            "wall minutes × measured matrix-product peak / 430 GFLOP/s",
        ),
        Fact("Memory", f"{peak:.2f} GB" if peak else ABSENT, "most held at once by a process"),
        Fact("Commit", str(run.latest("commit") or "none: not from a checkout")),
        Fact("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or ABSENT),
        Fact("Seed", ABSENT if run.latest("seed") is None else str(run.latest("seed"))),
    ]
    when = last_time(run)
    return found + ([Fact("Finished", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)))] if when else [])


def shape(run: Run) -> str:
    """The model's sizes, as far as the plan tells them."""
    model = mapping(run.stage("pretrain").plan.get("model"))
    named = {
        "n_layer": "layers",
        "n_embd": "features",
        "n_head": "heads",
        "context": "tokens of context",
        "vocab_size": "tokens of vocabulary",
    }
    return ", ".join(
        f"{value:,.0f} {words}" for key, words in named.items() if (value := number(model, key)) is not None
    )


def about_machine(machine: dict[str, Any]) -> str:
    """Cores, threads and number format."""
    parts = [machine.get("system"), machine.get("instructions"), machine.get("dtype")]
    threads, cores, world = (number(machine, key) for key in ("threads", "cores", "world"))
    counts = [f"{cores:.0f} cores" if cores else "", f"{threads:.0f} threads" if threads else ""]
    counts.append(f"{world:.0f} processes" if world and world > 1 else "")
    return ", ".join(str(part) for part in (*counts, *parts) if part)


def peak_memory(run: Run) -> float | None:
    """The most memory that any stage held, in GB."""
    found = [peak for stage in run.stages if (peak := number(stage.about, "peak_memory_gb")) is not None]
    return max(found, default=None)


def last_time(run: Run) -> float | None:
    """When the run did anything last, in seconds of Unix time."""
    times = [number(stage.about, "time") or 0.0 for stage in run.stages]
    times += [value for stage in run.stages for _, value in stage.series("time")]
    # Years that a calendar has: a damaged number must not stop the report.
    return max((value for value in times if 0 < value < 1e11), default=None)
