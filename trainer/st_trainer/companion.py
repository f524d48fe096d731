"""What goes along with a run and changes nothing of it: hooks, trackers, publication, the report.

Each hears every event of the journal, in the thread of the training; what takes long it does in the
background. What it has to say it says when it is polled.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from st_shared.protocol.journal import JournalEvent, MetricEvent, ProgressEvent
from st_trainer.journal import Journal

End = Literal["succeeded", "stopped", "failed"]
"""How a run ended."""

_PATIENCE: dict[End, float] = {"succeeded": 900.0, "stopped": 5.0, "failed": 5.0}
"""Seconds that a run that has ended waits for each; one that is stopped has little time."""


class Companion:
    """Does nothing by itself."""

    def hear(self, event: JournalEvent) -> None:
        """An event was written to the journal."""

    def poll(self) -> None:
        """Tell the journal of what was done in the background."""

    def end(self, end: End, error: BaseException | None) -> None:
        """The training is over; nothing more will be learned."""

    def close(self, patience: float) -> None:
        """Finish what is waiting within so many seconds, and tell of what is not."""


@contextmanager
def accompanied(companions: Sequence[Companion], journal: Journal) -> Iterator["Ends"]:
    """While it lasts, ``companions`` hear and are polled; then they end and close, in their order.

    An error of the training comes before any of theirs.
    """
    ends = Ends()
    is_polling = False

    def listen(event: JournalEvent) -> None:
        nonlocal is_polling
        for each in companions:
            each.hear(event)
        if isinstance(event, MetricEvent | ProgressEvent) and not is_polling:
            is_polling = True  # what they say then is heard, but polls nobody
            try:
                for each in companions:
                    each.poll()
            finally:
                is_polling = False

    journal.add_listener(listen)
    try:
        yield ends
    except BaseException as error:
        with suppress_later(error):
            _finish(companions, "failed", error)
        raise
    else:
        _finish(companions, ends.how, None)
    finally:
        journal.remove_listener(listen)


class Ends:
    """How the run is ending, as far as is known."""

    how: End = "succeeded"


@contextmanager
def suppress_later(first: BaseException) -> Iterator[None]:
    """An error in here becomes a note of ``first``, which is on its way."""
    try:
        yield
    except Exception as later:  # noqa: BLE001 -- the first error ends the run, and names this one
        first.add_note(f"afterwards: {later}")


def _finish(companions: Sequence[Companion], end: End, error: BaseException | None) -> None:
    for each in companions:
        each.end(end, error)
    for each in companions:
        each.close(_PATIENCE[end])
