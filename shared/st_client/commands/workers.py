"""``st workers``: the hosts, and what operators want of them."""

from collections.abc import Callable, Sequence

import click

from st_client.client import Client
from st_client.commands.worker_page import show
from st_client.errors import BadInputError
from st_client.output import ago, connect, json_option, print_json, print_table
from st_shared.protocol.resources import WorkerView
from st_shared.spec.duration import seconds_of

_named = click.argument("named", metavar="WORKER...", nargs=-1, required=True)
_why = click.option("--why", help="For whoever looks at the worker later.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(invoke_without_command=True)
@click.option("--retired", is_flag=True, help="Also those that were retired.")
@click.pass_context
@json_option
def workers(context: click.Context, *, retired: bool, as_json: bool) -> None:
    """List workers: state, slots, jobs, when they were last heard of, and why one takes no jobs.

    Commands take workers by name or id.
    """
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.workers(retired=retired))
    if as_json:
        print_json({"items": [item.model_dump(mode="json") for item in found]})
        return
    print_table(
        ("NAME", "STATE", "DESIRED", "FREE", "ACCELERATOR", "USED", "JOBS", "HEARD", "REASON"),
        (_row(item) for item in found),
    )


workers.add_command(show)


@workers.command()
@_named
@_why
@json_option
def cordon(*, named: Sequence[str], why: str | None, as_json: bool) -> None:
    """Offer workers nothing new; what they run is left alone."""
    _tell(named, lambda client, each: client.order_worker(each, "cordon", why=why), as_json)


@workers.command()
@_named
@click.option("--now", is_flag=True, help="Stop preemptible jobs at a checkpoint at once.")
@click.option("--grace", metavar="DURATION", help='Stop them after so long, such as "30m".')
@_why
@json_option
def drain(
    *, named: Sequence[str], now: bool, grace: str | None, why: str | None, as_json: bool
) -> None:
    """Offer workers nothing new, and let them finish what they run.

    With --now or --grace, preemptible jobs are stopped at a checkpoint and go on elsewhere; others
    are waited for all the same.
    """
    seconds = _grace(now, grace)
    _tell(
        named,
        lambda client, each: client.drain_worker(each, grace_seconds=seconds, why=why),
        as_json,
    )


def _grace(now: bool, grace: str | None) -> float | None:
    if now and grace:
        raise BadInputError("--now and --grace say two things", hint="give one of them")
    if now:
        return 0.0
    if grace is None:
        return None
    try:
        return float(str(seconds_of(grace)))
    except ValueError as error:
        raise BadInputError(f"--grace {grace!r}: {error}") from None


@workers.command()
@_named
@json_option
def activate(*, named: Sequence[str], as_json: bool) -> None:
    """Let cordoned or drained workers take jobs again."""
    _tell(named, lambda client, each: client.order_worker(each, "activate"), as_json)


workers.add_command(activate, "uncordon")


@workers.command()
@_named
@_why
@_yes
@json_option
def retire(*, named: Sequence[str], why: str | None, yes: bool, as_json: bool) -> None:
    """Send workers away for good: their jobs are queued again, their credentials are void."""
    _confirm(f"Retire {', '.join(named)} for good?", yes)
    _tell(named, lambda client, each: client.order_worker(each, "retire", why=why), as_json)


@workers.command()
@_named
@_yes
@json_option
def revoke(*, named: Sequence[str], yes: bool, as_json: bool) -> None:
    """Void credentials at once: jobs are queued again, agents end; hosts may join again."""
    _confirm(f"Revoke the credentials of {', '.join(named)}? Their jobs are queued again.", yes)
    _tell(named, lambda client, each: client.order_worker(each, "revoke"), as_json)


@workers.command()
@_named
@json_option
def rotate(*, named: Sequence[str], as_json: bool) -> None:
    """Have workers fetch new credentials; nothing that runs is disturbed."""
    _tell(named, lambda client, each: client.order_worker(each, "rotate"), as_json)


@workers.command()
@click.argument("named", metavar="WORKER...", nargs=-1)
@click.option("--all", "of_all", is_flag=True, help="All workers, instead of some by name.")
@json_option
def gc(*, named: Sequence[str], of_all: bool, as_json: bool) -> None:
    """Have workers remove what no attempt needs, such as folders of old runs."""
    if of_all == bool(named):
        raise click.UsageError("name some workers, or say --all")
    if of_all:
        with connect() as client:
            ordered = client.collect_garbage_everywhere()
        if as_json:
            print_json({"workers": ordered})
        else:
            click.echo(f"Ordered of {ordered} workers.")
        return
    _tell(named, lambda client, each: client.order_worker(each, "collect-garbage"), as_json)


@workers.command()
@click.argument("worker")
@click.argument("changes", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@json_option
def label(*, worker: str, changes: Sequence[str], as_json: bool) -> None:
    """Set labels on a worker (KEY=VALUE) and take set ones away (KEY-).

    They win over those that the agent gives itself, and jobs ask for them in resources.labels.
    """
    labels, remove = _label_changes(changes)
    _tell([worker], lambda client, each: client.label_worker(each, labels, remove), as_json)


def _label_changes(changes: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    labels: dict[str, str] = {}
    remove: list[str] = []
    for change in changes:
        key, equals, value = change.partition("=")
        if equals and key:
            labels[key] = value
        elif not equals and change.endswith("-") and len(change) > 1:
            remove.append(change[:-1])
        else:
            raise BadInputError(
                f"{change!r} changes no label", hint="write KEY=VALUE to set, KEY- to take away"
            )
    return labels, remove


@workers.command()
@_named
@click.option("--force", is_flag=True, help="Also while they hold jobs, which are queued again.")
@_yes
@json_option
def delete(*, named: Sequence[str], force: bool, yes: bool, as_json: bool) -> None:
    """Forget workers: they are in no list any more; the history of their attempts is kept."""
    _confirm(f"Delete {', '.join(named)}?", yes)
    with connect() as client:
        wanted = {worker.id: worker for worker in map(client.find_worker, named)}
        for worker_id in wanted:
            client.delete_worker(worker_id, force=force)
    if as_json:
        print_json({"deleted": list(wanted)})
        return
    for worker in wanted.values():
        click.echo(f"{worker.name} is forgotten")


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


def _tell(named: Sequence[str], order: Callable[[Client, str], WorkerView], as_json: bool) -> None:
    """Give an order to all of these workers, or to none where one of them is not known."""
    with connect() as client:
        wanted = {worker.id: worker for worker in map(client.find_worker, named)}
        told = [order(client, worker_id) for worker_id in wanted]
    if as_json:
        print_json({"items": [worker.model_dump(mode="json") for worker in told]})
        return
    for worker in told:
        click.echo(_sentence(worker))


def _sentence(worker: WorkerView) -> str:
    said = worker.reason.message if worker.reason else f"{worker.desired.value}, takes jobs"
    running = f"; it runs {', '.join(worker.jobs)}" if worker.jobs else ""
    return f"{worker.name}: {said}{running}"


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
        worker.reason.message if worker.reason else _used_by_others(worker),
    )


def _used_by_others(worker: WorkerView) -> str:
    """Which slots are not offered, and why: somebody else uses them, or its disk is full."""
    busy = worker.inventory.condition.busy
    return "; ".join(f"slot {each.index}: {each.message}" for each in busy)


def _used(worker: WorkerView) -> str:
    """How busy its slots were at the last heartbeat, such as ``87 %``; the mean of several."""
    slots = worker.usage.slots if worker.usage else []
    measured = [slot.utilisation for slot in slots if slot.utilisation is not None]
    return f"{sum(measured) / len(measured):.0f} %" if measured else ""
