"""What a person sees of a run: a progress line on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)

from st_shared.protocol.journal import (
    JournalEvent,
    LogEvent,
    OutputEvent,
    ProgressEvent,
    SampleEvent,
)
from st_trainer.journal import Listener

_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}
_PACED = ("caching", "training")
"""Phases in which work is counted and the time left is known."""
_PLAIN_SHARE = 20
"""Without a terminal, progress is told about this many times in a run."""


@contextmanager
def console_listener() -> Iterator[Listener]:
    """A listener that shows events on standard error until the block ends."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield ProgressLine(progress)


class ProgressLine:
    """Shows progress in place, and everything else above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._pace = ""
        self._task: TaskID = progress.add_task("loading", total=None, pace="")

    def __call__(self, event: JournalEvent) -> None:
        """Show ``event``."""
        if isinstance(event, ProgressEvent):
            if event.phase in _PACED:
                self._pace = pace_of(event)
            self._progress.update(
                self._task,
                description=event.phase,
                completed=event.step,
                total=event.steps or None,
                pace=self._pace,
            )
        elif text := sentence_of(event):
            style = _STYLES[event.level] if isinstance(event, LogEvent) else "green"
            self._progress.console.print(text, style=style, markup=False)


class PlainLines:
    """Prints each event as a line, and progress now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = ("", -1)

    def __call__(self, event: JournalEvent) -> None:
        """Print ``event``, unless it is progress that says little new."""
        text = sentence_of(event)
        if isinstance(event, ProgressEvent) and event.phase in _PACED:
            told = event.phase, event.step * _PLAIN_SHARE // max(1, event.steps)
            if told != self._told:
                self._told = told
                what = "step" if event.phase == "training" else event.phase
                text = f"{what} {event.step} of {event.steps}  {pace_of(event)}".rstrip()
        if text:
            self._console.print(text, markup=False, soft_wrap=True)


def sentence_of(event: JournalEvent) -> str | None:
    """What to tell of ``event`` in a line of its own; None: nothing."""
    if isinstance(event, LogEvent):
        if event.level == "error":  # ends the run; the command tells it last
            return None
        return event.message if event.level == "info" else f"{event.level}: {event.message}"
    if isinstance(event, SampleEvent):
        return f"samples of step {event.step}: {event.path}"
    if isinstance(event, OutputEvent):
        return f"{event.name.replace('_', ' ')}: {event.path}"
    return None


def pace_of(event: ProgressEvent) -> str:
    """Loss, speed and time left, as far as they are known."""
    parts = []
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.steps_per_second is not None:
        parts.append(f"{event.steps_per_second:.2f} steps/s")
    if event.eta_seconds is not None:
        minutes, seconds = divmod(round(event.eta_seconds), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)
