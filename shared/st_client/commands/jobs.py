"""``st jobs``, ``st show`` and ``st cancel``."""

import json
from itertools import islice

import click

from st_client.client import ARRAY_PREFIX
from st_client.commands.arrays import tell_array
from st_client.errors import ClientError
from st_client.output import ago, clean, connect, duration, json_option, print_json, print_table
from st_shared.protocol.resources import AttemptView, JobDetail, JobView, ProgressView
from st_shared.protocol.states import JobState
from st_shared.spec import Priority

_CLASSES = click.Choice([priority.value for priority in Priority])
_STATES = click.Choice([state.value for state in JobState])


@click.command()
@click.option("--state", type=_STATES, help="Only jobs in this state.")
@click.option("--priority", type=_CLASSES, help="Only jobs of this class.")
@click.option("--array", metavar="ID", help="Only the jobs of this array.")
@click.option("--mine", is_flag=True, help="Only your own.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@json_option
def jobs(
    *,
    state: str | None,
    priority: str | None,
    array: str | None,
    mine: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    with connect() as client:
        array_id = client.find_array(array) if array else None
        wanted = client.jobs(state, priority=priority, array=array_id, mine=mine)
        found = list(islice(wanted, limit))
    if as_json:
        print_json({"items": [job.model_dump(mode="json") for job in found]})
        return
    print_table(
        ("ID", "NAME", "STATE", "PROGRESS", "WORKER", "BY", "AGE"),
        (
            (
                job.id,
                job.name,
                state_words(job),
                progress_words(job.progress),
                job.worker or "",
                job.submitted_by,
                ago(job.submitted_at),
            )
            for job in found
        ),
    )


@click.command()
@click.argument("job")
@json_option
def show(*, job: str, as_json: bool) -> None:
    """Show one job: state, reason, progress, attempts and specification."""
    with connect() as client:
        detail = client.job(client.find_job(job))
        attempts = list(client.attempts(detail.id))
    if as_json:
        tries = [attempt.model_dump(mode="json") for attempt in attempts]
        print_json({**detail.model_dump(mode="json"), "attempt_list": tries})
        return
    _print_detail(detail)
    for attempt in attempts:
        click.echo(_attempt_line(attempt))
    click.echo("specification:")
    click.echo(clean(json.dumps(detail.spec, indent=2, ensure_ascii=False)))


@click.command()
@click.argument("job", metavar="[JOB|ARRAY]", required=False)
@click.option("--array", metavar="ID", help="The same, where `latest` means an array.")
@click.option("--wait", is_flag=True, help="Return once the job has stopped.")
@json_option
def cancel(*, job: str | None, array: str | None, wait: bool, as_json: bool) -> None:
    """Stop a job, or all jobs of an array; what they have stored so far stays."""
    if (job is None) == (array is None):
        raise click.UsageError("give a job or an array")
    if job is not None and job.startswith(ARRAY_PREFIX):
        job, array = None, job
    if array and wait:
        raise click.UsageError("--wait goes with one job; `st arrays ID` tells how an array stands")
    with connect() as client:
        if array:
            tell_array(client.cancel_array(client.find_array(array)), as_json=as_json)
            return
        assert job is not None  # noqa: S101 - one of the two was given
        job_id = client.find_job(job)
        view = client.cancel(job_id)
        if wait and not view.state.is_final:
            view = client.wait(job_id)
    if wait and view.state is not JobState.CANCELLED:
        raise ClientError(
            f"{job_id} ended as {view.state.value} before it could be cancelled",
            code="not_cancelled",
        )
    if as_json:
        print_json(view)
    elif view.state.is_final:
        click.echo(f"{view.id} is {view.state.value}")
    else:
        click.echo(f"{view.id} will stop shortly; `st cancel {view.id} --wait` waits for it")


def state_words(job: JobView) -> str:
    """The state, and that it is about to end where somebody asked for that."""
    stopping = job.cancel_requested and not job.state.is_final
    return f"{job.state.value} (cancelling)" if stopping else job.state.value


def priority_words(job: JobView) -> str:
    """The class, and the level that an admin put in its place."""
    return job.priority if job.override is None else f"{job.priority}, overridden: {job.override}"


def progress_words(progress: ProgressView | None) -> str:
    """Such as ``120/600 20 %``."""
    if progress is None or not progress.steps:
        return ""
    return f"{progress.step}/{progress.steps} {progress.step / progress.steps:.0%}"


def _print_detail(job: JobDetail) -> None:
    rows = [
        ("id", job.id),
        ("name", job.name),
        ("state", state_words(job)),
        ("priority", priority_words(job)),
        ("array", f"{job.array} (number {job.array_index})" if job.array else ""),
        ("not before", f"{job.not_before:%Y-%m-%d %H:%M:%S %Z}" if job.not_before else ""),
        ("family", job.family),
        ("submitted", f"{job.submitted_at:%Y-%m-%d %H:%M:%S %Z} by {job.submitted_by}"),
        ("worker", job.worker or ""),
        ("progress", progress_words(job.progress)),
    ]
    if job.reason:
        rows.append(("reason", f"{job.reason.message} [{job.reason.code}]"))
        rows.append(("next", job.reason.hint or ""))
    if job.started_at and job.finished_at:
        rows.append(("took", duration((job.finished_at - job.started_at).total_seconds())))
    if job.checkpoint_step is not None:
        rows.append(("checkpoint", f"step {job.checkpoint_step}"))
    for name, text in rows:
        if text:
            click.echo(f"{name + ':':<12}{clean(text)}")


def _attempt_line(attempt: AttemptView) -> str:
    ended = f", {attempt.outcome.value}" if attempt.outcome else ""
    why = f": {attempt.failure.kind.value}, {attempt.failure.message}" if attempt.failure else ""
    node = f", node {attempt.node} of {attempt.nodes}" if attempt.nodes > 1 else ""
    where = f"attempt {attempt.number} on {attempt.worker}{node}"
    return clean(f"{where}: {attempt.state.value}{ended}{why}")
