"""First in, first out within a priority class: the first scheduler behind the interface."""

from datetime import datetime

from st_controller.domain.scheduling.placement import fitting_slots, labels_match
from st_controller.domain.scheduling.state import (
    ClusterState,
    PendingJob,
    Placement,
    WorkerCapacity,
)
from st_shared.protocol.worker import Slot


class FifoScheduler:
    """Serves higher classes first and, within a class, who came first.

    A job that fits nowhere now is passed over, so it does not block those behind it. Among the
    workers that fit, the one with the fewest free slots is taken, which keeps large gaps open.
    """

    def decide(self, state: ClusterState, now: datetime) -> list[Placement]:
        """Placements to be offered now, in order; no slot is used twice."""
        del now
        free = {worker.id: list(worker.free) for worker in state.workers}
        placements: list[Placement] = []
        for job in sorted(state.pending, key=_turn):
            if not any(free.values()):
                break
            found = _place(job, state, free)
            if found:
                placements.append(found)
        return placements


def _turn(job: PendingJob) -> tuple[int, datetime, str]:
    return (-job.level, job.submitted_at, job.id)


def _place(job: PendingJob, state: ClusterState, free: dict[str, list[Slot]]) -> Placement | None:
    candidates = [
        worker for worker in state.workers if labels_match(job.request.labels, worker.labels)
    ]

    def tightness(worker: WorkerCapacity) -> tuple[int, str]:
        return (len(free[worker.id]), worker.id)

    for worker in sorted(candidates, key=tightness):
        fitting = fitting_slots(job.request, free[worker.id])
        if len(fitting) >= job.request.slots:
            taken = fitting[: job.request.slots]
            free[worker.id] = [slot for slot in free[worker.id] if slot not in taken]
            return Placement(job.id, worker.id, tuple(sorted(slot.index for slot in taken)))
    return None
