"""``st configs``: parts of job files under a name."""

from pathlib import Path

import click

from st_client.errors import BadInputError
from st_client.output import connect, json_option, print_json, print_table
from st_shared.spec.reading import SpecProblems, parse_yaml, read_text


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def configs(context: click.Context, *, as_json: bool) -> None:
    """List saved configurations, from which job files begin by `config: NAME`."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.configs())
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [(each.name, str(each.version), each.created_by, each.team, each.note) for each in found]
    print_table(("NAME", "VERSION", "BY", "TEAM", "NOTE"), rows)


@configs.command("show")
@click.argument("name")
@json_option
def show_config(*, name: str, as_json: bool) -> None:
    """Print a configuration."""
    with connect() as client:
        found = client.people.config(name)
    print_json(found if as_json else found.document)


@configs.command("save")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--note", default="", help="For people; of a new one.")
@json_option
def save_config(*, name: str, file: Path, note: str, as_json: bool) -> None:
    """Save part of a job file under NAME, or put it in place of what is there."""
    try:
        document = parse_yaml(read_text(file))
    except SpecProblems as found:
        raise BadInputError(f"{file} cannot be read", detail=str(found)) from None
    if not isinstance(document, dict):
        raise BadInputError(f"{file} is no part of a job file", hint="it maps keys to values")
    with connect() as client:
        known = {each.name for each in client.people.configs()}
        if name in known:
            saved = client.people.change_config(name, document)
        else:
            saved = client.people.create_config(name, document, note)
    print_json(saved) if as_json else click.echo(f"saved {name}, version {saved.version}")


@configs.command("delete")
@click.argument("name")
@json_option
def delete_config(*, name: str, as_json: bool) -> None:
    """Remove a configuration; jobs that were made of it stay as they are."""
    with connect() as client:
        client.people.delete_config(name)
    print_json({"deleted": name}) if as_json else click.echo(f"removed {name}")
