"""``st artifacts``: what a job has stored."""

from pathlib import Path

import click

from st_client.client import Client
from st_client.output import connect, json_option, on_terminal, print_json, print_table, size
from st_shared.protocol.resources import ArtifactView


@click.command()
@click.argument("job")
@click.option("--kind", type=click.Choice(["sample", "checkpoint", "output"]), help="Only these.")
@click.option(
    "--download",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Fetch the files into this folder, verified; what is already there stays.",
)
@json_option
def artifacts(*, job: str, kind: str | None, folder: Path | None, as_json: bool) -> None:
    """List the files of a job, or fetch them; of several attempts the newest file counts."""
    with connect() as client:
        job_id = client.find_job(job)
        newest = {item.path: item for item in client.artifacts(job_id, kind)}
        found = list(newest.values())
        files = _download(client, job_id, found, folder, quiet=as_json) if folder else []
    if as_json:
        items = [item.model_dump(mode="json") for item in found]
        for item, file in zip(items, files, strict=False):
            item["file"] = str(file)
        print_json({"items": items})
    elif folder is None:
        print_table(
            ("KIND", "STEP", "SIZE", "PATH", "SHA-256"),
            (
                (item.kind, _step(item), size(item.size), item.path, item.sha256[:12])
                for item in found
            ),
        )


def _download(
    client: Client, job_id: str, found: list[ArtifactView], folder: Path, *, quiet: bool
) -> list[Path]:
    files: list[Path] = []
    for number, item in enumerate(found, start=1):
        files.append(client.download(job_id, item, folder))
        if not quiet:
            click.echo(f"{number}/{len(found)} {files[-1]} ({size(item.size)})")
    if not found and not quiet and on_terminal():
        click.echo("no files yet")
    return files


def _step(item: ArtifactView) -> str:
    return "" if item.step is None else str(item.step)
