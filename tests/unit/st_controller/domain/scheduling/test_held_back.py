"""A few slots stay free for those who have had less, rather than go to whoever fits in."""

import pytest
from queue_steps import Queue

HOUR = 3600.0
LONG = 48 * HOUR


def queue_of(workers: int) -> Queue:
    """Full of ann's single slots, while ben, who has had nothing, wants whole workers."""
    queue = Queue(catch_up=0.0, horizon=0.0)
    for number in range(workers):
        queue.worker(f"w{number}", 8)
    for number in range(8 * workers + 50):
        queue.submit(f"ann {number}", "o/t/ann", limit=LONG)
    queue.placed()
    queue.pass_time(10 * HOUR)
    for number in range(4):
        queue.submit(f"ben {number}", "o/t/ben", slots=8, limit=LONG)
    queue.decide()
    ben = queue.scheduler.tenants.user("o/t/ben", queue.now)
    queue.scheduler.tenants.set_usage(ben.path, 0.0, 0.0, queue.now)
    return queue


def free(queue: Queue) -> list[str]:
    """Ann's jobs on workers that are kept for nobody."""
    return [
        job_id
        for host in queue.scheduler.fleet.hosts()
        if host.kept_for is None
        for job_id in host.running
    ]


def test_whoever_is_over_its_share_does_not_fill_the_first_holes() -> None:
    queue = queue_of(20)
    first = free(queue)[:6]
    queue.finish(*first[:3])
    assert queue.placed() == []

    queue.finish(*first[3:])

    assert len(queue.placed()) == 3  # no more than a fiftieth of 160 slots stays free


@pytest.mark.parametrize("workers", [5, 300])
def test_nothing_stays_free_in_the_smallest_and_the_largest_pools(workers: int) -> None:
    queue = queue_of(workers)
    queue.finish(*free(queue)[:2])

    assert len(queue.placed()) == 2


def test_those_within_their_share_fill_them() -> None:
    queue = queue_of(20)
    queue.finish(*free(queue)[:2])
    queue.submit("ben's small one", "o/t/ben", limit=LONG)

    assert queue.placed() == ["ben's small one"]
