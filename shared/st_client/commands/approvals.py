"""``st approvals``, ``st approve`` and ``st reject``."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from st_client.client import Client
from st_client.errors import ClientError
from st_client.output import clean, connect, json_option, print_json, print_table
from st_shared.protocol.policy_approvals import ApprovalView, DecisionResult

_STATES = ("pending", "approved", "rejected", "expired", "cancelled", "all")


@click.command()
@click.option("--state", type=click.Choice(_STATES), default="pending", show_default=True)
@json_option
def approvals(*, state: str, as_json: bool) -> None:
    """List approvals: of your jobs, and of those that you may decide on, oldest first."""
    with connect() as client:
        found = list(client.approvals(None if state == "all" else state))
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in found]})
        return
    print_table(("APPROVAL", "JOB", "BY", "STATE", "NEEDS", "EXPIRES", "WHY"), map(_row, found))


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--reason", default="", help="Told to whoever submitted it.")
@json_option
def approve(*, jobs: Sequence[str], reason: str, as_json: bool) -> None:
    """Approve jobs, named by themselves or by their approvals; not your own."""
    _decide(jobs, "approve", reason, as_json=as_json)


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--reason", required=True, help="Told to whoever submitted it.")
@json_option
def reject(*, jobs: Sequence[str], reason: str, as_json: bool) -> None:
    """Reject jobs, named by themselves or by their approvals; not your own."""
    _decide(jobs, "reject", reason, as_json=as_json)


def _decide(jobs: Sequence[str], decision: str, reason: str, *, as_json: bool) -> None:
    with connect() as client:
        refs = [_ref(client, name) for name in jobs]
        answer = client.decide(refs, decision, reason)
    if as_json:
        print_json(answer)
    else:
        for result in answer.results:
            click.echo(_outcome(result), err=result.problem is not None)
    if any(result.problem for result in answer.results):
        click.get_current_context().exit(ClientError.exit_code)


def _ref(client: Client, name: str) -> str:
    return name if name.startswith("apr_") else client.find_job(name)


def _outcome(result: DecisionResult) -> str:
    if result.problem:
        hint = f" ({clean(result.problem.hint)})" if result.problem.hint else ""
        return f"{result.id}: {clean(result.problem.detail or result.problem.title)}{hint}"
    view = result.approval
    if view is None:  # the controller gives one of the two
        return f"{result.id}: no answer"
    if view.state == "pending":
        return f"{view.job_id} ({view.job_name}) still waits: {_needs(view)}"
    return f"{view.job_id} ({view.job_name}) is {view.state}"


def _row(view: ApprovalView) -> tuple[str, ...]:
    return (
        view.id,
        f"{view.job_id} {view.job_name}",
        view.requested_by,
        view.state,
        _needs(view),
        _until(view.expires_at) if view.state == "pending" else "",
        "; ".join(view.reasons),
    )


def _needs(view: ApprovalView) -> str:
    given = sum(said.decision == "approve" for said in view.decisions)
    return f"{given} of {view.quorum} by {view.approver} or above"


def _until(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
