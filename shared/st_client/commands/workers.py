"""``st workers`` and ``st join-token``."""

from collections.abc import Sequence

import click
from pydantic import ValidationError

from st_client.client import WorkerOrder
from st_client.commands.worker_page import show
from st_client.errors import BadInputError
from st_client.output import ago, connect, json_option, print_json, print_table
from st_shared.protocol.resources import JoinTokenRequest, WorkerView
from st_shared.spec.duration import seconds_of
from st_shared.spec.reading import problems_of


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def workers(context: click.Context, *, as_json: bool) -> None:
    """List workers: state, slots, jobs and when they were last heard of."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.workers())
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in found]})
        return
    print_table(
        ("NAME", "STATE", "DESIRED", "FREE", "ACCELERATOR", "USED", "JOBS", "HEARD"),
        (_row(item) for item in found),
    )


workers.add_command(show)


@workers.command()
@click.argument("named", metavar="WORKER...", nargs=-1, required=True)
@json_option
def drain(*, named: Sequence[str], as_json: bool) -> None:
    """Let workers finish what they run, and take nothing new; by name or id."""
    _order(named, "drain", as_json=as_json)


@workers.command()
@click.argument("named", metavar="WORKER...", nargs=-1, required=True)
@json_option
def activate(*, named: Sequence[str], as_json: bool) -> None:
    """Let drained workers take jobs again; by name or id."""
    _order(named, "activate", as_json=as_json)


@workers.command()
@click.argument("named", metavar="WORKER...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def retire(*, named: Sequence[str], yes: bool, as_json: bool) -> None:
    """Send workers away for good: their jobs are queued again, their credentials are void."""
    if not yes:
        click.confirm(f"Retire {', '.join(named)} for good?", abort=True, err=True)
    _order(named, "retire", as_json=as_json)


def _order(named: Sequence[str], order: WorkerOrder, *, as_json: bool) -> None:
    with connect() as client:
        wanted = {worker.id: worker for worker in map(client.find_worker, named)}  # all, or none
        told = [client.order_worker(worker_id, order) for worker_id in wanted]
    if as_json:
        print_json({"items": [worker.model_dump(mode="json") for worker in told]})
        return
    for worker in told:
        running = f", it runs {', '.join(worker.jobs)}" if worker.jobs else ""
        click.echo(f"{worker.name} is to be {worker.desired.value}{running}")


@click.group("join-token")
def join_token() -> None:
    """Make tokens with which workers join."""


@join_token.command()
@click.option("--uses", default=1, show_default=True, help="How many workers may join with it.")
@click.option("--expires", default="1h", show_default=True, help='Such as "30m" or "2d".')
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="For its workers.")
@json_option
def create(*, uses: int, expires: str, labels: Sequence[str], as_json: bool) -> None:
    """Make a join token; it is printed this once."""
    request = _request(uses, expires, labels)
    with connect() as client:
        made = client.create_join_token(
            uses=request.uses,
            expires_in_seconds=request.expires_in_seconds,
            labels=request.labels,
        )
        url = client.url
    if as_json:
        print_json(made)
    else:
        click.echo(made.token)
        click.echo(f"join with: st-worker join {url} --token {made.token}", err=True)


def _request(uses: int, expires: str, labels: Sequence[str]) -> JoinTokenRequest:
    pairs = [label.partition("=") for label in labels]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise BadInputError(f"--label {wrong[0]!r} has no value", hint="write it as KEY=VALUE")
    try:
        seconds = int(float(str(seconds_of(expires))))
    except ValueError as error:
        raise BadInputError(f"--expires {expires!r}: {error}") from None
    try:
        return JoinTokenRequest(
            uses=uses,
            expires_in_seconds=seconds,
            labels={key: value for key, _, value in pairs},
        )
    except ValidationError as error:
        fields = [(item.field, item.message) for item in problems_of(error, JoinTokenRequest)]
        raise BadInputError("no such join token can be made", fields=fields) from None


def _row(worker: WorkerView) -> tuple[str, ...]:
    slots = worker.inventory.slots
    return (
        worker.name,
        worker.state.value,
        worker.desired.value,
        f"{worker.slots_free}/{len(slots)}",
        ", ".join(sorted({slot.accelerator for slot in slots})),
        _used(worker),
        ", ".join(worker.jobs),
        ago(worker.last_heartbeat_at),
    )


def _used(worker: WorkerView) -> str:
    """How busy its slots were at the last heartbeat, such as ``87 %``; the mean of several."""
    slots = worker.usage.slots if worker.usage else []
    measured = [slot.utilisation for slot in slots if slot.utilisation is not None]
    return f"{sum(measured) / len(measured):.0f} %" if measured else ""
