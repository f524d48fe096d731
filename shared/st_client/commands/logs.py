"""``st logs``: what a job has said, and what it goes on to say."""

import json
import re
from collections.abc import Iterator
from datetime import datetime

import click

from st_client.client import Client
from st_client.commands.follow import follow_to_end
from st_client.commands.log_choice import LogChoice, PatternType, SinceType
from st_client.display import event_line
from st_client.output import clean, connect, json_option, jsonable, print_json
from st_shared.protocol.resources import LogLine, StateChange

MOST_LINES = 5000


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--attempt", type=click.IntRange(1), help="Lines of this attempt alone.")
@click.option(
    "-n", "--tail", type=click.IntRange(1, MOST_LINES), help="Begin with the last so many lines."
)
@click.option("--since", type=SinceType(), help="Lines since then: a moment, or 30s, 10m, 2h ago.")
@click.option("--grep", "pattern", type=PatternType(), help="Of these, lines that match.")
@json_option
def logs(
    *,
    job: str,
    follow: bool,
    attempt: int | None,
    tail: int | None,
    since: datetime | None,
    pattern: re.Pattern[str] | None,
    as_json: bool,
) -> None:
    """Print the log of a job; with -f and --json, one JSON document a line (NDJSON)."""
    choice = LogChoice(attempt, since, tail, pattern)
    with connect() as client:
        job_id = client.find_job(job)
        if follow:
            _follow(client, job_id, choice, as_json)
        elif as_json:
            lines = _stored(client, job_id, choice)
            print_json({"items": [line.model_dump(mode="json") for line in lines]})
        else:
            for line in _stored(client, job_id, choice):
                click.echo(f"{line.at:%H:%M:%S} {line.level:<7} {clean(line.message)}")


def _stored(client: Client, job_id: str, choice: LogChoice) -> Iterator[LogLine]:
    for line in _before_matching(client, job_id, choice):
        if choice.has(line):
            yield line


def _before_matching(client: Client, job_id: str, choice: LogChoice) -> Iterator[LogLine]:
    return client.logs(job_id, attempt=choice.attempt, since=choice.since, tail=choice.tail)


def _follow(client: Client, job_id: str, choice: LogChoice, as_json: bool) -> None:
    """First what is stored, where not all of that is wanted; then all that comes after it."""
    last: LogLine | None = None
    if not choice.is_from_the_beginning:
        for last in _before_matching(client, job_id, choice):
            if choice.has(last):
                _print(last, as_json)
    follow_to_end(
        client,
        job_id,
        as_json=as_json,
        after=last,
        is_shown=lambda event: (
            choice.shows(event, last) and not (as_json and isinstance(event, StateChange))
        ),
    )


def _print(line: LogLine, as_json: bool) -> None:
    document = {"event": "log", **jsonable(line)}
    click.echo(json.dumps(document, ensure_ascii=False) if as_json else event_line(line))
