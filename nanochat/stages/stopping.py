"""Ctrl-C and SIGTERM: the first lets what is under way end and be saved, the second stops at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

GOES_ON = "stopped; the same command goes on with what was saved"


class Interrupted(KeyboardInterrupt):
    """The user, or the system, asked us to stop, and what was done so far is saved."""


class Stop:
    """What has been asked of this process while the block `with stop.listening(say)` lasts."""

    def __init__(self) -> None:
        self.asked = False
        self.in_the_open = False

    @contextlib.contextmanager
    def listening(self, say: Callable[[str], None]) -> Iterator[None]:
        """Take SIGINT and SIGTERM; elsewhere than in the main thread, where signals can't be caught, do nothing."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked:
                signal.signal(number, signal.SIG_DFL)  # a third is for the system, whatever Python is waiting for
                raise KeyboardInterrupt
            self.asked = True
            with contextlib.suppress(RuntimeError):  # the signal came while a line was being written
                say("[yellow]stopping, and saving; once more to stop at once[/]")
            if self.in_the_open:
                raise Interrupted(GOES_ON)

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def breaking(self) -> Iterator[None]:
        """Let the first signal raise Interrupted here, instead of waiting for the end of the step.

        For work that takes long, and that may be broken off anywhere: it changes no weights, and files as a whole.
        """
        if self.asked:
            raise Interrupted(GOES_ON)
        self.in_the_open = True
        try:
            yield
        finally:
            self.in_the_open = False
