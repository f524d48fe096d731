"""``st datasets``: registers folders and lists what is registered."""

from pathlib import Path

import click

from st_client.output import ago, connect, json_option, on_terminal, print_json, print_table, size


@click.group()
def datasets() -> None:
    """Register and list datasets."""


@datasets.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def push(*, name: str, folder: Path, as_json: bool) -> None:
    """Register the files of FOLDER as NAME; what is already stored is not sent again."""
    bar = _progress if on_terminal() and not as_json else lambda _done, _total: None
    with connect() as client:
        view, changed = client.push_dataset(name, folder, progress=bar)
    if as_json:
        print_json({**view.model_dump(mode="json"), "changed": changed})
    elif changed:
        click.echo(
            f"{name}: {view.samples} samples, {size(view.size)}, stored as {view.digest[:12]}"
        )
    else:
        click.echo(f"{name}: unchanged ({view.digest[:12]}), nothing was sent")


@datasets.command("list")
@json_option
def list_datasets(*, as_json: bool) -> None:
    """List registered datasets."""
    with connect() as client:
        found = list(client.datasets())
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in found]})
        return
    print_table(
        ("NAME", "SAMPLES", "SIZE", "DIGEST", "BY", "AGE"),
        (
            (
                item.name,
                str(item.samples),
                size(item.size),
                item.digest[:12],
                item.created_by,
                ago(item.created_at),
            )
            for item in found
        ),
    )


def _progress(done: int, total: int) -> None:
    share = done / total if total else 1.0
    line = f"\rsending {size(done)} of {size(total)} ({share:.0%})"
    click.echo(line.ljust(60), err=True, nl=done >= total)
