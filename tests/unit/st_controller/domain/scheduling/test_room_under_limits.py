"""Room under a limit is kept for who is at the head of the line, as it is on workers."""

from random import Random

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, Placement
from st_controller.domain.scheduling.nodes import Node
from st_controller.domain.scheduling.turns import Turns
from st_controller.domain.scheduling.waiting import why_waiting

HOUR = 3_600.0


def _limited(path: str = "o", most: int = 4, *, slots: int = 8) -> Queue:
    queue = Queue()
    queue.share(path, max_slots=most)
    queue.worker(slots=slots)
    return queue


def _reason(queue: Queue, name: str) -> str:
    job = queue.scheduler.waiting(name)
    assert job is not None
    return why_waiting(queue.scheduler, job, queue.now).message


@pytest.mark.parametrize("path", ["", "o", "o/t", "o/t/ann"])
def test_small_jobs_of_a_lower_class_do_not_fill_a_limit_for_ever(path: str) -> None:
    queue = _limited(path)
    for number in range(8):
        queue.submit(f"small {number}", "o/t/ann", Level.LOW)
    assert queue.placed() == [f"small {number}" for number in range(4)]
    queue.pass_time(1.0)
    queue.submit("large", "o/t/ann", Level.NORMAL, slots=4)

    for number in range(3):
        queue.finish(f"small {number}", after=1.0)
        assert queue.placed() == []
    queue.finish("small 3")
    assert queue.placed() == ["large"]
    queue.finish("large")
    assert queue.placed() == [f"small {number}" for number in range(4, 8)]


def test_who_waits_long_under_a_limit_has_room_kept_as_well() -> None:
    queue = _limited()
    for number in range(12):
        queue.submit(f"small {number}", "o/t/ann")
    assert queue.placed() == [f"small {number}" for number in range(4)]
    queue.submit("large", "o/t/ben", slots=4)
    queue.finish("small 0")
    assert queue.placed() == ["small 4"]  # they are of one class

    queue.pass_time(queue.scheduler.policy.ageing_interval + 1.0)
    queue.submit("late", "o/t/ann")
    for number in (1, 2, 3):
        queue.finish(f"small {number}")
    queue.scheduler.decide(queue.now)
    for number in range(5, 12):
        queue.scheduler.withdraw(f"small {number}", queue.now)
        queue.finish(f"small {number}")
    queue.finish("small 4")
    assert queue.placed() == ["large"]


def test_those_of_other_tenants_go_on() -> None:
    queue = _limited()
    queue.submit("running", "o/t/ann", slots=2, limit=HOUR)
    assert queue.placed() == ["running"]
    queue.submit("large", "o/t/ann", Level.HIGH, slots=4)
    queue.submit("sibling", "o/u/cid")
    queue.submit("other", "p/t/ben", Level.LOW)
    queue.submit("higher", "o/u/cid", Level.URGENT)

    assert queue.placed() == ["higher", "other"]
    assert _reason(queue, "large").startswith("o has 3 of 4 slots in use, and this job asks for 4")
    assert _reason(queue, "sibling") == (
        "o has 3 of 4 slots in use, and what is left is kept for jobs that come before it."
    )


def test_a_job_that_is_over_in_time_may_use_what_is_kept() -> None:
    queue = _limited()
    queue.submit("running", "o/t/ann", slots=3, limit=2 * HOUR)
    assert queue.placed() == ["running"]
    queue.submit("large", "o/t/ann", Level.HIGH, slots=4)
    queue.submit("long", "o/t/ann", limit=3 * HOUR)
    queue.submit("short", "o/t/ann", limit=HOUR)

    assert queue.placed() == ["short"]


def test_no_room_is_kept_for_what_could_never_start() -> None:
    queue = _limited(slots=4)
    queue.submit("running", "o/t/ann", limit=HOUR)
    assert queue.placed() == ["running"]
    queue.submit("over the limit", "o/t/ann", Level.HIGH, slots=5)
    queue.submit("nowhere", "o/t/ann", Level.HIGH, slots=4, accelerator="*H100")
    queue.submit("small", "o/t/ann", Level.LOW, limit=HOUR)
    assert queue.placed() == ["small"]

    queue.worker("gpu", slots=4, accelerator="NVIDIA H100")
    queue.submit("smaller", "o/t/ann", Level.LOW)
    assert queue.placed() == []  # now there is such a worker
    queue.scheduler.drop_worker("gpu", queue.now)
    assert queue.placed() == ["smaller"]


def test_a_reserved_job_counts_under_its_limits_as_if_it_ran() -> None:
    queue = Queue()
    queue.share("o", max_slots=8)
    queue.worker("a", slots=4)
    queue.worker("b", slots=4)
    queue.worker("c", slots=4)
    for name in "abc":
        queue.submit(f"of p on {name}", "p/t/ben", slots=3)
    assert len(queue.placed()) == 3
    queue.submit("large", "o/t/ann", Level.HIGH, slots=4)
    assert queue.placed() == []  # it has a reservation
    assert "kept for it" in _reason(queue, "large")
    for number in range(4):
        queue.submit(f"small {number}", "o/t/ann", Level.LOW, slots=2)
    queue.finish("of p on a")  # where there is room for two of them, or for the large one
    assert queue.placed() == ["large"]
    queue.finish("of p on b", "of p on c")
    assert queue.placed() == ["small 0", "small 1"]


def test_a_reservation_leaves_the_room_that_it_does_not_need() -> None:
    queue = Queue()
    queue.share("o", max_slots=6)
    queue.worker("a", slots=4)
    queue.worker("b", slots=4)
    queue.submit("of p", "p/t/ben", slots=3, limit=HOUR)
    queue.submit("also of p", "p/t/ben", slots=2, limit=HOUR)
    assert len(queue.placed()) == 2
    queue.submit("large", "o/t/ann", Level.HIGH, slots=4)
    assert queue.placed() == []
    for number in range(3):
        queue.submit(f"small {number}", "o/t/ann", Level.LOW)
    assert len(queue.placed()) == 1  # on the worker that is not kept; under the limit two could
    queue.worker("c", slots=4)
    assert queue.placed() == ["large", "small 1"]
    assert queue.placed() == []


@pytest.mark.parametrize("seed", range(30))
def test_what_is_remembered_is_what_would_be_found(seed: int) -> None:
    random, queue = Random(seed), Queue(settle_interval=50.0, ageing_interval=300.0)
    users = [f"o{n % 2}/t{n % 3}/u{n}" for n in range(7)]
    for path in {part for user in users for part in (user, user[:5], user[:2], "")}:
        most_jobs = random.choice((None, None, 2, 4))
        most_slots = random.choice((None, None, 4, 9))
        queue.share(path, max_jobs=most_jobs, max_slots=most_slots)  # type: ignore[arg-type]
    for number in range(3):
        queue.worker(f"w{number}", slots=random.choice((2, 4, 8)))
    running: list[str] = []
    for step in range(120):
        queue.pass_time(random.uniform(0.0, 20.0))
        if running and random.random() < 0.4:
            queue.finish(running.pop(random.randrange(len(running))))
        else:
            size, level = random.choice((1, 1, 2, 4, 8)), random.choice(list(Level)[:5])
            limit = random.choice((60.0, 600.0, 86_400.0))
            queue.submit(f"{step}", random.choice(users), level, slots=size, limit=limit)
        for found in queue.decide():
            if isinstance(found, Placement):
                running.append(found.job_id)
            else:
                running = [name for name in running if name not in found.victims]
                queue.finish(*found.victims)
        _agree(queue.scheduler.tenants.turns, queue.scheduler.tenants.root)


def _agree(turns: Turns, node: Node) -> None:
    """What a node remembers follows from what those below it remember."""
    for child in node.children.values():
        _agree(turns, child)
        if node.startable is not None:
            assert child.startable is not None or not child.waiting
    if node.lines is None and node.startable is not None:
        below = turns._startable_below(node)
        if node.keeps_room:
            below &= node.permitted
        else:
            below = turns._within_job_limit(node, below)
        assert node.startable == below
