"""Following a job to its end, and what is said when a person stops following."""

import json
from collections.abc import Callable, Iterator

import click

from st_client.client import Client
from st_client.display import PlainDisplay, TerminalDisplay
from st_client.errors import ClientError
from st_client.events import EVENT_NAMES, JobEvent
from st_client.output import jsonable, on_terminal
from st_shared.protocol.resources import LogLine, StateChange
from st_shared.protocol.states import JobState


def _every(_event: JobEvent) -> bool:
    """Everything is shown."""
    return True


def follow_to_end(
    client: Client,
    job_id: str,
    *,
    as_json: bool,
    after: LogLine | None = None,
    is_shown: Callable[[JobEvent], bool] = _every,
) -> None:
    """Show what happens to a job until it ends; ``ClientError`` unless it succeeds.

    Lines up to ``after`` are left out, and whatever is not to be shown. Ctrl-C ends the following
    alone: the job goes on, and how to follow again is said.
    """
    try:
        if as_json:
            events = client.events(job_id, after=after, on_reconnect=_lost)
            last = _tell(events, is_shown, _print_event)
        else:
            display = TerminalDisplay() if on_terminal() else PlainDisplay()
            with display:
                events = client.events(job_id, after=after, on_reconnect=display.reconnecting)
                last = _tell(events, is_shown, display.show)
    except KeyboardInterrupt:
        click.echo(
            f"\n{job_id} goes on without being watched\n"
            f"  follow again: st logs {job_id} -f\n"
            f"  stop it:      st cancel {job_id}",
            err=True,
        )
        raise click.exceptions.Exit(130) from None
    if last is not None and last.state is not JobState.SUCCEEDED:
        raise job_error(job_id, last)


def job_error(job_id: str, change: StateChange) -> ClientError:
    """The error that says how a job ended."""
    return ClientError(
        f"{job_id} {'was ' if change.state is not JobState.FAILED else ''}{change.state.value}",
        detail=change.reason.message if change.reason else "",
        hint=change.reason.hint if change.reason else None,
        code=f"job_{change.state.value}",
    )


def _tell(
    events: Iterator[JobEvent],
    is_shown: Callable[[JobEvent], bool],
    show: Callable[[JobEvent], None],
) -> StateChange | None:
    """Show events until there are no more; the last state among them."""
    last = None
    for event in events:
        if isinstance(event, StateChange):
            last = event
        if is_shown(event):
            show(event)
    return last


def _lost(reason: str) -> None:
    click.echo(f"reconnecting: {reason}", err=True)


def _print_event(event: JobEvent) -> None:
    document = {"event": EVENT_NAMES[type(event)], **jsonable(event)}
    click.echo(json.dumps(document, ensure_ascii=False))
