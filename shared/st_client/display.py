"""How a followed job looks: a live bar on a terminal, sparse lines elsewhere."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

import click

from st_client.events import CheckpointReady, JobEvent, OutputReady, ProgressUpdate, SampleReady
from st_client.output import clean, duration
from st_shared.protocol.resources import LogLine, StateChange

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_SECONDS, _LINE_SHARE, _LONGEST_SILENCE = 3.0, 0.02, 30.0


class Display(Protocol):
    """Shows the events of one job while it is entered as a context."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        ...

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        ...

    def reconnecting(self, reason: str) -> None:
        """Say that the stream broke off and is opened again."""
        ...


def event_line(event: JobEvent) -> str | None:
    """The line that stands for an event; none for metrics and progress."""
    if isinstance(event, LogLine):
        mark = "" if event.level in {"info", "debug"} else f"{event.level}: "
        return clean(f"{event.at:%H:%M:%S} {mark}{event.message}")
    if isinstance(event, StateChange):
        why = f": {event.reason.message}" if event.reason else ""
        return clean(f"{event.at:%H:%M:%S} == {event.state.value}{why}")
    if isinstance(event, SampleReady):
        return clean(f"{event.at:%H:%M:%S} sample ready: {event.path} (step {event.step})")
    if isinstance(event, CheckpointReady):
        return clean(f"{event.at:%H:%M:%S} checkpoint stored: step {event.step}")
    if isinstance(event, OutputReady):
        return clean(f"{event.at:%H:%M:%S} {event.name} ready: {event.path}")
    return None


def progress_line(update: ProgressUpdate) -> str:
    """Such as ``training 120/600 (20%)  loss 0.82  4.3 steps/s  ETA 1m 52s``."""
    share = f" ({update.step / update.steps:.0%})" if update.steps else ""
    return "  ".join([f"{update.phase} {update.step}/{update.steps}{share}", *measures(update)])


def measures(update: ProgressUpdate) -> list[str]:
    """Loss, speed and time left, as far as they are known."""
    found = []
    if update.loss is not None:
        found.append(f"loss {update.loss:.4f}")
    if update.steps_per_second:
        found.append(f"{update.steps_per_second:.2f} steps/s")
    if update.eta_seconds is not None:
        found.append(f"ETA {duration(update.eta_seconds)}")
    return found


class PlainDisplay:
    """Lines alone; of progress one where 3 s and 2 % have passed, or 30 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown_at, self._shown_share, self._phase = float("-inf"), -1.0, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left on the terminal that would have to go."""

    def show(self, event: JobEvent) -> None:
        """Print the line of an event, where it is due."""
        if isinstance(event, ProgressUpdate):
            if self._is_due(event):
                click.echo(progress_line(event))
        elif line := event_line(event):
            click.echo(line)

    def reconnecting(self, reason: str) -> None:
        """Say that the stream broke off and is opened again."""
        click.echo(f"connection lost ({reason}); reconnecting", err=True)

    def _is_due(self, update: ProgressUpdate) -> bool:
        share = update.step / update.steps if update.steps else 0.0
        waited = self._clock() - self._shown_at
        moved = abs(share - self._shown_share) >= _LINE_SHARE or update.phase != self._phase
        if not ((moved and waited >= _LINE_SECONDS) or waited >= _LONGEST_SILENCE):
            return False
        self._shown_at, self._shown_share, self._phase = self._clock(), share, update.phase
        return True


class TerminalDisplay:
    """Lines that scroll above a bar with step, loss, speed and time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415  (slow to load)

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[measures]}"),
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: JobEvent) -> None:
        """Move the bar, or print a line above it."""
        if isinstance(event, ProgressUpdate):
            self._move(event)
        elif line := event_line(event):
            self._print(line)

    def reconnecting(self, reason: str) -> None:
        """Say that the stream broke off and is opened again."""
        self._print(f"connection lost ({reason}); reconnecting")

    def _print(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _move(self, update: ProgressUpdate) -> None:
        if self._task is None:
            self._task = self._progress.add_task(update.phase, measures="")
        self._progress.update(
            self._task,
            description=update.phase,
            completed=update.step,
            total=max(update.steps, 1),
            measures="  ".join(measures(update)),
        )
