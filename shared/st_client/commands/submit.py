"""``st submit``: checks a job file in full, puts it into the queue, follows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from st_client.commands.follow import follow_to_end
from st_client.errors import BadInputError
from st_client.output import clean, connect, json_option, print_json
from st_shared.spec import JobSpec, SpecProblems, validate_job
from st_shared.spec.reading import parse_yaml, read_text


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Stay and show log, progress and samples.")
@click.option("--idempotency-key", help="Submitting again with the same key gives the same job.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Such as training.steps=10."
)
@json_option
def submit(
    *,
    file: Path,
    follow: bool,
    idempotency_key: str | None,
    changes: Sequence[str],
    as_json: bool,
) -> None:
    """Put the job in FILE into the queue; with --follow and --json, NDJSON."""
    spec = read_spec(file, changes)
    with connect() as client:
        job = client.submit(spec, idempotency_key=idempotency_key)
        if as_json:
            print_json(
                {"event": "submitted", "job": job.model_dump(mode="json")} if follow else job
            )
        else:
            why = f": {clean(job.reason.message)}" if job.reason else ""
            click.echo(f"submitted {job.id} ({job.name}), {job.state.value}{why}")
        if follow:
            follow_to_end(client, job.id, as_json=as_json)
        elif not as_json:
            click.echo(f"follow it with: st logs {job.id} -f")


def read_spec(file: Path, changes: Sequence[str] = ()) -> JobSpec:
    """The job in ``file`` with ``changes`` made, or ``BadInputError`` with every mistake."""
    try:
        document = parse_yaml(read_text(file))
        for change in changes:
            apply_change(document, change)
        return validate_job(document)
    except SpecProblems as error:
        count = len(error.problems)
        raise BadInputError(
            f"{file} cannot be submitted",
            detail=f"{count} mistakes" if count > 1 else "1 mistake",
            hint="mend the file, then submit it again",
            code="invalid_job_file",
            fields=[(problem.field, problem.message) for problem in error.problems],
        ) from None


def apply_change(document: Any, change: str) -> None:
    """Set the value at a dotted path, such as ``training.datasets.0.repeats=2``, read as YAML."""
    path, equals, text = change.partition("=")
    *parents, last = path.split(".")
    if not (equals and path and all(parents) and last):
        raise BadInputError(f"--set {change!r} names no value", hint="write it as KEY=VALUE")
    place = document
    for part in parents:
        place = _inside(place, part, change)
    value = parse_yaml(text)
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    else:
        raise _no_place(change, last)


def _inside(place: Any, part: str, change: str) -> Any:
    if isinstance(place, dict):
        return place.setdefault(part, {})
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    raise _no_place(change, part)


def _no_place(change: str, part: str) -> BadInputError:
    return BadInputError(
        f"--set {change!r}: there is no {part!r} to set",
        hint="name a key of a mapping, or an existing position of a list, counted from 0",
    )
