"""A progress bar with loss, speed, utilisation and the time still to go; plain lines where there is no terminal."""

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """`with Progress(console, "pretrain", total) as progress: progress.advance(done, loss=..., speed=..., mfu=...)`."""

    def __init__(self, console: Console, title: str, total: int, start: int = 0) -> None:
        self.console, self.title, self.total, self.start = console, title, total, start
        self.began = self.last_line = time.perf_counter()
        self.loss = 0.0
        self.bar = Bar(
            TextColumn(f"{title:<9}"), BarColumn(None),
            TextColumn("{task.completed:>5}/{task.total}  {task.fields[figures]}"),
            TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task(title, total=total, completed=start, figures="")

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, done: int, *, loss: float, speed: float, mfu: float) -> None:
        """Show that `done` steps are done. The loss shown is a running mean, since a single step's is noisy."""
        weight = max(0.05, 1 / (done - self.start))
        if math.isfinite(loss):
            self.loss += weight * (loss - self.loss)
        figures = f"loss {self.loss:.3f}  {speed:>7,.0f} tok/s  MFU {100 * mfu:.0f} %"
        self.bar.update(self.task, completed=done, figures=figures)
        now = time.perf_counter()
        if not self.console.is_terminal and (now - self.last_line > SECONDS_BETWEEN_LINES or done == self.total):
            self.last_line = now
            left = (now - self.began) / (done - self.start) * (self.total - done)
            line = f"{self.title:<9} {done:>5}/{self.total}  {figures}  {left:.0f} s left"
            self.console.print(line, highlight=False, soft_wrap=True)


class Ticks:
    """A bar for work that is only counted: `with Ticks(console, "merges") as ticks: ticks.show(done, total)`."""

    def __init__(self, console: Console, title: str) -> None:
        self.title, self.began, self.last_line = title, time.perf_counter(), time.perf_counter()
        columns = TextColumn(f"{title:<9}"), BarColumn(None), TextColumn("{task.completed:>5}/{task.total}")
        self.bar = Bar(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
        )
        self.task = self.bar.add_task(title, total=None)

    def __enter__(self) -> "Ticks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done. The bar appears with the first call: one that waits shows nothing."""
        self.bar.start()
        self.bar.update(self.task, completed=done, total=total)
        now = time.perf_counter()
        if self.bar.disable and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.began) / max(1, done) * (total - done)
            self.bar.console.print(f"{self.title:<9} {done:>5}/{total}  {left:.0f} s left", highlight=False)
