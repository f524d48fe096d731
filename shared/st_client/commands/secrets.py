"""``st secrets``: values that jobs are given and nobody is shown."""

import sys
from pathlib import Path

import click

from st_client.errors import BadInputError
from st_client.output import ago, connect, json_option, print_json, print_table
from st_shared.protocol.secrets import LARGEST
from st_shared.redaction import SHORTEST

_shared = click.option("--shared", is_flag=True, help="The organisation's, for all its jobs.")


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def secrets(context: click.Context, *, as_json: bool) -> None:
    """List secrets by name; a job file uses one as `secrets: {HF_TOKEN: NAME}`."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.secrets())
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in found]})
        return
    print_table(
        ("NAME", "WHOSE", "CHANGED", "BY"),
        (
            (
                item.name,
                "organisation" if item.shared else "yours",
                ago(item.changed_at),
                item.changed_by,
            )
            for item in found
        ),
    )


@secrets.command("set")
@click.argument("name")
@click.option(
    "--from-file", "path", type=click.Path(path_type=Path, dir_okay=False), help="Its whole text."
)
@_shared
@json_option
def set_(*, name: str, path: Path | None, shared: bool, as_json: bool) -> None:
    """Store a secret, read from a prompt, a file, or standard input; an earlier one is replaced."""
    with connect() as client:
        kept = client.set_secret(name, _value(path), shared=shared)
    if as_json:
        print_json(kept)
    else:
        click.echo(f"stored {name}")


@secrets.command()
@click.argument("name")
@_shared
@json_option
def delete(*, name: str, shared: bool, as_json: bool) -> None:
    """Remove a secret; attempts that run keep what they were given."""
    with connect() as client:
        client.delete_secret(name, shared=shared)
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"deleted {name}")


def _value(path: Path | None) -> str:
    if path is not None:
        value = path.read_text(encoding="utf-8")
    elif sys.stdin.isatty():
        value = click.prompt("Value", hide_input=True)
    else:
        value = sys.stdin.read(LARGEST + 2).rstrip("\n")
    if not SHORTEST <= len(value) <= LARGEST:
        raise BadInputError(
            f"a secret has {SHORTEST} to {LARGEST} characters, not {len(value)}",
            hint="shorter ones could not be told from other text in a log",
        )
    return value
