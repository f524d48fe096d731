"""``st retry`` and ``st priority``."""

import click

from st_client.commands.jobs import priority_words, state_words
from st_client.output import connect, json_option, print_json
from st_shared.protocol.resources import JobView
from st_shared.spec import Priority

_CLASSES = click.Choice([priority.value for priority in Priority])
_LEVELS = click.Choice([str(level) for level in range(0, 60, 10)])


@click.command()
@click.argument("job")
@json_option
def retry(*, job: str, as_json: bool) -> None:
    """Queue a failed or cancelled job again; it goes on from its last checkpoint."""
    with connect() as client:
        view = client.retry(client.find_job(job))
    _tell(view, f"{view.id} is {state_words(view)} again", as_json=as_json)


@click.command()
@click.argument("job")
@click.argument("wanted", metavar="[CLASS]", required=False, type=_CLASSES)
@click.option("--override", type=_LEVELS, help="Level in place of the class; for admins.")
@click.option("--no-override", is_flag=True, help="Give the class back; for admins.")
@json_option
def priority(
    *, job: str, wanted: str | None, override: str | None, no_override: bool, as_json: bool
) -> None:
    """Change the priority of a job that waits: its CLASS, or an admin's override."""
    if [wanted is not None, override is not None, no_override].count(True) != 1:
        raise click.UsageError("give a class, --override LEVEL or --no-override")
    with connect() as client:
        job_id = client.find_job(job)
        if wanted is not None:
            view = client.prioritise(job_id, wanted)
        else:
            view = client.override(job_id, int(override) if override else None)
    _tell(view, f"{view.id} has the priority {priority_words(view)}", as_json=as_json)


def _tell(view: JobView, said: str, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        click.echo(said)
