"""``st can-i``: whether something would be let through, and if not, what stands against it."""

from collections.abc import Sequence
from pathlib import Path

import click

from st_client.commands.submit import read_document
from st_client.errors import BadInputError, ForbiddenError
from st_client.output import clean, connect, json_option, print_json
from st_shared.protocol.policy_check import CheckStep, CheckView

_WORDS = {
    "yes": "yes: it would be queued",
    "no": "no: it would be refused",
    "needs_approval": "yes, but it would wait for approval",
}


@click.group("can-i")
def can_i() -> None:
    """Say whether something would be let through, step by step."""


@can_i.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Such as training.steps=10."
)
@json_option
def submit(*, file: Path, changes: Sequence[str], as_json: bool) -> None:
    """Say whether the job in FILE could be submitted; nothing is. Ends with 4 where it could not.

    Looks at the file, your permissions, the rules, quotas, approvals, and the workers there are.
    """
    document = read_document(file, changes)
    if not isinstance(document, dict):
        raise BadInputError(f"{file} holds no job: a job file is a mapping of keys to values")
    with connect() as client:
        found = client.check(document)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.verdict == "no":
        click.get_current_context().exit(ForbiddenError.exit_code)


def _print(found: CheckView) -> None:
    click.echo(f"{_WORDS[found.verdict]}, as {found.org}/{found.team}")
    for step in found.steps:
        for line in _lines(step):
            click.echo(line)


def _lines(step: CheckStep) -> list[str]:
    word = {"yes": "ok", "no": "refused", "waits": "waits"}[step.verdict]
    lines = [f"  {step.step:<11} {word}"]
    lines += [
        f"    {clean(_field(problem.field))}{clean(problem.message)}" for problem in step.problems
    ]
    return lines + [f"    {clean(note)}" for note in step.notes]


def _field(name: str) -> str:
    return f"{name}: " if name else ""
