from st_controller.domain.scheduling.state import WorkerCapacity
from st_controller.domain.scheduling.waiting import why_waiting
from st_shared.protocol.worker import Slot
from st_shared.spec.job import ResourceRequest

CPU = WorkerCapacity("w", [Slot(index=0, accelerator="cpu", memory_gb=8)], {})


def test_nobody_is_there() -> None:
    assert why_waiting(ResourceRequest(), [], 0).code == "no_workers"


def test_nobody_could_ever() -> None:
    reason = why_waiting(ResourceRequest(accelerator="h100*"), [CPU], 0)

    assert reason.code == "no_matching_worker"
    assert "h100*" in reason.message


def test_nobody_can_just_now() -> None:
    reason = why_waiting(ResourceRequest(), [CPU], 4)

    assert reason.code == "busy"
    assert "4 jobs are ahead" in reason.message
