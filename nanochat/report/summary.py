"""The paragraph that says in plain words how a run went."""

import math

from nanochat.report.read import Run, mapping, number
from nanochat.report.tally import minutes_of, parameters, reference_minutes, tally
from nanochat.report.words import (
    amount,
    article,
    baseline_title,
    beside,
    duration,
    interval_text,
    joined,
    spoken,
    value_text,
)


def summary(run: Run) -> list[str]:
    """How the run went, in sentences."""
    measured = [sentence for sentence in (text_sentence(run), skill_sentence(run)) if sentence]
    note = ["Ranges in brackets are 95 % intervals."] if any("(" in sentence for sentence in measured) else []
    return [effort(run), *measured, *note, *([state] if (state := state_sentence(run)) else [])]


def effort(run: Run) -> str:
    """What was made, from how much, where, in how much time."""
    if not run.present:
        return "Nothing has been run in this folder yet."
    machine, size = mapping(run.latest("machine")), parameters(run)
    model = f"a model of {amount(size)} parameters" if size else "the model"
    where = machine.get("processor") if machine.get("device") in ("cpu", None) else machine.get("device")
    threads = number(machine, "threads")
    place = f" on {threads:.0f} thread{'s' * (threads > 1)} of {article(str(where))}" if threads and where else ""
    reference = reference_minutes(run)
    rated = f" ({duration(reference)} on the reference machine)" if reference is not None else ""
    reading = tally(run.stage("pretrain")).tokens
    read = f" read {amount(reading)} tokens of text" if reading else " has read no text yet"
    talking = sum(tally(stage).tokens or 0 for stage in run.stages if stage.name in ("midtrain", "sft", "rl"))
    talked = f", and then {amount(talking)} of conversations" if talking else ""
    return f"In {spoken(minutes_of(run))} of training{place}{rated}, {model}{read}{talked}."


def text_sentence(run: Run) -> str:
    """How well it foretells text, beside what foretells without learning."""
    names = ("bpb", "bpb_recipes", "bpb_wiki")
    figure = next((found for name in names if (found := run.figure(name, "pretrain"))), None)
    if figure is None:
        return ""
    kind = {"bpb_recipes": "recipes", "bpb_wiki": "articles"}.get(figure.name, "documents")
    sentence = f"After pretraining it needs {value_text(figure)} bits for each byte of {kind} that it has never seen"
    if figure.has_interval:
        sentence += f" ({interval_text(figure)})"
    bars = [f for f in run.figures if beside(f.name) == figure.name and math.isfinite(f.value)]
    others = [f"{named(baseline_title(f.name))} {value_text(f)}" for f in bars]
    if not others:
        return sentence + "."
    return f"{sentence}; given the same training text, {joined(others)}."


def named(baseline: str) -> str:
    """`xz needs`, `a trigram needs`"""
    return f"{baseline} needs" if baseline == "xz" else f"{article(baseline)} needs"


def skill_sentence(run: Run) -> str:
    """What the last evaluated model can do."""
    names = {
        "calculator_accuracy": "of sums",
        "recipe_accuracy": "of questions about recipes that it has to look up",
        "choice_accuracy": "of multiple-choice questions",
    }
    found = {name: f for name in names if (f := run.figure(name)) and f.unit == "share"}
    if not found:
        return ""
    last = next(iter(found.values())).stage
    told = {name: figure for name, figure in found.items() if figure.stage == last}
    parts = [f"{value_text(f)} {names[name]} ({interval_text(f)} of {f.n:,})" for name, f in told.items()]
    return f"After {last} it answers correctly {joined(parts)}."


def state_sentence(run: Run) -> str:
    """Which stages are done."""
    open_stages = [stage.name for stage in run.stages if stage.status == "unfinished"]
    missing = [stage.name for stage in run.stages if stage.status == "missing"]
    if not run.present:
        return ""
    if not open_stages and not missing:
        return "Every stage is finished."
    unfinished = f"Not finished: {joined(open_stages)}." if open_stages else ""
    return " ".join(part for part in (unfinished, f"Not run: {joined(missing)}." if missing else "") if part)
