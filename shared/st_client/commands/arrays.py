"""``st sweep`` and ``st arrays``."""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
from pydantic_core import to_jsonable_python

from st_client.commands.submit import bad_file, read_document, tell_warnings
from st_client.errors import BadInputError
from st_client.output import ago, clean, connect, json_option, print_json, print_table
from st_shared.protocol.resources import JobArrayView
from st_shared.spec import SpecProblem, SpecProblems
from st_shared.spec.reading import parse_yaml

_CAP = click.IntRange(1)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set-grid",
    "axes",
    multiple=True,
    metavar="KEY=V1,V2",
    help="Values of one key, read as YAML; several make every combination.",
)
@click.option(
    "--list",
    "listed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML list; each entry maps dotted keys to values.",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="The same for all.")
@click.option("--name", help="The jobs are called NAME-000 and so on.")
@click.option("--max-running", type=_CAP, help="Most of its jobs that run at one time.")
@click.option("--idempotency-key", help="Submitting again with the same key gives the same array.")
@json_option
def sweep(
    *,
    file: Path,
    axes: Sequence[str],
    listed: Path | None,
    changes: Sequence[str],
    name: str | None,
    max_running: int | None,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Submit many variations of the job in FILE, all or none."""
    if bool(axes) == bool(listed):
        raise click.UsageError("give --set-grid, as often as needed, or --list FILE")
    spec = _sendable(file, read_document(file, changes))
    grid = dict(_axis(axis) for axis in axes) if axes else None
    sets = _sendable(listed, read_document(listed)) if listed else None
    with connect() as client:
        array = client.submit_array(
            spec,
            grid=grid,
            changes=sets,
            name=name,
            max_running=max_running,
            idempotency_key=idempotency_key,
        )
    tell_warnings(array.warnings)
    if as_json:
        print_json(array)
        return
    click.echo(f"submitted {array.id} ({clean(array.name)}), {array.size} jobs")
    click.echo(f"see them with: st jobs --array {array.id}")


@click.command()
@click.argument("array", required=False)
@click.option("--max-running", type=_CAP, help="Let at most so many of its jobs run.")
@click.option("--no-max-running", is_flag=True, help="Let as many of its jobs run as fit.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@json_option
def arrays(
    *,
    array: str | None,
    max_running: int | None,
    no_max_running: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List job arrays, newest first; or show one, or change its cap."""
    caps = max_running is not None or no_max_running
    if (max_running is not None and no_max_running) or (caps and array is None):
        raise click.UsageError("a cap needs an array, and is either set or taken away")
    with connect() as client:
        if array is None:
            _print_arrays(islice(client.arrays(), limit), as_json=as_json)
            return
        array_id = client.find_array(array)
        view = client.cap_array(array_id, max_running) if caps else client.array(array_id)
    tell_array(view, as_json=as_json)


def tell_array(array: JobArrayView, *, as_json: bool) -> None:
    """Print one job array."""
    if as_json:
        print_json(array)
        return
    rows = [
        ("id", array.id),
        ("name", array.name),
        ("jobs", f"{array.size}: {_counts(array)}"),
        ("submitted", f"{array.submitted_at:%Y-%m-%d %H:%M:%S %Z} by {array.submitted_by}"),
        ("at once", str(array.max_running or "as many as fit")),
    ]
    for name, text in rows:
        click.echo(f"{name + ':':<12}{clean(text)}")
    click.echo(f"see them with: st jobs --array {array.id}")


def _print_arrays(found: Iterable[JobArrayView], *, as_json: bool) -> None:
    if as_json:
        print_json({"items": [array.model_dump(mode="json") for array in found]})
        return
    print_table(
        ("ID", "NAME", "JOBS", "STATES", "BY", "AGE"),
        (
            (
                array.id,
                array.name,
                str(array.size),
                _counts(array),
                array.submitted_by,
                ago(array.submitted_at),
            )
            for array in found
        ),
    )


def _counts(array: JobArrayView) -> str:
    return ", ".join(f"{count} {state.value}" for state, count in array.counts.items())


def _axis(text: str) -> tuple[str, list[Any]]:
    """``training.steps=10,20`` as a path and its values."""
    path, equals, values = text.partition("=")
    if not (path and equals):
        raise BadInputError(f"--set-grid {text!r} names no values", hint="write it as KEY=V1,V2")
    try:
        found = _sendable(Path(f"--set-grid {path}"), parse_yaml(f"[{values}]"))
    except SpecProblems as error:
        raise BadInputError(f"--set-grid {text!r} cannot be read", detail=str(error)) from None
    return path, list(found)


def _sendable(source: Path, document: object) -> Any:
    """The document as JSON can carry it: moments as text, and no NaN."""
    found = to_jsonable_python(document)
    try:
        json.dumps(found, allow_nan=False)
    except ValueError:
        said = "holds .nan or .inf, which is no number; write a number"
        raise bad_file(source, SpecProblems([SpecProblem("", said)])) from None
    return found
