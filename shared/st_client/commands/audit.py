"""``st audit``: who did what to what."""

from datetime import UTC, datetime, timedelta

import click

from st_client.errors import BadInputError
from st_client.output import connect, json_option, print_json, print_table
from st_shared.protocol.audit import AuditEntryView
from st_shared.spec.duration import seconds_of


@click.command()
@click.option("--actor", help="Such as user:anna, or user:*.")
@click.option("--action", help="Such as job.queued, or job.*.")
@click.option("--target", help="Id of what was acted upon.")
@click.option("--since", metavar="DURATION", help='The last ones alone, such as "2d".')
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
def audit(
    *,
    actor: str | None,
    action: str | None,
    target: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List audit entries, newest first, as far as your role reaches; needs admin.audit.

    `st-controller audit verify` says whether the log is what was written.
    """
    with connect() as client:
        found = client.audit(
            actor=actor, action=action, target=target, since=_since(since), limit=limit
        )
        items = list(found)
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in items]})
        return
    print_table(("AT", "ACTOR", "ACTION", "TARGET", "DETAILS"), map(_row, items))


def _row(entry: AuditEntryView) -> tuple[str, ...]:
    details = ", ".join(f"{key}={value}" for key, value in entry.details.items() if value)
    at = f"{entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return (at, entry.actor, entry.action, entry.target, details[:120])


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        seconds = float(str(seconds_of(text)))
    except ValueError as error:
        raise BadInputError(f"--since {text!r}: {error}") from None
    return datetime.now(UTC) - timedelta(seconds=seconds)
