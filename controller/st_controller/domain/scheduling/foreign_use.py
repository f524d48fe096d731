"""Slots that somebody uses who is no job: what a job that waits is told of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from st_controller.domain.scheduling.model import Shape, WorkerCapacity
from st_controller.domain.scheduling.near_miss import near_miss
from st_controller.domain.scheduling.placement import kind_suits, labels_match, name_matches

_MOST_SHOWN = 3


def would_fit(shape: Shape, workers: Sequence[WorkerCapacity]) -> bool:
    """Whether the shape could run if everybody else let go of the slots of these workers."""
    return near_miss(shape, [whole(worker) for worker in workers]) is None


def whole(worker: WorkerCapacity) -> WorkerCapacity:
    """A worker with the slots that others use."""
    kinds = {index: kind for index, (kind, _) in worker.busy.items()}
    return replace(worker, slots={**worker.slots, **kinds}, busy={})


def described(shape: Shape, workers: Iterable[WorkerCapacity]) -> str:
    """Who uses slots that the shape could run on, such as ``gpu-7 slot 0: process 42 (python)``."""
    found = [
        f"{worker.name or worker.id} slot {index}: {who}"
        for worker in workers
        if _may_run_on(shape, worker)
        for index, (kind, who) in sorted(worker.busy.items())
        if kind_suits(kind, shape)
    ]
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return "; ".join(found[:_MOST_SHOWN]) + more


def _may_run_on(shape: Shape, worker: WorkerCapacity) -> bool:
    provider = name_matches(shape.provider, worker.provider)
    return provider and labels_match(dict(shape.labels), worker.labels)
