"""Why a job waits, in words."""

from collections.abc import Sequence

from st_controller.domain.scheduling.placement import accelerator_matches, labels_match
from st_controller.domain.scheduling.state import WorkerCapacity
from st_shared.protocol.resources import Reason
from st_shared.spec.job import ResourceRequest


def why_waiting(request: ResourceRequest, fleet: Sequence[WorkerCapacity], ahead: int) -> Reason:
    """The reason that a queued job has not been placed.

    ``fleet`` lists every worker that takes jobs with ALL its slots, busy ones included, so that
    "nobody could ever" is told apart from "nobody can just now".
    """
    if not fleet:
        return Reason(
            code="no_workers",
            message="No worker that takes jobs is online.",
            hint="start one with `st-worker join`; `st workers` shows those that are draining",
        )
    if not any(_could_run(request, worker) for worker in fleet):
        return Reason(
            code="no_matching_worker",
            message=f"No worker online, of {len(fleet)}, has {_wanted(request)}.",
            hint="change `resources`, or add such a worker",
        )
    place = "it is next" if ahead == 0 else f"{ahead} jobs are ahead of it"
    return Reason(code="busy", message=f"All fitting slots are taken; {place}.")


def _could_run(request: ResourceRequest, worker: WorkerCapacity) -> bool:
    fitting = [
        slot
        for slot in worker.free
        if slot.memory_gb >= request.min_memory_gb
        and accelerator_matches(request.accelerator, slot.accelerator)
    ]
    return len(fitting) >= request.slots and labels_match(request.labels, worker.labels)


def _wanted(request: ResourceRequest) -> str:
    wanted = [f"{request.slots} slot{'s' * (request.slots > 1)}"]
    wanted.append(f"accelerator {request.accelerator!r}")
    if request.min_memory_gb:
        wanted.append(f"{request.min_memory_gb:g} GiB a slot")
    wanted += [f"label {key}={glob}" for key, glob in request.labels.items()]
    return ", ".join(wanted)
