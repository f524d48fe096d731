"""Requests that no worker could ever satisfy, and what comes near."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from st_controller.domain.scheduling.model import Shape, WorkerCapacity
from st_controller.domain.scheduling.placement import kind_suits, labels_match, name_matches
from st_shared.protocol.resources import Reason

_MOST_SHOWN = 8
"""Names in a list of what there is."""

_HINT = "change `resources`, or add such a worker; the job waits until there is one"


def near_miss(shape: Shape, fleet: Sequence[WorkerCapacity]) -> Reason | None:
    """Why none of ``fleet`` could ever run ``shape``, even when empty; none: they could.

    ``fleet`` holds every worker that is here or may come back, whatever it runs.
    """
    if not fleet:
        return Reason(
            code="unsatisfiable",
            message="No worker has joined yet.",
            hint="start one with `st-worker join`; the job waits until there is one",
        )
    able = [worker for worker in fleet if _room(shape, worker) >= shape.slots]
    alike = max(Counter(_accelerators(shape, worker) for worker in able).values(), default=0)
    if alike >= shape.nodes:
        return None
    if able:
        parts = f"{len(able)} could each run a part"
        unlike = f", {alike} at most with equal accelerators" if len(able) > alike else ""
        said = f"{shape.nodes} workers are asked for, and {parts}{unlike}"
    else:
        said = "; ".join(_shortages(shape, fleet)) or _never_together(shape, fleet)
    return Reason(code="unsatisfiable", message=f"No worker could ever run it: {said}.", hint=_HINT)


def _shortages(shape: Shape, fleet: Sequence[WorkerCapacity]) -> Iterable[str]:
    """What no worker has, each demand looked at alone."""
    kinds = {kind for worker in fleet for kind in worker.slots.values()}
    if not any(name_matches(shape.accelerator, kind.accelerator) for kind in kinds):
        there = _list(kind.accelerator for kind in kinds)
        yield f"no accelerator is like {shape.accelerator!r}; there are: {there}"
    most_memory = max((kind.memory_gb for kind in kinds), default=0.0)
    if most_memory < shape.min_memory_gb:
        yield f"no slot has {shape.min_memory_gb:g} GiB; the most is {most_memory:g} GiB"
    most_slots = max(len(worker.slots) for worker in fleet)
    if most_slots < shape.slots:
        yield f"no worker has {shape.slots} slots; the largest has {most_slots}"
    most_room = max(worker.content_room_gb for worker in fleet)
    if most_room < shape.content_gb:
        there = f"the most is {most_room:g} GiB"
        yield f"no worker has room for {shape.content_gb:g} GiB of datasets; {there}"
    for name, glob in shape.labels:
        if not any(labels_match({name: glob}, worker.labels) for worker in fleet):
            there = _list(worker.labels[name] for worker in fleet if name in worker.labels)
            known = f"there are: {there}" if there else "no worker has this label"
            yield f"no label {name} is like {glob!r}; {known}"
    if not any(name_matches(shape.provider, worker.provider) for worker in fleet):
        there = _list(worker.provider for worker in fleet)
        yield f"no provider is like {shape.provider!r}; there are: {there}"


def _never_together(shape: Shape, fleet: Sequence[WorkerCapacity]) -> str:
    """Each demand is met somewhere: how many of the slots asked for the best worker has."""
    best = max(_room(shape, worker) for worker in fleet)
    if any(_room(replace(shape, slots=1), worker) >= shape.slots for worker in fleet):
        return f"{shape.slots} instances of cut-up GPUs (MIG) cannot work as one; ask for one slot"
    if not best:
        return "each thing asked for exists, but not on one worker"
    return f"{shape.slots} slots are asked for; the best fitting worker has {best} such slots"


def _accelerators(shape: Shape, worker: WorkerCapacity) -> frozenset[str]:
    """Those that the shape may use there; all workers of a gang have the same."""
    return frozenset(kind.accelerator for kind in worker.slots.values() if kind_suits(kind, shape))


def _room(shape: Shape, worker: WorkerCapacity) -> int:
    """How many slots of a worker the shape may use when nothing runs."""
    if not name_matches(shape.provider, worker.provider):
        return 0
    if not labels_match(dict(shape.labels), worker.labels):
        return 0
    if shape.content_gb > worker.content_room_gb:
        return 0
    return sum(kind_suits(kind, shape) for kind in worker.slots.values())


def _list(names: Iterable[str]) -> str:
    known = sorted(set(names))
    more = f" and {len(known) - _MOST_SHOWN} more" if len(known) > _MOST_SHOWN else ""
    return ", ".join(known[:_MOST_SHOWN]) + more
