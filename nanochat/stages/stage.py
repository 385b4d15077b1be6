"""What every stage does besides its work: find its place in a run, resume, record, show progress, stop cleanly."""

import contextlib
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.console import Console

from nanochat import native
from nanochat.checkpoint import SCHEMA, STAGES, Checkpoint, newest, run_folder, save, step_folders
from nanochat.config import dumps
from nanochat.distributed import barrier, joined
from nanochat.files import write_atomically
from nanochat.gpt import GPT
from nanochat.optim import Together
from nanochat.plan import flops_per_token
from nanochat.runtime import Runtime, commit, detect, machine, measure_peak, peak_memory_gb, versions
from nanochat.stages.progress import Progress
from nanochat.stages.records import fingerprint_of, json_line, read_json, read_jsonl, read_stage, write_jsonl
from nanochat.train import Ranks, Step

DECIDE_BITS = ("threads", "instructions", "dtype", "device", "world", "torch")  # of a machine and its versions
PLANNED_MFU = 0.25  # a plan's share of the peak: the laptop preset reached 19 to 26 % (LOG.md, 2026-11-22)


class StageConfig(Protocol):
    """The fields that every stage's configuration has."""

    @property
    def run(self) -> str: ...
    @property
    def preset(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def deterministic(self) -> bool: ...


class Interrupted(KeyboardInterrupt):
    """The user, or the system, asked us to stop, and what was done so far is saved."""


@dataclass
class Stage:
    """One stage of one run, open in this process."""

    name: str
    config: Any
    run: Path
    runtime: Runtime
    ranks: Ranks
    console: Console
    fingerprint: str
    peak_flops: float
    earlier_seconds: float = 0.0  # spent on this stage before it was interrupted
    began: float = field(default_factory=time.perf_counter)
    stop_asked: bool = False
    last_saved: int = -1

    @property
    def folder(self) -> Path:
        """`ROOT/NAME/STAGE`."""
        return self.run / self.name

    @property
    def seconds(self) -> float:
        """Time spent on this stage so far, earlier sessions included."""
        return self.earlier_seconds + time.perf_counter() - self.began

    def claim(self) -> None:
        """Make the stage's folder ours, when all that can be refused has been checked.

        What was made there from other inputs is moved to `.NAME.previous`, its metrics with it.
        """
        if self.runtime.is_main:
            started = read_json(self.folder / "started.json")
            if self.folder.exists() and (started or {}).get("fingerprint") != self.fingerprint:
                self.set_aside()
            about = {"schema": SCHEMA, "fingerprint": self.fingerprint, "config": self.config}
            write_atomically(self.folder / "started.json", dumps(about))
        barrier(self.runtime)

    def set_aside(self) -> None:
        """Move the folder out of the way; one that holds no result does not displace an earlier one that does."""
        previous = self.folder.with_name(f".{self.name}.previous")
        if not step_folders(self.folder) and not (self.folder / "stage.json").exists():
            shutil.rmtree(self.folder)
            return
        metrics = self.run / "metrics.jsonl"
        rows = [row for row in read_jsonl(metrics) if row.get("stage") == self.name] if metrics.exists() else []
        write_jsonl(self.folder / "metrics.jsonl", rows)
        shutil.rmtree(previous, ignore_errors=True)
        self.folder.rename(previous)
        self.say(f"{self.name} was made from other inputs: moved to {previous}")

    def resume(self, model: GPT, optimizer: Together) -> tuple[int, dict[str, Any]]:
        """Fill model and optimizer from this stage's newest checkpoint: (steps done, cursor); (0, {}) at the start."""
        self.claim()
        if (how := native.lacking(self.runtime.device, self.runtime.dtype)):
            self.say(f"[yellow]plain PyTorch between products, which takes about a quarter longer: {how}[/]")
        found = newest(self.folder)
        if found is None:
            self.forget_metrics_from(0)
            return 0, {}
        found.restore(model, optimizer)
        self.warn_of_another_machine(found)
        self.earlier_seconds = float(found.state["seconds"])
        self.last_saved = found.step
        self.forget_metrics_from(found.step)
        self.say(f"resuming {self.name} after step {found.step}")
        return found.step, dict(found.state["cursor"])

    def warn_of_another_machine(self, found: Checkpoint) -> None:
        """Say where the bits of a resumed run may differ from those of a run never stopped."""
        here = {**machine(self.runtime), **versions()}
        there = {**found.state["machine"], **found.state["versions"]}
        if odd := [key for key in DECIDE_BITS if here.get(key) != there.get(key)]:
            changes = ", ".join(f"{key} {there.get(key)} -> {here.get(key)}" for key in odd)
            self.say(f"[yellow]the last bits may differ from an uninterrupted run: {changes}[/]")

    def forget_metrics_from(self, step: int) -> None:
        """Drop this stage's lines of metrics and samples from `step` on: they will be written again."""
        if not self.runtime.is_main:
            return
        # A line of metrics has the index of its step; a sample the number of steps that its model had made.
        for path, last in ((self.run / "metrics.jsonl", step - 1), (self.folder / "timelapse.jsonl", step)):
            if path.exists():
                kept = [row for row in read_jsonl(path) if row.get("stage") != self.name or row.get("step", 0) <= last]
                write_jsonl(path, kept)

    def training(
        self, steps: Iterator[Step], model: GPT, optimizer: Together, total: int, start: int
    ) -> Iterator[Step]:
        """Pass on each step, after its line in metrics.jsonl and on the screen; save in time, and when asked to stop.

        The caller's body runs between two steps; what it measures it adds with `measure`.
        """
        flops = flops_per_token(model.config)
        with Progress(self.console, self.name, total, start) as progress:
            for step in by_kernels(steps):
                speed = step.tokens / step.seconds
                # Peaks are those of one process; a step's tokens were read by all of them.
                mfu = speed * flops / (self.peak_flops * self.runtime.world)
                self.write_metrics(step, speed, mfu)
                progress.advance(step.index + 1, loss=step.loss, speed=speed, mfu=mfu)
                if step.skipped:
                    self.say(f"[yellow]{self.name} step {step.index}: {step.skipped}; weights left as they were[/]")
                yield step
                done, every = step.index + 1, getattr(self.config, "save_every", 0)
                stopping = self.ranks.total([float(self.stop_asked)])[0] > 0
                if done < total and (stopping or (every and done % every == 0)):
                    self.save(model, optimizer, done, step.cursor)
                if stopping and done < total:
                    raise Interrupted(
                        f"{self.name} saved after step {done} of {total}; the same command goes on from there"
                    )

    def write_metrics(self, step: Step, speed: float, mfu: float) -> None:
        """One line of metrics.jsonl for a step."""
        row = {
            "time": round(time.time(), 3), "stage": self.name, "step": step.index, "tokens": step.tokens,
            "learned": step.learned, "loss": finite(step.loss), "grad_norm": finite(step.grad_norm), "lr": step.lr,
            "tokens_per_second": round(speed, 1), "mfu": round(mfu, 4),
        }  # fmt: skip
        self.append("metrics.jsonl", row | ({"skipped": step.skipped} if step.skipped else {}))

    def measure(self, step: int, **figures: float) -> None:
        """A line of metrics.jsonl with figures measured after `step`."""
        self.append("metrics.jsonl", {"time": round(time.time(), 3), "stage": self.name, "step": step, **figures})

    def lapse(self, step: int, prompt: str, make: Callable[[], str]) -> None:
        """Keep what the model made of `prompt` after `step`, and show it. Only the main process makes it."""
        if not self.runtime.is_main:
            return
        text = make()
        self.append(f"{self.name}/timelapse.jsonl", {"stage": self.name, "step": step, "prompt": prompt, "text": text})
        one_line = " ".join(text.split())[: max(20, self.console.width - 30)]
        self.console.print(f"  step {step:>5}  {prompt!r} ->", style="dim", end=" ", markup=False, highlight=False)
        self.console.print(one_line, style="italic", markup=False, highlight=False, overflow="ellipsis", no_wrap=True)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One JSON object at the end of a file of the run; by the main process only."""
        if self.runtime.is_main:
            path = self.run / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json_line(row))

    def save(self, model: GPT, optimizer: Together, step: int, cursor: Mapping[str, Any]) -> None:
        """A checkpoint after `step` steps, once."""
        if step != self.last_saved and self.runtime.is_main:
            state = {
                "stage": self.name, "cursor": dict(cursor), "seconds": self.seconds, "seed": self.config.seed,
                "fingerprint": self.fingerprint, "tokenizer": read_stage(self.run, "tokenizer")["tokenizer"],
            }  # fmt: skip
            save(self.folder, step, model, optimizer, self.runtime, state)
        self.last_saved = step
        barrier(self.runtime)

    def planned_seconds(self, tokens: float, model: GPT) -> float:
        """How long training on so many tokens should take here: at the share of the peak that small models reach."""
        return tokens * flops_per_token(model.config) / (PLANNED_MFU * self.peak_flops * self.runtime.world)

    def finish(self, **about: Any) -> None:
        """Mark the stage as finished, with what it was and what it took; then stop, if that was asked for meanwhile."""
        write_stage(self, self.seconds, about)
        if self.ranks.total([float(self.stop_asked)])[0]:
            raise Interrupted(f"{self.name} is finished and saved; the same command goes on with what follows it")

    def say(self, text: str) -> None:
        """A line on the screen."""
        self.console.print(text, highlight=False)


def by_kernels(steps: Iterator[Step]) -> Iterator[Step]:
    """The same steps, with the work between their products done by kernels where there are any (native.py)."""
    while True:
        with native.kernels():
            step = next(steps, None)
        if step is None:
            return
        yield step


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


@contextlib.contextmanager
def open_stage(
    name: str, config: StageConfig, parents: Sequence[str], inputs: Mapping[str, Any] | None = None
) -> Iterator[Stage | None]:
    """The stage of a run, ready to work; None where it is finished and nothing that it depends on has changed.

    `parents` are the stages it builds on, which must be finished; `inputs` is what it depends on besides them and its
    own configuration. SIGINT and SIGTERM let the current step end, save, and raise Interrupted; a second one
    acts at once.
    """
    run = run_folder(config.run or config.preset)
    fingerprint = fingerprint_of(name, config, run, parents, inputs or {})
    runtime = detect(config.device, config.dtype, deterministic=config.deterministic)
    console = Console(stderr=True, quiet=not runtime.is_main)  # many processes, one voice
    done = read_stage(run, name)
    has_result = name not in STAGES or step_folders(run / name)
    if done and has_result and done["fingerprint"] == fingerprint and done["finished"]:
        console.print(f"{name}: done before, nothing has changed ({run / name})", style="dim", highlight=False)
        yield None
        return
    with joined(runtime) as ranks:
        stage = Stage(name, config, run, runtime, ranks, console, fingerprint, measure_peak(runtime))
        with stop_signals(stage):
            yield stage


@contextlib.contextmanager
def stop_signals(stage: Stage) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the current step, and the second stop at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stage.stop_asked:
            raise KeyboardInterrupt
        stage.stop_asked = True
        stage.say("[yellow]stopping after this step, and saving; once more to stop at once[/]")

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where signals can't be caught
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_stage(stage: Stage, seconds: float, about: Mapping[str, Any]) -> None:
    """`stage.json`: what a finished stage was made from and what it took. Its presence means that it is finished."""
    if stage.runtime.is_main:
        record = {
            "schema": SCHEMA, "stage": stage.name, "finished": True, "fingerprint": stage.fingerprint,
            "config": stage.config, "seconds": seconds, "seed": stage.config.seed, "peak_flops": stage.peak_flops,
            "peak_memory_gb": peak_memory_gb(), "commit": commit(), "versions": versions(),
            "machine": machine(stage.runtime), "time": time.time(), **about,
        }  # fmt: skip
        write_atomically(stage.folder / "stage.json", dumps(record))
    barrier(stage.runtime)
