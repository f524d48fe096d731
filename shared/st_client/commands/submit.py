"""``st submit``: checks job files in full, puts them into the queue, follows one."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from st_client.commands.follow import follow_to_end
from st_client.errors import BadInputError
from st_client.output import clean, connect, json_option, print_json
from st_shared.protocol.resources import Reason
from st_shared.spec import JobSpec, SpecProblem, SpecProblems, validate_job
from st_shared.spec.reading import MAX_FILE_BYTES, parse_yaml, read_text

STDIN = Path("-")


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--follow", is_flag=True, help="Stay and show log, progress and samples.")
@click.option("--idempotency-key", help="Submitting again with the same key gives the same job.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Such as training.steps=10."
)
@click.option(
    "--bypass-quota", is_flag=True, help="Pass quotas that block; needs job.bypass.quota."
)
@json_option
def submit(
    *,
    files: Sequence[Path],
    follow: bool,
    idempotency_key: str | None,
    changes: Sequence[str],
    bypass_quota: bool,
    as_json: bool,
) -> None:
    """Put the jobs in FILES into the queue, all or none; - reads one from standard input.

    With --follow and --json, NDJSON. Of several jobs one may wait for another: after: ["@name"].
    """
    if bypass_quota:
        changes = [*changes, "bypass_quota=true"]
    if len(files) > 1:
        if follow:
            raise click.UsageError("--follow follows one job; submit one file")
        _submit_batch(files, idempotency_key, changes, as_json=as_json)
        return
    spec = read_spec(files[0], changes)
    with connect() as client:
        job = client.submit(spec, idempotency_key=idempotency_key)
        tell_warnings(job.warnings)
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


def tell_warnings(warnings: Sequence[Reason]) -> None:
    """Print warnings to standard error."""
    for warning in warnings:
        click.echo(f"warning: {clean(warning.message)}", err=True)
        if warning.hint:
            click.echo(f"hint: {clean(warning.hint)}", err=True)


def read_spec(file: Path, changes: Sequence[str] = ()) -> JobSpec | dict[str, Any]:
    """The job in ``file`` with ``changes`` made, or ``BadInputError`` with every mistake.

    One that begins from a saved configuration is whole at the controller alone, which checks it.
    """
    document = read_document(file, changes)
    if isinstance(document, dict) and document.get("config") is not None:
        whole: dict[str, Any] = json.loads(json.dumps(document, default=str))
        return whole
    try:
        return validate_job(document)
    except SpecProblems as error:
        raise bad_file(file, error) from None


def read_document(file: Path, changes: Sequence[str] = ()) -> Any:
    """The YAML in ``file`` (``-``: standard input) with ``changes`` made, or ``BadInputError``."""
    try:
        document = parse_yaml(_read_stdin() if file == STDIN else read_text(file))
        for change in changes:
            apply_change(document, change)
    except SpecProblems as error:
        raise bad_file(file, error) from None
    return document


def bad_file(file: Path, error: SpecProblems) -> BadInputError:
    """The refusal of a file, with every mistake in it."""
    count = len(error.problems)
    return BadInputError(
        f"{'standard input' if file == STDIN else file} cannot be submitted",
        detail=f"{count} mistakes" if count > 1 else "1 mistake",
        hint="mend the file, then submit it again",
        code="invalid_job_file",
        fields=[(problem.field, problem.message) for problem in error.problems],
    )


def _submit_batch(
    files: Sequence[Path], idempotency_key: str | None, changes: Sequence[str], *, as_json: bool
) -> None:
    if files.count(STDIN) > 1:
        raise click.UsageError("standard input can be read once")
    specs = [read_spec(file, changes) for file in files]
    with connect() as client:
        batch = client.submit_batch(specs, idempotency_key=idempotency_key)
    tell_warnings(list(dict.fromkeys(why for job in batch.jobs for why in job.warnings)))
    if as_json:
        print_json(batch)
        return
    for job in batch.jobs:
        click.echo(f"submitted {job.id} ({clean(job.name)})")


def _read_stdin() -> str:
    raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        said = f"is larger than {MAX_FILE_BYTES} bytes; a job file is small"
        raise SpecProblems([SpecProblem("", said)])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise SpecProblems([SpecProblem("", "is not UTF-8 text")]) from None


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
