"""``st logs``: what a job has said, and what it goes on to say."""

import click

from st_client.commands.follow import follow_to_end
from st_client.output import clean, connect, json_option, print_json


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@json_option
def logs(*, job: str, follow: bool, as_json: bool) -> None:
    """Print the log of a job; with -f and --json, one JSON document a line (NDJSON)."""
    with connect() as client:
        job_id = client.find_job(job)
        if follow:
            follow_to_end(client, job_id, as_json=as_json, only_logs=True)
        elif as_json:
            print_json({"items": [line.model_dump(mode="json") for line in client.logs(job_id)]})
        else:
            for line in client.logs(job_id):
                click.echo(f"{line.at:%H:%M:%S} {line.level:<7} {clean(line.message)}")
