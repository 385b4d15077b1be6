"""What every stage does besides its work: find its place in a run, resume, record, show progress, stop cleanly."""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from nanochat import native
from nanochat.checkpoint import SCHEMA, Checkpoint, is_whole, newest, run_folder, save, step_folders
from nanochat.config import dumps
from nanochat.distributed import Parallel, joined
from nanochat.errors import CheckpointError, TrainingError
from nanochat.files import sweep, write_atomically
from nanochat.gpt import GPT
from nanochat.optim import Together
from nanochat.plan import flops_per_token
from nanochat.runtime import Runtime, commit, detect, machine, measure_peak, peak_memory_gb, versions
from nanochat.sharded import Sharded
from nanochat.stages.progress import Progress
from nanochat.stages.records import (
    NOT_FINITE_LOG,
    fingerprint_of,
    flush_logs,
    forget_from,
    json_line,
    read_json,
    read_jsonl,
    read_stage,
    write_jsonl,
)
from nanochat.stages.stopping import Interrupted, Stop
from nanochat.train import NOT_FINITE, Ranks, Step

TOO_MANY = 3  # steps in a row whose numbers are not finite: one may be bad luck, this is the end
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
    @property
    def parallel(self) -> Parallel: ...
    @property
    def timeout(self) -> int: ...


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
    stop: Stop = field(default_factory=Stop)
    tokenizer: str = ""  # its fingerprint, by which checkpoints are tied to it
    last_saved: int = -1
    cursor: dict[str, Any] = field(default_factory=dict)  # where the stream stood after the last step
    not_finite: list[int] = field(default_factory=list)  # steps that were skipped for their numbers

    @property
    def folder(self) -> Path:
        """`ROOT/NAME/STAGE`."""
        return self.run / self.name

    @property
    def seconds(self) -> float:
        """Time spent on this stage so far, earlier sessions included."""
        return self.earlier_seconds + time.perf_counter() - self.began

    @property
    def began_before(self) -> bool:
        """Whether what lies in the stage's folder comes from the same inputs."""
        return (read_json(self.folder / "started.json") or {}).get("fingerprint") == self.fingerprint

    def claim(self) -> None:
        """Make the stage's folder ours, when all that can be refused has been checked.

        What was made there from other inputs is moved to `.NAME.previous`, its metrics with it.
        """
        if self.runtime.is_main:
            if self.folder.exists() and not self.began_before:
                self.set_aside()
            about = {"schema": SCHEMA, "fingerprint": self.fingerprint, "config": self.config}
            write_atomically(self.folder / "started.json", dumps(about))
            for folder in (self.run, self.folder):
                sweep(folder)
        self.ranks.wait()
        self.check_folder()  # on another disk than the main process's a share of a checkpoint would be lost

    def set_aside(self) -> None:
        """Move the folder out of the way; one that holds no result does not displace an earlier one that does."""
        previous = self.folder.with_name(f".{self.name}.previous")
        if not step_folders(self.folder) and not (self.folder / "stage.json").exists():
            shutil.rmtree(self.folder)
            return
        metrics = self.run / "metrics.jsonl"
        rows = [row for row in read_jsonl(metrics) if row.get("stage") == self.name]
        write_jsonl(self.folder / "metrics.jsonl", rows)
        shutil.rmtree(previous, ignore_errors=True)
        self.folder.rename(previous)
        self.say(f"{self.name} was made from other inputs: moved to {previous}")

    def resume(self, model: GPT, optimizer: Together) -> tuple[int, dict[str, Any]]:
        """Fill model and optimizer from this stage's newest checkpoint: (steps done, cursor); (0, {}) at the start."""
        self.claim()
        if how := native.lacking(self.runtime.device, self.runtime.dtype):
            self.say(f"[yellow]plain PyTorch between products, which takes about a quarter longer: {how}[/]")
        self.tokenizer = read_stage(self.run, "tokenizer")["tokenizer"]
        found = newest(self.folder)
        self.ranks.wait()  # from here on the main process moves and rewrites what the others have read
        start = found.step if found else 0
        if self.runtime.is_main:
            self.set_damaged_aside(found)
            forget_from(start, self.run, self.name)
        self.ranks.wait()
        self.not_finite = [row["step"] for row in read_jsonl(self.folder / NOT_FINITE_LOG)]
        if found is None:
            return 0, {}
        found.restore(model, optimizer)
        if changes := elsewhere(found.state, self.runtime):
            self.say(f"[yellow]the last bits may differ from an uninterrupted run: {changes}[/]")
        self.earlier_seconds = float(found.state["seconds"])
        self.last_saved, self.cursor = start, dict(found.state["cursor"])
        self.say(f"resuming {self.name} after step {start}")
        return start, self.cursor

    def set_damaged_aside(self, found: Checkpoint | None) -> None:
        """Rename the checkpoints that `newest` passed over, or they would count among those that are kept."""
        there = step_folders(self.folder)
        for folder in there[there.index(found.folder) + 1 if found else 0 :]:
            aside = folder.with_name(f".{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            self.say(f"[yellow]{folder.name} is damaged: moved to {aside}[/]")

    def training(
        self, steps: Iterator[Step], model: GPT, optimizer: Together, total: int, start: int
    ) -> Iterator[Step]:
        """Pass on each step, after its line in metrics.jsonl and on the screen; save in time, and when asked to stop.

        The caller's body runs between two steps; what it measures it adds with `measure`.
        """
        done = start
        try:
            with Progress(self.console, self.name, total, start) as progress:
                if start < total and self.asked():  # while all this was read
                    raise Interrupted()
                for step in by_kernels(steps):
                    self.note(step, progress, flops_per_token(model.config))
                    yield step
                    done, self.cursor, every = step.index + 1, step.cursor, self.config.save_every
                    asked = self.asked()
                    if done < total and every and done % every == 0:
                        self.save(model, optimizer, done, step.cursor)
                    if done < total and (asked or done - start == self.config.stop_after):
                        raise Interrupted()
        except Interrupted:  # in the middle of a step, too: what it began has changed nothing
            if done:
                self.save(model, optimizer, done, self.cursor)
            kept = f"saved after step {done} of {total}" if done else "stopped before its first step"
            raise Interrupted(f"{self.name} {kept}; the same command goes on from there") from None

    def asked(self) -> bool:
        """Whether any of the processes has been asked to stop; all of them ask, and learn the same."""
        return self.ranks.total([float(self.stop.asked)])[0] > 0

    def breaking(self) -> AbstractContextManager[None]:
        """For work that may be broken off anywhere, `Stop.breaking`; one process of many can't leave the others."""
        return self.stop.breaking() if self.runtime.world == 1 else contextlib.nullcontext()

    def note(self, step: Step, progress: Progress, flops: float) -> None:
        """Put a step on record and on the screen. Raises TrainingError where numbers are not finite time and again."""
        speed = step.tokens / step.seconds
        # Peaks are those of one process; a step's tokens were read by all of them.
        mfu = speed * flops / (self.peak_flops * self.runtime.world)
        self.write_metrics(step, speed, mfu)
        progress.advance(step.index + 1, loss=step.loss, speed=speed, mfu=mfu)
        if step.skipped == NOT_FINITE:
            self.not_finite.append(step.index)
            norms = {layer: [n if math.isfinite(n) else str(n) for n in both] for layer, both in step.norms.items()}
            self.append(f"{self.name}/{NOT_FINITE_LOG}", self.row(step) | {"cursor": self.cursor, "norms": norms})
        if step.skipped:
            count = f" ({len(self.not_finite)} so far)" if step.skipped == NOT_FINITE else ""
            self.say(f"[yellow]{self.name} step {step.index}: {step.skipped}{count}; weights left as they were[/]")
        if self.not_finite[-TOO_MANY:] == list(range(step.index - TOO_MANY + 1, step.index + 1)):
            raise TrainingError(
                "finite losses and gradients",
                f"{TOO_MANY} steps in a row of {self.name} without, the last of them step {step.index}",
                f"a smaller --rate may help; their cursors and norms by layer are in {self.folder / NOT_FINITE_LOG}",
            )

    def write_metrics(self, step: Step, speed: float, mfu: float) -> None:
        """One line of metrics.jsonl for a step."""
        row = self.row(step) | {"tokens_per_second": round(speed, 1), "mfu": round(mfu, 4)}
        self.append("metrics.jsonl", row | ({"skipped": step.skipped} if step.skipped else {}))

    def row(self, step: Step) -> dict[str, Any]:
        """What a step was, for a line of JSON."""
        return {
            "time": round(time.time(), 3), "stage": self.name, "step": step.index, "tokens": step.tokens,
            "learned": step.learned, "loss": finite(step.loss), "grad_norm": finite(step.grad_norm), "lr": step.lr,
        }  # fmt: skip

    def measure(self, step: int, **figures: float) -> None:
        """A line of metrics.jsonl with figures measured after `step`."""
        self.append("metrics.jsonl", {"time": round(time.time(), 3), "stage": self.name, "step": step, **figures})

    def lapse(self, step: int, prompt: str, make: Callable[[], str]) -> None:
        """Keep what the model made of `prompt` after `step`, and show it: for the main process, in `ranks.whole`."""
        text = make()
        self.append(f"{self.name}/timelapse.jsonl", {"stage": self.name, "step": step, "prompt": prompt, "text": text})
        one_line = " ".join(text.split())[: max(20, self.console.width - 30)]
        self.console.print(f"  step {step:>5}  {prompt!r} ->", style="dim", end=" ", markup=False, highlight=False)
        self.console.print(one_line, style="italic", markup=False, highlight=False, overflow="ellipsis", no_wrap=True)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """One JSON object at the end of a file of the run; by the main process only."""
        if self.runtime.is_main:
            self.check_folder()
            with (self.run / name).open("a", encoding="utf-8") as file:
                file.write(json_line(row))

    def check_folder(self) -> None:
        """Raises CheckpointError where the folder is gone: half a run in a new one would pass for a whole one."""
        if not (self.folder / "started.json").exists():
            remedy = "put it back, or let all machines see the same NANOCHAT_HOME; then the same command goes on"
            raise CheckpointError(f"{self.folder}, where this stage began", "nothing there", remedy)

    def save(self, model: GPT, optimizer: Together, step: int, cursor: Mapping[str, Any]) -> None:
        """A checkpoint after `step` steps, once. What was written about these steps is on the disk before it."""
        if step != self.last_saved and (self.runtime.is_main or isinstance(optimizer, Sharded)):
            if self.runtime.is_main:
                self.check_folder()
                flush_logs(self.run, self.name)
            state = {
                "stage": self.name, "cursor": dict(cursor), "seconds": self.seconds, "seed": self.config.seed,
                "fingerprint": self.fingerprint, "tokenizer": self.tokenizer,
            }  # fmt: skip
            together = self.ranks if isinstance(optimizer, Sharded) else None
            save(self.folder, step, model, optimizer, self.runtime, state, self.config.keep, together)
        self.last_saved = step
        self.ranks.wait()

    def planned_seconds(self, tokens: float, model: GPT) -> float:
        """How long training on so many tokens should take here: at the share of the peak that small models reach."""
        return tokens * flops_per_token(model.config) / (PLANNED_MFU * self.peak_flops * self.runtime.world)

    def finish(self, **about: Any) -> None:
        """Mark the stage as finished, with what it was and what it took; then stop, if that was asked for meanwhile."""
        if self.runtime.is_main:
            self.check_folder()
            flush_logs(self.run, self.name)
        write_stage(self, self.seconds, about)
        if self.asked():
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


def elsewhere(made: Mapping[str, Any], runtime: Runtime) -> str:
    """What is other here than where `made` was made, of all that decides the last bits; empty where nothing is."""
    here, there = machine(runtime) | versions(), made["machine"] | made["versions"]
    odd = [key for key in DECIDE_BITS if here.get(key) != there.get(key)]
    return ", ".join(f"{key} {there.get(key)} -> {here.get(key)}" for key in odd)


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


@contextlib.contextmanager
def open_stage(
    name: str,
    config: StageConfig,
    parents: Sequence[str],
    inputs: Mapping[str, Any] | None = None,
    whole: Callable[[Path], bool] = is_whole,
) -> Iterator[Stage | None]:
    """The stage of a run, ready to work; None where it is finished and nothing that it depends on has changed.

    `parents` are the stages it builds on, which must be finished; `inputs` is what it depends on besides them and its
    own configuration; `whole(folder)` tells whether what it made is still there. SIGINT and SIGTERM let the current
    step end, save, and raise Interrupted; a second one acts at once.
    """
    run = run_folder(config.run or config.preset)
    fingerprint = fingerprint_of(name, config, run, parents, inputs or {})
    runtime = detect(config.device, config.dtype, deterministic=config.deterministic)
    console = Console(stderr=True, quiet=not runtime.is_main)  # many processes, one voice
    done = read_stage(run, name)
    if done and done["fingerprint"] == fingerprint and done["finished"]:
        if whole(run / name):
            console.print(f"{name}: done before, nothing has changed ({run / name})", style="dim", highlight=False)
            yield None
            return
        console.print(f"[yellow]{name}: done before, but what it made is damaged: mending[/]", highlight=False)
    with joined(runtime, config.parallel, config.timeout) as ranks:
        stage = Stage(name, config, run, runtime, ranks, console, fingerprint, measure_peak(runtime))
        with stage.stop.listening(stage.say):
            yield stage


def write_stage(stage: Stage, seconds: float, about: Mapping[str, Any]) -> None:
    """`stage.json`: what a finished stage was made from and what it took. Its presence means that it is finished."""
    if stage.runtime.is_main:
        record = {
            "schema": SCHEMA, "stage": stage.name, "finished": True, "fingerprint": stage.fingerprint,
            "config": stage.config, "seconds": seconds, "seed": stage.config.seed, "peak_flops": stage.peak_flops,
            "peak_memory_gb": peak_memory_gb(), "commit": commit(), "versions": versions(),
            "machine": machine(stage.runtime), "time": time.time(), "not_finite": stage.not_finite, **about,
        }  # fmt: skip
        write_atomically(stage.folder / "stage.json", dumps(record))
    stage.ranks.wait()
