"""The report as one HTML file: no script, nothing fetched, every text of a model or a source escaped."""

import html
import math
import re
from collections.abc import Iterable, Sequence

from nanochat.evaluate.figures import Figure
from nanochat.report.card import (
    Fact,
    baselines_of,
    facts,
    figure_groups,
    lapses_by_prompt,
    plan_rows,
    samples_to_show,
    source_rows,
    tiles,
)
from nanochat.report.plots import Plot, bits_plot, loss_plot
from nanochat.report.read import STAGES, Run, Sample
from nanochat.report.style import CSS
from nanochat.report.summary import summary
from nanochat.report.words import (
    STAGE_TEXT,
    baseline_title,
    explanation,
    interval_text,
    is_baseline,
    title,
    value_text,
    visible,
)
from nanochat.tokenizer import Call, Message, Output

LONG = 80  # characters of a tool's output that stand in the line; a longer one is folded away


def page(run: Run) -> str:
    """The whole page."""
    sections = [
        ("plan", "The plan, and what happened", plan_section(run)),
        ("learning", "How it learned", learning_section(run)),
        ("figures", "What it can do", figures_section(run)),
        ("lapse", "One prompt, as it learned", lapse_section(run)),
        ("talk", "Conversations", talk_section(run)),
        ("data", "What it read", data_section(run)),
        ("made", "How it was made", facts_section(facts(run))),
    ]
    links = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, heading, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{heading}</h2>{content}</section>' for key, heading, content in sections)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{safe(run.name)} – report card</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{safe(run.name)}</h1>
<p class="quiet">Report card of a nanochat run</p>
<p class="lead">{safe(" ".join(summary(run)))}</p>
{problems_note(run.problems)}
{tile_list(tiles(run))}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
{body}
</main>
</body>
</html>
"""


def safe(text: object) -> str:
    """A text as HTML that shows it, whatever is in it."""
    return html.escape(visible(text))


def problems_note(problems: Sequence[str]) -> str:
    """What was missing or unreadable."""
    if not problems:
        return ""
    items = "".join(f"<li>{safe(problem)}</li>" for problem in problems)
    return f'<div class="warn"><p>To bear in mind:</p><ul>{items}</ul></div>'


def tile_list(found: Sequence[Fact]) -> str:
    """The few figures to see first."""
    cells = "".join(
        f"<div><dt>{safe(tile.name)}</dt><dd>{safe(tile.value)}<small>{safe(tile.note)}</small></dd></div>"
        for tile in found
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def plan_section(run: Run) -> str:
    """Planned and actual, a row a stage."""
    heads = ["Stage", "Time", "Steps", "Tokens", "Tokens/s", "MFU", "Loss"]
    rows = []
    for row in plan_rows(run):
        cells = "".join(
            f'<td class="number" data-label="{head}"><span>{safe(cell.value)}{small(cell.note)}</span></td>'
            for head, cell in zip(heads[1:], row.cells, strict=True)
        )
        name = f'<span class="stage" style="color: var(--{row.stage})">{row.stage}</span>'
        does = small(row.remark or STAGE_TEXT[row.stage])
        rows.append(f'<tr><th scope="row"><span>{name}{does}</span></th>{cells}</tr>')
    head = "".join(f'<th scope="col"{" class=number" * (place > 0)}>{name}</th>' for place, name in enumerate(heads))
    note = "Small print: what was planned. MFU: the share of this machine's measured product speed that the model used."
    return f'{stacked(head, "".join(rows))}<p class="note">{note}</p>'


def stacked(head: str, rows: str) -> str:
    """A table that a phone shows as one block a row."""
    return f'<table class="stack"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def small(text: str) -> str:
    """A remark in small print."""
    return f"<small>{safe(text)}</small>" if text else ""


def learning_section(run: Run) -> str:
    """The curves."""
    found = [plot for plot in (loss_plot(run), bits_plot(run)) if plot is not None]
    return "".join(plot_figure(plot) for plot in found) or "<p>No stage has recorded a curve yet.</p>"


def plot_figure(plot: Plot) -> str:
    """Both drawings of a plot, of which the page shows one, and the line under them."""
    wide, narrow = f'<div class="wide">{plot.wide}</div>', f'<div class="narrow">{plot.narrow}</div>'
    return f"<figure>{wide}{narrow}<figcaption>{safe(plot.caption)}</figcaption></figure>"


def figures_section(run: Run) -> str:
    """Every figure by stage, with its interval drawn to scale."""
    groups = figure_groups(run)
    if not groups:
        return "<p>Nothing has been measured yet: <code>python -m nanochat eval</code> does that.</p>"
    blocks = []
    for name, found in groups.items():
        rows = [*found, *baselines_of(run, name)]
        scale = 1.0 if found[0].unit == "share" else 1.08 * largest(rows)
        body = "".join(figure_row(figure, scale) for figure in rows)
        about = f'<p class="note">{safe(explanation(name))}</p>' if explanation(name) else ""
        blocks.append(
            f'<div class="figure"><h3>{safe(title(name))}</h3>{about}<table><tbody>{body}</tbody></table></div>'
        )
    note = '<p class="note">Dots are what was measured, bands the 95 % intervals; n counts examples or documents.</p>'
    return note + "".join(blocks)


def largest(figures: Sequence[Figure]) -> float:
    """The end of a scale that holds all values and intervals."""
    ends = [end for figure in figures for end in (figure.value, figure.high) if math.isfinite(end)]
    return max([end for end in ends if end > 0], default=1.0)


def figure_row(figure: Figure, scale: float) -> str:
    """One stage's value: a dot on a line, its interval as a band, and both in digits."""
    bar = is_baseline(figure.name)
    who = baseline_title(figure.name) if bar else figure.stage
    colour = figure.stage if figure.stage in STAGES and not bar else "quiet"
    track = f"<b{at('left', figure.value / scale)}></b>"
    if figure.has_interval:
        track = f"<i{at('left', figure.low / scale, figure.high / scale)}></i>" + track
    numbers = safe(value_text(figure))
    details = ", ".join(part for part in (interval_text(figure), f"n = {figure.n:,}") if part)
    return (
        f'<tr><th class="who" scope="row" style="color: var(--{colour})">{safe(who)}</th>'
        f'<td><div class="track" aria-hidden="true" style="color: var(--{colour})">{track}</div></td>'
        f'<td class="value">{numbers}</td><td class="range">{details}</td></tr>'
    )


def at(edge: str, start: float, end: float | None = None) -> str:
    """A style attribute that places something between two shares of the width; nothing for what is no number."""
    if not math.isfinite(start):
        return " hidden"
    low = min(max(start, 0.0), 1.0)
    width = f"; width: {100 * (min(end, 1.0) - low):.2f}%" if end is not None else ""
    return f' style="{edge}: {100 * low:.2f}%{width}"'


def lapse_section(run: Run) -> str:
    """What the same prompt led to at each step, by prompt."""
    blocks = []
    for prompt, lapses in lapses_by_prompt(run).items():
        items = "".join(
            f'<li><span class="stage" style="color: var(--{lapse.stage})">{lapse.stage} {lapse.step:,}</span>'
            f'<span class="text">{safe(lapse.text) or "(nothing)"}</span></li>'
            for lapse in lapses
        )
        blocks.append(f'<h3 class="prompt">“{safe(prompt.strip())}”</h3><ol class="lapse">{items}</ol>')
    return "".join(blocks) or "<p>No samples were taken while it learned.</p>"


def talk_section(run: Run) -> str:
    """Conversations of the last stage that has some, and those of earlier ones folded away."""
    chosen = samples_to_show(run)
    if not chosen:
        return "<p>No conversations were kept.</p>"
    (last, samples), *earlier = chosen
    shown = f"<h3>After {last}</h3>" + chats(samples)
    for stage, older in earlier:
        shown += f"<details><summary>After {stage}</summary>{chats(older)}</details>"
    return shown


def chats(samples: Iterable[Sample]) -> str:
    """Conversations as bubbles."""
    found = []
    for sample in samples:
        turns = "".join(turn(message) for message in sample.messages)
        note = f'<p class="note">{safe(sample.note)}</p>' if sample.note else ""
        found.append(f'<div class="chat">{turns}{note}</div>')
    return "".join(found)


def turn(message: Message) -> str:
    """One bubble; who speaks is said, not only shown."""
    parts, place = [], 0
    while place < len(message.parts):
        part = message.parts[place]
        following = message.parts[place + 1] if place + 1 < len(message.parts) else None
        if isinstance(part, Call):
            output = following if isinstance(following, Output) else None
            parts.append(tool(part, output))
            place += output is not None
        else:
            parts.append(safe(part.text))
        place += 1
    said = "".join(parts).strip() or '<span class="quiet">(nothing)</span>'
    return f'<div class="turn {message.role}" role="group" aria-label="{message.role}">{said}</div>'


def tool(call: Call, output: Output | None) -> str:
    """A call and its answer in one line, or the answer folded away where it is long."""
    asked = f"<b>{safe(call.tool)}</b> {safe(call.argument)}"
    if output is None:
        return f'<span class="tool">{asked} <span class="quiet">(no answer)</span></span>'
    if len(output.text) > LONG or "\n" in output.text:
        return f'<details class="tool"><summary>{asked}</summary><pre>{safe(output.text)}</pre></details>'
    return f'<span class="tool">{asked} → {safe(output.text)}</span>'


def data_section(run: Run) -> str:
    """Attribution of the text, and the sources as a table."""
    attribution = run.stage("tokenizer").about.get("attribution")
    paragraphs = (
        [part for part in re.split(r"\n\s*\n", attribution) if part.strip()] if isinstance(attribution, str) else []
    )
    text = "".join(f"<p>{safe(part)}</p>" for part in paragraphs)
    heads, rows = source_rows(run)
    if rows:
        head = "".join(f'<th scope="col">{safe(name)}</th>' for name in heads)
        cells = "".join(
            "<tr>"
            + "".join(f'<td data-label="{safe(h)}">{safe(v)}</td>' for h, v in zip(heads, row, strict=True))
            + "</tr>"
            for row in rows
        )
        text += stacked(head, cells)
    return text or "<p>The run does not say where its text is from.</p>"


def facts_section(found: Sequence[Fact]) -> str:
    """Machine, time, versions, seed."""
    rows = "".join(f"<dt>{safe(f.name)}</dt><dd>{safe(f.value)}{small(f.note)}</dd>" for f in found)
    return f'<dl class="facts">{rows}</dl>'
