"""The report as Markdown: the same card for a terminal, a repository or a mail. What models wrote stands in fences."""

import html
import re
from collections.abc import Iterable, Sequence

from nanochat.report.card import (
    Fact,
    baselines_of,
    facts,
    figure_groups,
    lapses_by_prompt,
    plan_rows,
    samples_to_show,
    source_rows,
)
from nanochat.report.plots import sparkline
from nanochat.report.read import Run, Sample
from nanochat.report.summary import summary
from nanochat.report.words import baseline_title, interval_text, is_baseline, title, value_text, visible
from nanochat.tokenizer import Call, Message, Output

# All that Markdown reads as something else than itself inside a line; a backslash takes that away.
MARKS = re.compile(r"([\\`*_{}\[\]#!|~$])")


def markdown(run: Run) -> str:
    """The whole report."""
    sections = [
        ("The plan, and what happened", plan_section(run)),
        ("How it learned", learning_section(run)),
        ("What it can do", figures_section(run)),
        ("One prompt, as it learned", lapse_section(run)),
        ("Conversations", talk_section(run)),
        ("What it read", data_section(run)),
        ("How it was made", facts_section(facts(run))),
    ]
    problems = "".join(f"- {inline(problem)}\n" for problem in run.problems)
    warning = f"**To bear in mind:**\n\n{problems}\n" if problems else ""
    head = f"# {inline(run.name)}: report card\n\n{inline(' '.join(summary(run)))}\n\n{warning}"
    return head + "\n".join(f"## {heading}\n\n{content.strip()}\n" for heading, content in sections)


def inline(text: object) -> str:
    """A text in a line or a table's cell: nothing in it is markup, and it stays one line."""
    flat = " ".join(visible(text).split())
    return MARKS.sub(r"\\\1", html.escape(flat, quote=False))


def fenced(text: str) -> str:
    """A text as a block of its own, behind a fence longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text)}\n{fence}\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells must be inline already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def plan_section(run: Run) -> str:
    """Planned and actual, a row a stage."""
    rows = []
    for row in plan_rows(run):
        cells = [inline(c.value) + (f" ({inline(c.note)})" if c.note else "") for c in row.cells]
        rows.append([row.stage + (f" ({row.remark})" if row.remark else ""), *cells])
    return table(["stage", "time", "steps", "tokens", "tokens/s", "MFU", "loss"], rows)


def learning_section(run: Run) -> str:
    """Each curve as a line of blocks; report.html has the plots."""
    lines = []
    for stage in run.stages:
        for name in ("loss", "reward", "val_bpb"):
            if len(values := [value for _, value in stage.series(name)]) > 1:
                lines.append(f"{stage.name:<9} {name:<8} {values[0]:7.3f} {sparkline(values)} {values[-1]:.3f}")
    return fenced("\n".join(lines)) if lines else "No stage has recorded a curve yet."


def figures_section(run: Run) -> str:
    """Every figure by stage."""
    rows = []
    for name, found in figure_groups(run).items():
        for figure in [*found, *baselines_of(run, name)]:
            who = baseline_title(figure.name) if is_baseline(figure.name) else figure.stage
            rows.append(
                [inline(x) for x in (title(name), who, value_text(figure), interval_text(figure), f"{figure.n:,}")]
            )
    return table(["figure", "stage", "value", "95 % interval", "n"], rows) if rows else "Nothing has been measured yet."


def lapse_section(run: Run) -> str:
    """What the same prompt led to at each step."""
    blocks = []
    for prompt, lapses in lapses_by_prompt(run).items():
        blocks.append(f"### {inline(prompt)}\n")
        blocks += [f"{lapse.stage}, step {lapse.step:,}\n\n{fenced(lapse.text)}" for lapse in lapses]
    return "\n".join(blocks) or "No samples were taken while it learned."


def talk_section(run: Run) -> str:
    """Conversations of each stage, the last first."""
    blocks = []
    for stage, samples in samples_to_show(run):
        blocks += [f"### After {stage}\n", *(chat(sample) for sample in samples)]
    return "\n".join(blocks) or "No conversations were kept."


def chat(sample: Sample) -> str:
    """A conversation in one fence, and the note under it."""
    lines = "\n".join(f"{message.role}: {said(message)}" for message in sample.messages)
    return fenced(lines) + (f"\n*{inline(sample.note)}*\n" if sample.note else "")


def said(message: Message) -> str:
    """A turn in one piece, `[calculator 10/4*2 -> 5]` for a call with its answer."""
    words = []
    for place, part in enumerate(message.parts):
        following = message.parts[place + 1] if place + 1 < len(message.parts) else None
        if isinstance(part, Call):
            words.append(f"[{part}" + ("" if isinstance(following, Output) else "]"))
        elif isinstance(part, Output):
            words.append(f" -> {part.text}] ")
        else:
            words.append(part.text)
    return "".join(words)


def data_section(run: Run) -> str:
    """Attribution and the table of sources."""
    attribution = run.stage("tokenizer").about.get("attribution")
    paragraphs = re.split(r"\n\s*\n", attribution) if isinstance(attribution, str) else []
    text = "\n\n".join(inline(part) for part in paragraphs if part.strip())
    heads, rows = source_rows(run)
    listed = table(heads, [[inline(value) for value in row] for row in rows]) if rows else ""
    return f"{text}\n\n{listed}".strip() or "The run does not say where its text is from."


def facts_section(found: Sequence[Fact]) -> str:
    """Machine, time, versions, seed."""
    rows = [[f.name, inline(f.value) + (f" ({inline(f.note)})" if f.note else "")] for f in found]
    return table(["", ""], rows)
