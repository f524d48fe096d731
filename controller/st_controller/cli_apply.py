"""``st-controller apply``: organisations, teams, roles, rules, quotas and prices as a file says."""

# ruff: noqa: PLC0415  (`--help` must not wait for what only some commands need)

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from st_controller.console import (
    data_option,
    fail,
    json_option,
    open_database,
    sentence,
    settings_of,
    show,
)

if TYPE_CHECKING:
    from st_shared.protocol.org_file import OrgFile


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Remove rules, quotas and prices not in the file.")
@click.option("--as", "name", metavar="USER", help="The admin in whose name [the first].")
@data_option
@json_option
def apply(
    file: Path, dry_run: bool, prune: bool, name: str | None, data: Path | None, as_json: bool
) -> None:
    """Make organisations, teams, roles, rules, quotas and prices as FILE says, all or nothing.

    Applying the same file again changes nothing. What is not in it is left alone.
    """
    wanted = _read(file)
    db = open_database(settings_of(data))
    from st_controller.errors import Refusal
    from st_controller.services.arrangement.file import apply as arrange
    from st_controller.services.arrangement.file import operator

    try:
        with db.read() as session:
            actor = operator(session, name)
        changes = arrange(db, actor, wanted, prune=prune, dry_run=dry_run)
    except Refusal as refused:
        fields = [f"{problem.field}: {problem.message}" for problem in refused.errors]
        fail("\n".join([refused.detail, *fields, *([refused.hint] if refused.hint else [])]))
    lines = [change.words for change in changes]
    count = f"{len(changes)} change{'s' * (len(changes) != 1)}"
    told = f"{count}{' would be made' if dry_run else ' made'}" if changes else "nothing to change"
    document = {"dry_run": dry_run, "changes": [_plain(asdict(change)) for change in changes]}
    show(as_json, document, "\n".join([*lines, told]))


def _read(file: Path) -> "OrgFile":
    from pydantic import ValidationError

    from st_shared.protocol.org_file import OrgFile
    from st_shared.spec.reading import SpecProblems, parse_yaml, read_text

    try:
        return OrgFile.model_validate(parse_yaml(read_text(file)) or {})
    except SpecProblems as wrong:
        fail("\n".join(problem.message for problem in wrong.problems))
    except ValidationError as error:
        fail(
            "\n".join(
                f"{'.'.join(str(part) for part in item['loc']) or file}: {sentence(item)}"
                for item in error.errors()
            )
        )


def _plain(value: object) -> object:
    """What JSON can hold; money as a string, so that none is rounded."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"{value:f}" if isinstance(value, Decimal) else value
