"""``st metrics``: curves in the terminal, or every number as JSON."""

import click

from st_client.output import clean, connect, json_option, print_json
from st_client.sparkline import sparkline
from st_shared.protocol.resources import MetricPoint


@click.command()
@click.argument("job")
@json_option
def metrics(*, job: str, as_json: bool) -> None:
    """Draw each metric of a job as a line, with its first, last and least value."""
    with connect() as client:
        points = list(client.metrics(client.find_job(job)))
    if as_json:
        print_json({"items": [point.model_dump(mode="json") for point in points]})
        return
    series = metric_series(points)
    if not series:
        click.echo("no metrics yet")
    for name, values in series.items():
        click.echo(f"{clean(name)}: {values[0]:.4g} -> {values[-1]:.4g} (least {min(values):.4g})")
        click.echo(f"  {sparkline(values)}")


def metric_series(points: list[MetricPoint]) -> dict[str, list[float]]:
    """The values of each metric by step; where attempts overlap, the newest one counts."""
    found: dict[str, dict[int, float]] = {}
    for point in points:
        for name, value in point.values.items():
            found.setdefault(name, {})[point.step] = value
    return {name: [steps[step] for step in sorted(steps)] for name, steps in found.items()}
