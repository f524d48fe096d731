"""``st workers show``: what one worker has, how busy it is, and what is wrong with it."""

from collections.abc import Iterator

import click

from st_client.output import ago, clean, connect, json_option, print_json, print_table
from st_shared.protocol.resources import WorkerView
from st_shared.protocol.worker import Slot

_MOST_MODELS = 5


@click.command()
@click.argument("worker")
@json_option
def show(*, worker: str, as_json: bool) -> None:
    """Show a worker with its slots, who uses them, and its warnings; by name or id."""
    with connect() as client:
        found = client.find_worker(worker)
    if as_json:
        print_json(found)
        return
    for name, value in _facts(found):
        click.echo(f"{name:<12} {clean(value)}")
    click.echo()
    rows = [_slot_row(found, slot) for slot in found.inventory.slots]
    print_table(("SLOT", "ACCELERATOR", "MEMORY", "USED", "LOAD", "TEMP", "DRIVER", "STATE"), rows)
    for warning in found.inventory.condition.warnings:
        click.echo(f"warning: {clean(warning.message)} [{clean(warning.code)}]")


def _facts(worker: WorkerView) -> Iterator[tuple[str, str]]:
    inventory, usage = worker.inventory, worker.usage
    free = usage.disk_free_gb if usage and usage.disk_free_gb is not None else None
    disk = inventory.disk_free_gb if free is None else free
    total = f" of {inventory.disk_total_gb:g}" if inventory.disk_total_gb else ""
    yield "name", f"{worker.name} ({worker.id})"
    yield "state", f"{worker.state.value}, desired {worker.desired.value}"
    if worker.reason:
        yield "takes none", worker.reason.message
    yield "heard", ago(worker.last_heartbeat_at)
    yield "host", f"{inventory.hostname}, {inventory.platform}, agent {worker.agent_version}"
    yield "labels", ", ".join(f"{key}={text}" for key, text in sorted(worker.labels.items())) or "-"
    yield "host has", f"{inventory.cpus} CPUs, {inventory.memory_gb:g} GiB memory"
    yield "disk free", f"{disk:g}{total} GiB"
    yield "stored", _stored(worker)
    yield "jobs", ", ".join(worker.jobs) or "-"


def _stored(worker: WorkerView) -> str:
    models = worker.inventory.cached_models
    shown = ", ".join(models[:_MOST_MODELS])
    more = f" and {len(models) - _MOST_MODELS} more" if len(models) > _MOST_MODELS else ""
    datasets = f"{len(worker.inventory.cached)} datasets"
    return f"{datasets}; models: {shown}{more}" if models else f"{datasets}, no models"


def _slot_row(worker: WorkerView, slot: Slot) -> tuple[str, ...]:
    uses = worker.usage.slots if worker.usage else []
    use = next((use for use in uses if use.index == slot.index), None)
    capability = f" ({slot.compute_capability})" if slot.compute_capability else ""
    return (
        str(slot.index),
        slot.accelerator + capability,
        f"{slot.memory_gb:g} GiB",
        _number(use.memory_used_gb if use else None, " GiB"),
        _number(use.utilisation if use else None, " %"),
        _number(use.temperature_c if use else None, " °C"),
        slot.driver or "",
        _state(worker, slot.index),
    )


def _state(worker: WorkerView, index: int) -> str:
    """Why a slot is not offered, or that it is."""
    for faulty in worker.faulty:
        if faulty.index == index:
            return f"failed again and again, last: {faulty.message} [faulty]"
    for busy in worker.inventory.condition.busy:
        if busy.index == index:
            return f"{busy.message} [{busy.code}]"
    return "ok"


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g}{unit}"
