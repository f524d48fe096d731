from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.scheduling.fifo import FifoScheduler
from st_controller.domain.scheduling.state import (
    ClusterState,
    PendingJob,
    Placement,
    WorkerCapacity,
)
from st_shared.protocol.worker import Slot
from st_shared.spec.job import ResourceRequest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(name: str, *, level: int = 10, age: int = 0, **request: Any) -> PendingJob:
    return PendingJob(name, level, NOW - timedelta(seconds=age), ResourceRequest(**request))


def worker(
    name: str, slots: int = 1, *, accelerator: str = "cpu", memory: float = 8, **labels: str
) -> WorkerCapacity:
    free = [Slot(index=index, accelerator=accelerator, memory_gb=memory) for index in range(slots)]
    return WorkerCapacity(name, free, labels)


def decide(pending: list[PendingJob], workers: list[WorkerCapacity]) -> list[Placement]:
    return FifoScheduler().decide(ClusterState(pending, workers), NOW)


def test_within_a_class_who_came_first_is_first() -> None:
    found = decide([job("young", age=1), job("old", age=9)], [worker("w")])

    assert found == [Placement("old", "w", (0,))]


def test_a_higher_class_goes_first_however_young() -> None:
    found = decide([job("old", age=9), job("urgent", level=30)], [worker("w")])

    assert [placement.job_id for placement in found] == ["urgent"]


def test_what_fits_nowhere_does_not_block_the_rest() -> None:
    found = decide([job("large", age=9, slots=8), job("small")], [worker("w", 2)])

    assert found == [Placement("small", "w", (0,))]


def test_slot_count_memory_accelerator_and_labels_are_matched() -> None:
    workers = [
        worker("few", 1, accelerator="NVIDIA A100", memory=80, region="eu-west"),
        worker("small", 2, accelerator="NVIDIA A100", memory=40, region="eu-west"),
        worker("other", 2, accelerator="NVIDIA L4", memory=80, region="eu-west"),
        worker("far", 2, accelerator="NVIDIA A100", memory=80, region="us-east"),
        worker("right", 2, accelerator="NVIDIA A100", memory=80, region="eu-west"),
    ]
    wanted = job(
        "j", slots=2, accelerator="*h100*|*a100*", min_memory_gb=64, labels={"region": "eu-*"}
    )

    assert decide([wanted], workers) == [Placement("j", "right", (0, 1))]


def test_the_tightest_worker_is_taken() -> None:
    assert decide([job("j")], [worker("wide", 8), worker("tight", 1)])[0].worker_id == "tight"


@given(
    needs=st.lists(st.integers(1, 4), max_size=20),
    capacities=st.lists(st.integers(1, 8), max_size=6),
)
def test_no_slot_is_given_twice_and_nothing_that_fits_is_left(
    needs: list[int], capacities: list[int]
) -> None:
    pending = [job(f"j{place}", age=-place, slots=need) for place, need in enumerate(needs)]
    workers = [worker(f"w{place}", count) for place, count in enumerate(capacities)]

    found = decide(pending, workers)

    given_out = [(p.worker_id, slot) for p in found for slot in p.slots]
    assert len(given_out) == len(set(given_out))
    left = {w.id: len(w.free) - sum(key == w.id for key, _ in given_out) for w in workers}
    waiting = {item.id: item for item in pending} | {}
    for placement in found:
        del waiting[placement.job_id]
    assert all(item.request.slots > max(left.values(), default=0) for item in waiting.values())
