"""What fits where, found by looking at every slot of every worker."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase

from simulation.tables import Tables
from st_controller.domain.scheduling.model import Shape, SlotKind, WorkerCapacity


def slot_suits(kind: SlotKind, shape: Shape) -> bool:
    """Whether a slot has the accelerator and the memory asked for; instances (MIG) come singly."""
    globs = [glob.strip().lower() for glob in shape.accelerator.split("|")]
    alike = any(fnmatchcase(kind.accelerator.lower(), glob) for glob in globs)
    is_alone = shape.slots == 1 or not kind.is_part
    return alike and is_alone and kind.memory_gb >= shape.min_memory_gb


def worker_suits(worker: WorkerCapacity, shape: Shape) -> bool:
    """Whether labels and provider are as asked for."""
    return fnmatchcase(worker.provider, shape.provider) and all(
        name in worker.labels and fnmatchcase(worker.labels[name], glob)
        for name, glob in shape.labels
    )


def room(worker: WorkerCapacity, shape: Shape, busy: Iterable[int] = ()) -> int:
    """How many slots of a worker, without those that are busy, a node of the shape may use."""
    if not worker_suits(worker, shape):
        return 0
    taken = set(busy)
    free = (kind for index, kind in worker.slots.items() if index not in taken)
    return sum(slot_suits(kind, shape) for kind in free)


def fits(
    tables: Tables, shape: Shape, *, without: Iterable[str] = (), when_idle: bool = False
) -> bool:
    """Whether all nodes of the shape fit now on workers that take jobs, ``without`` these.

    The nodes of a gang go to workers with the same kinds of slots. ``when_idle``: if nothing ran.
    """
    taken: dict[str, set[int]] = {}
    if not when_idle:
        for worker_id, slot in tables.busy():
            taken.setdefault(worker_id, set()).add(slot)
    left_out = set(without)
    able: Counter[frozenset[SlotKind]] = Counter()
    for worker_id, row in tables.workers.items():
        if row.takes_jobs and worker_id not in left_out:
            here = room(row.capacity, shape, taken.get(worker_id, ()))
            able[frozenset(row.capacity.slots.values())] += here >= shape.slots
    return any(count >= shape.nodes for count in able.values())
