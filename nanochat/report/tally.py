"""What a stage planned and what it did, added up from its record and its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.report.read import Run, StageRecord, mapping, number

REFERENCE_PEAK = 430e9  # FLOP/s: the bf16 product peak of the machine that reference minutes are minutes of


@dataclass(frozen=True)
class Tally:
    """What a stage planned and did; None where it is not known."""

    minutes_planned: float | None
    minutes: float | None
    steps_planned: float | None
    steps: float | None
    tokens_planned: float | None
    tokens: float | None
    tokens_per_second: float | None
    mfu: float | None
    first_loss: float | None
    last_loss: float | None
    reward: float | None


def tally(stage: StageRecord) -> Tally:
    """The plan of a stage against what happened."""
    plan, losses = stage.plan, stage.series("loss")
    steps = number(plan, "steps") or number(mapping(stage.about.get("config")), "steps")
    each, seconds = number(plan, "tokens_per_step"), number(plan, "seconds")
    planned = number(plan, "tokens") or (steps * each if steps and each else None)
    read = [value for _, value in stage.series("tokens")]
    speeds, shares = weighted(stage, "tokens_per_second"), weighted(stage, "mfu")
    rewards = [value for _, value in stage.series("reward")]
    return Tally(
        seconds / 60 if seconds is not None else number(plan, "minutes"),
        stage.minutes,
        steps or None,
        losses[-1][0] + 1 if losses else None,
        planned,
        sum(read) if read else None,
        speeds,
        shares,
        losses[0][1] if losses else None,
        late_mean([value for _, value in losses]),
        late_mean(rewards),
    )


def weighted(stage: StageRecord, name: str) -> float | None:
    """The mean of a metric over a stage's time: a slow step counts for as long as it took."""
    total = seconds = 0.0
    for row in stage.metrics:
        tokens, speed, value = number(row, "tokens"), number(row, "tokens_per_second"), number(row, name)
        if tokens and speed and value is not None:
            total, seconds = total + value * tokens / speed, seconds + tokens / speed
    return total / seconds if seconds else None


def late_mean(values: Sequence[float]) -> float | None:
    """The mean of the last tenth: a single step's loss says little."""
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last) if last else None


def minutes_of(run: Run) -> float:
    """Wall minutes of all stages."""
    return sum(stage.minutes or 0.0 for stage in run.stages)


def reference_minutes(run: Run) -> float | None:
    """Minutes x this machine's measured product peak over the reference machine's; None where no peak was measured.

    A stage that measured none (the tokenizer multiplies no matrices) is taken at the mean of the others.
    """
    peaks = {stage.name: peak for stage in run.stages if (peak := peak_of(stage))}
    if not peaks:
        return None
    usual = sum(peaks.values()) / len(peaks)
    return sum((stage.minutes or 0.0) * peaks.get(stage.name, usual) for stage in run.stages) / REFERENCE_PEAK


def peak_of(stage: StageRecord) -> float | None:
    """Measured FLOP/s of all processes of a stage together."""
    peak = number(stage.about, "peak_flops") or number(stage.plan, "peak_flops")
    return peak * (number(mapping(stage.about.get("machine")), "world") or 1) if peak else None


def core_minutes(run: Run) -> float:
    """Minutes x threads x processes."""
    total = 0.0
    for stage in run.stages:
        machine = mapping(stage.about.get("machine"))
        total += (stage.minutes or 0.0) * (number(machine, "threads") or 1) * (number(machine, "world") or 1)
    return total


def parameters(run: Run) -> float | None:
    """Numbers that the model learned."""
    parts = mapping(run.stage("pretrain").plan.get("parameters"))
    counts = [count for part in parts if (count := number(parts, part)) is not None]
    return sum(counts) if counts else None
