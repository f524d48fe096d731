"""``st metrics``: curves in the terminal, or every number as JSON."""

from collections.abc import Sequence

import click

from st_client.output import clean, connect, json_option, print_json
from st_client.sparkline import sparkline
from st_shared.curves import as_one_curve
from st_shared.protocol.resources import MetricPoint

DRAWN = 5000
"""Points at most that a curve is drawn from."""


@click.command()
@click.argument("job")
@json_option
def metrics(*, job: str, as_json: bool) -> None:
    """Draw each metric of a job as a line, with its first, last and least value.

    Of a long run some points are drawn, evenly chosen; --json gives every one.
    """
    with connect() as client:
        job_id = client.find_job(job)
        if as_json:
            points = [point.model_dump(mode="json") for point in client.metrics(job_id)]
            print_json({"items": points})
            return
        drawn = client.curve(job_id, DRAWN)
    series = metric_series(drawn.items)
    if not series:
        click.echo("no metrics yet")
    if len(drawn.items) < drawn.total:
        click.echo(f"drawn from {len(drawn.items)} of {drawn.total} points")
    for name, values in series.items():
        click.echo(f"{clean(name)}: {values[0]:.4g} -> {values[-1]:.4g} (least {min(values):.4g})")
        click.echo(f"  {sparkline(values)}")


def curve(points: Sequence[MetricPoint]) -> list[MetricPoint]:
    """The points of a job as one curve; see ``st_shared.curves``."""
    return as_one_curve(points, lambda point: (point.attempt, point.step, point.seq))


def metric_series(points: list[MetricPoint]) -> dict[str, list[float]]:
    """The values of each metric along the curve; of one step the value that was told last."""
    found: dict[str, dict[int, float]] = {}
    for point in curve(points):
        for name, value in point.values.items():
            found.setdefault(name, {})[point.step] = value
    return {name: list(steps.values()) for name, steps in found.items()}
