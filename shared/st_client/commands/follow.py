"""Following a job to its end, and what is said when a person stops following."""

import json

import click

from st_client.client import Client
from st_client.display import Display, PlainDisplay, TerminalDisplay
from st_client.errors import ClientError
from st_client.events import EVENT_NAMES, JobEvent
from st_client.output import jsonable, on_terminal
from st_shared.protocol.resources import LogLine, StateChange
from st_shared.protocol.states import JobState


def follow_to_end(client: Client, job_id: str, *, as_json: bool, only_logs: bool = False) -> None:
    """Show what happens to a job until it ends; ``ClientError`` unless it succeeds.

    Ctrl-C ends the following alone: the job goes on, and how to follow again is said.
    """
    try:
        if as_json:
            last = _print_events(client, job_id, only_logs)
        else:
            display = TerminalDisplay() if on_terminal() else PlainDisplay()
            with display:
                last = _show_events(client, job_id, display, only_logs)
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


def _show_events(
    client: Client, job_id: str, display: Display, only_logs: bool
) -> StateChange | None:
    last = None
    for event in client.events(job_id, on_reconnect=display.reconnecting):
        if isinstance(event, StateChange):
            last = event
        if not only_logs or isinstance(event, LogLine | StateChange):
            display.show(event)
    return last


def _print_events(client: Client, job_id: str, only_logs: bool) -> StateChange | None:
    def lost(reason: str) -> None:
        click.echo(f"reconnecting: {reason}", err=True)

    last = None
    for event in client.events(job_id, on_reconnect=lost):
        if isinstance(event, StateChange):
            last = event
        if not only_logs or isinstance(event, LogLine):
            _print_event(event)
    return last


def _print_event(event: JobEvent) -> None:
    document = {"event": EVENT_NAMES[type(event)], **jsonable(event)}
    click.echo(json.dumps(document, ensure_ascii=False))
