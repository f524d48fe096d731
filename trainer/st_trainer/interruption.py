"""SIGTERM and SIGINT: the first asks the run to stop at a checkpoint, the second ends it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Set once a signal has asked the run to stop; call it to ask whether that is so."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether the run should stop."""
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch the first SIGTERM or SIGINT in a ``StopRequest``; a second one ends the process.

    A second signal finds nothing half-written: checkpoints and results appear by a rename.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, _frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
