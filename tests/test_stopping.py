"""Ctrl-C and SIGTERM: the first is a wish, the second an order."""

import signal
import threading

import pytest

from nanochat.stages.stopping import Interrupted, Stop

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_the_second_stops_at_once(number):
    stop, said, before = Stop(), [], signal.getsignal(number)
    with stop.listening(said.append):
        signal.raise_signal(number)
        assert stop.asked
        assert "once more to stop at once" in said[0]
        with pytest.raises(KeyboardInterrupt) as second:
            signal.raise_signal(number)
        assert not isinstance(second.value, Interrupted), "nothing was saved"
        assert signal.getsignal(number) == signal.SIG_DFL, "a third is not even for Python"
    assert signal.getsignal(number) == before


def test_work_that_may_be_broken_off_is(monkeypatch):
    stop = Stop()
    with stop.listening(lambda line: None):
        with pytest.raises(Interrupted), stop.breaking():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted), stop.breaking():
            raise AssertionError("asked before: it does not begin")


def test_a_line_that_cannot_be_said_stops_nothing():
    """A signal may come while the screen is being written to, which must not be entered twice."""

    def say(line):
        raise RuntimeError("reentrant call")

    stop = Stop()
    with stop.listening(say):
        signal.raise_signal(signal.SIGTERM)
    assert stop.asked


def test_beside_the_main_thread_it_listens_to_nothing():
    stop, done = Stop(), []

    def work():
        with stop.listening(lambda line: None), stop.breaking():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
