"""Reservation, backfill and preemption."""

from dataclasses import replace

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, RunningJob

HOUR = 3600.0


def full(queue: Queue, slots: int = 4, limit: float = HOUR, **fields: object) -> list[str]:
    """A worker on which single-slot jobs run in all slots."""
    queue.worker("w", slots)
    for number in range(slots):
        queue.submit(f"small {number}", limit=limit, **fields)  # type: ignore[arg-type]
    return queue.placed()


def test_the_head_of_the_line_gets_slots_kept_until_it_fits() -> None:
    queue = Queue()
    full(queue)
    queue.submit("wide", "o/t/ann", slots=4)
    for number in range(9):
        queue.submit(f"late {number}", "o/t/ben", limit=24 * HOUR)
    assert queue.placed() == []
    for number in range(3):
        queue.finish(f"small {number}", after=60)
        assert queue.placed() == []
    queue.finish("small 3", after=60)

    assert queue.placed() == ["wide"]


def test_a_job_that_ends_before_the_reservation_begins_is_let_in() -> None:
    queue = Queue()
    full(queue, limit=4 * HOUR)
    queue.submit("wide", "o/t/ann", slots=4)
    queue.submit("long", "o/t/ben", limit=8 * HOUR)
    queue.submit("short", "o/t/ben", limit=HOUR)
    queue.placed()
    queue.finish("small 0", after=60)

    assert queue.placed() == ["short"]


def test_a_reserved_job_takes_another_worker_that_comes_free_first() -> None:
    queue = Queue()
    full(queue)
    queue.submit("wide", slots=4)
    assert queue.placed() == []
    queue.worker("fresh", 4)

    assert queue.where() == {"wide": [("fresh", (0, 1, 2, 3))]}
    assert list(queue.scheduler.reservations) == []


def test_a_reservation_ends_with_its_job_and_with_its_worker() -> None:
    queue = Queue()
    full(queue)
    queue.submit("wide", slots=4)
    queue.submit("next", limit=24 * HOUR)
    queue.placed()
    queue.finish("small 0")
    assert queue.placed() == []
    queue.scheduler.withdraw("wide", queue.now)
    assert queue.placed() == ["next"]

    queue.submit("wide again", slots=4)
    queue.placed()
    assert "wide again" in queue.scheduler.reservations
    queue.scheduler.drop_worker("w", queue.now)
    assert "wide again" not in queue.scheduler.reservations
    assert "wide again" in list(queue.scheduler.pending())


def test_a_higher_level_displaces_a_reservation() -> None:
    queue = Queue()
    full(queue)
    queue.submit("wide", "o/t/ann", slots=4)
    queue.placed()
    queue.submit("wider", "o/t/ben", Level.HIGH, slots=3)
    queue.placed()

    assert [kept.job.id for kept in queue.scheduler.reservations] == ["wider"]


def test_an_urgent_job_preempts_what_loses_the_least_work() -> None:
    queue = Queue()
    queue.worker("w", 2)
    queue.submit("old")
    queue.placed()
    queue.pass_time(600)
    queue.submit("young")
    queue.placed()
    queue.pass_time(60)
    queue.scheduler.checkpointed("old", queue.now - 1)
    queue.submit("urgent", "o/t/ann", Level.URGENT)

    assert queue.preempted() == [("urgent", ("old",))]
    assert queue.decide() == []
    queue.submit("intruder", "o/t/ben", Level.HIGH, limit=60.0)
    assert queue.decide() == []
    queue.finish("old", after=20)
    assert queue.placed() == ["urgent"]


@pytest.mark.parametrize(
    ("fields", "yields"),
    [
        ({"preemptible": False}, False),
        ({"preemptions": 3}, False),
        ({"level": Level.URGENT}, False),
        ({"preemptions": 2, "level": Level.HIGH}, True),
    ],
)
def test_only_lower_classes_that_may_be_preempted_yield(
    fields: dict[str, object], yields: bool
) -> None:
    queue = Queue(max_preemptions=3)
    full(queue, **fields)
    queue.submit("urgent", "o/t/ann", Level.URGENT)
    assert bool(queue.preempted()) == yields


def test_critical_preempts_urgent_work() -> None:
    queue = Queue()
    full(queue, slots=1, level=Level.URGENT)
    queue.submit("critical", "o/t/ann", Level.CRITICAL)

    assert queue.preempted() == [("critical", ("small 0",))]


@pytest.mark.parametrize("limit", [HOUR, 2 * HOUR], ids=["of a known shape", "of a new shape"])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("level", [Level.URGENT, Level.FIRST])
def test_an_urgent_job_preempts_at_once_although_others_wait(
    slots: int, limit: float, level: Level
) -> None:
    """Whoever waits already was looked at without success, and is not looked at again."""
    queue = Queue()
    full(queue)
    for number in range(3):
        queue.submit(f"waits {number}", slots=slots, limit=HOUR)
    assert queue.decide() == []
    queue.submit("urgent", "o/t/ann", level, slots=slots, limit=limit)

    ((job, victims),) = queue.preempted()
    assert (job, len(victims)) == ("urgent", slots)
    for name in victims:
        queue.finish(name)
    assert queue.placed() == ["urgent"]


def test_an_urgent_job_preempts_although_no_more_may_be_reserved() -> None:
    """And what is reserved is of no use to it."""
    queue = Queue()
    for number in range(4):
        queue.worker(f"gpu {number}", 2, "gpu")
        queue.submit(f"soon over {number}", slots=2, accelerator="gpu", limit=600)
    queue.worker("cpu", 2, "cpu")
    queue.submit("long", slots=2, accelerator="cpu")
    assert len(queue.placed()) == 5
    queue.submit("like it", "o/t/ben", accelerator="cpu")
    queue.scheduler.withdraw("like it", queue.now)
    for number in range(9):
        queue.submit(f"wide {number}", f"o/t/user{number}", slots=2)
    assert queue.decide() == []
    assert {host.id for kept in queue.scheduler.reservations for host in kept.hosts} <= {
        f"gpu {number}" for number in range(4)
    }
    assert queue.scheduler.reservations.closed
    queue.submit("urgent", "o/t/ann", Level.URGENT, accelerator="cpu")

    assert queue.preempted() == [("urgent", ("long",))]


@pytest.mark.parametrize("slots", [1, 2])
def test_an_urgent_job_for_which_nobody_yields_keeps_no_other_from_preempting(slots: int) -> None:
    queue = Queue()
    for name, preemptible in (("gpu", False), ("cpu", True)):
        queue.worker(name, 2, name)
        queue.submit(f"on {name}", slots=2, accelerator=name, preemptible=preemptible)
    assert len(queue.placed()) == 2
    queue.submit("stuck", "o/t/ann", Level.URGENT, slots=slots, accelerator="gpu")
    queue.submit("anywhere", "o/t/ben", Level.URGENT, slots=slots)

    assert queue.preempted() == [("anywhere", ("on cpu",))]


def test_nobody_preempts_below_urgent_however_long_they_waited() -> None:
    queue = Queue(ageing_interval=60)
    full(queue, level=Level.LOW)
    queue.submit("patient", "o/t/ann", Level.HIGH, waited=10_000)

    assert queue.decide() == []


def test_preemption_comes_to_an_end() -> None:
    queue = Queue(max_preemptions=2)
    queue.worker()
    victim = queue.submit("victim")
    queue.placed()
    yielded = 0
    for number in range(6):
        queue.submit(f"urgent {number}", "o/t/ann", Level.URGENT)
        if queue.preempted():
            yielded += 1
            queue.finish("victim", after=5)
            victim = replace(victim, preemptions=yielded, waiting_since=queue.now)
            queue.scheduler.enqueue(victim, queue.now)
            assert queue.placed() == [f"urgent {number}"]
            queue.finish(f"urgent {number}", after=5)
            assert queue.placed() == ["victim"]
        else:
            queue.scheduler.withdraw(f"urgent {number}", queue.now)

    assert yielded == 2


def test_a_gang_that_is_urgent_clears_as_many_workers_as_it_has_nodes() -> None:
    queue = Queue()
    for number in range(3):
        queue.worker(f"w{number}", 2)
        queue.submit(f"job {number}", slots=2)
    queue.placed()
    queue.submit("gang", "o/t/ann", Level.CRITICAL, slots=2, nodes=2)

    ((job, victims),) = queue.preempted()

    assert job == "gang"
    assert len(victims) == 2


def test_an_heir_counts_on_those_that_were_already_told_to_yield() -> None:
    queue = Queue()
    queue.worker("w", 2)
    queue.submit("a")
    queue.submit("b")
    queue.decide()
    queue.submit("urgent", "o/t/ann", Level.URGENT)
    ((_, (victim,)),) = queue.preempted()

    heir = Queue()
    heir.now = queue.now
    heir.worker("w", 2)
    for name, running in queue.scheduler.held.items():
        heir.scheduler.adopt(
            RunningJob(running.job, running.grants, running.started, stopping=name == victim),
            heir.now,
        )
    heir.submit("urgent", "o/t/ann", Level.URGENT)

    assert heir.preempted() == []
    assert "urgent" in heir.scheduler.reservations


def test_an_arrival_of_one_slot_takes_no_reservation_away_that_does_not_help_it() -> None:
    queue = Queue()
    full(queue)
    queue.submit("wide", "o/t/ann", slots=4)
    queue.placed()
    (before,) = queue.scheduler.reservations
    queue.submit("small and high", "o/t/ben", Level.HIGH, limit=24 * HOUR)

    assert queue.placed() == []
    assert list(queue.scheduler.reservations) == [before]
    queue.finish("small 0", after=60)
    assert queue.placed() == ["small and high"]


def test_a_gang_gathers_workers_that_come_free_anywhere() -> None:
    queue = Queue()
    for number in range(6):
        queue.worker(f"w{number}", 2)
        queue.submit(f"job {number}", slots=2, limit=(number + 1) * HOUR)
    queue.placed()
    queue.submit("gang", "o/t/ann", slots=2, nodes=2)
    queue.placed()
    queue.submit("late", "o/t/ben", slots=2, limit=24 * HOUR)
    (reservation,) = queue.scheduler.reservations
    chosen = {host.id for host in reservation.hosts}
    others = [number for number in range(6) if f"w{number}" not in chosen]
    queue.finish(f"job {others[0]}", after=60)
    assert queue.placed() == []
    queue.finish(f"job {others[1]}", after=60)

    assert queue.placed() == ["gang"]


def kept_gang(**fields: object) -> Queue:
    """Workers "a", which is free, and "b", which is not, kept for a gang."""
    queue = Queue()
    queue.worker("b", 2)
    queue.submit("runs", slots=2, limit=HOUR)
    queue.placed()
    queue.worker("a", 2)
    queue.submit("gang", "o/t/ann", nodes=2, slots=2, limit=HOUR, **fields)  # type: ignore[arg-type]
    assert queue.placed() == []
    assert "gang" in queue.scheduler.reservations
    return queue


def test_what_is_kept_stays_so_whatever_its_workers_cache_or_say() -> None:
    queue = kept_gang()
    for name in ("ben", "eve"):  # who have had less, and would come first
        queue.submit(name, f"o/{name}/{name}", limit=24 * HOUR)
    for room, message in ((9.0, "x"), (8.0, "y")):
        for worker in ("a", "b"):
            queue.worker(worker, 2, holds=(f"data {room}",), content_room_gb=room, rack=message)
            assert queue.placed() == []
    queue.finish("runs", after=60)

    assert sorted(queue.placed()) == ["gang"]


def test_what_is_cached_meanwhile_counts_for_the_next_place() -> None:
    queue = Queue()
    for name in ("a", "b"):
        queue.worker(name, holds=("old",) if name == "a" else ())
    queue.worker("a")
    queue.worker("b", holds=("new",))
    queue.submit("wants new", wants=("new",))
    assert queue.where() == {"wants new": [("b", (0,))]}
    queue.finish("wants new")
    queue.worker("a", holds=("other",))
    queue.submit("wants old", wants=("old", "other"))
    assert queue.where() == {"wants old": [("a", (0,))]}


@pytest.mark.parametrize(
    "change", [{"slots": 1}, {"accelerator": "gpu"}, {"memory": 4.0}, {"busy": {0: "somebody"}}]
)
def test_a_worker_on_which_the_job_does_not_fit_any_more_is_not_kept(change) -> None:
    queue = kept_gang(accelerator="cpu", min_memory_gb=8.0)
    queue.worker("a", **{"slots": 2, **change})
    queue.placed()
    assert "gang" not in queue.scheduler.reservations
    queue.finish("runs")
    assert queue.placed() == []
    queue.worker("a", 2)
    assert queue.placed() == ["gang"]


def test_rules_that_are_told_again_take_nothing_away() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 2, queue.now)
    full(queue, 2)
    queue.submit("wide", "o/t/ann", slots=2, array="sweep")
    assert queue.placed() == []
    queue.submit("other", "o/new/ben", limit=24 * HOUR)
    queue.finish("small 0", after=60)
    for _ in range(2):
        queue.scheduler.set_array_cap("sweep", 2, queue.now)
        queue.share("o/t/ann")
        assert queue.placed() == []
    queue.finish("small 1", after=60)

    assert queue.placed() == ["wide"]


def test_who_was_told_to_yield_already_comes_before_who_has_only_begun() -> None:
    queue = Queue()
    for worker in ("w0", "w1"):
        queue.worker(worker)
        queue.submit(f"runs on {worker}", labels=())
        assert queue.where() == {f"runs on {worker}": [(worker, (0,))]}
    queue.pass_time(60)
    queue.scheduler.checkpointed("runs on w1", queue.now)
    queue.submit("gone", "o/t/ann", Level.URGENT)
    assert queue.preempted() == [("gone", ("runs on w1",))]
    queue.scheduler.withdraw("gone", queue.now)
    queue.finish("runs on w0")
    queue.submit("begins")
    assert queue.placed() == ["begins"]

    queue.submit("urgent", "o/t/ann", Level.URGENT)
    assert queue.decide() == []
    queue.finish("runs on w1", after=30)
    assert queue.where() == {"urgent": [("w1", (0,))]}


def test_an_urgent_job_that_waits_for_others_to_yield_takes_what_comes_free_for_lower_ones() -> (
    None
):
    queue = Queue(reserved_part=1.0)
    queue.worker("w0", 2)
    queue.submit("small", limit=HOUR, preemptible=False)
    queue.placed()
    queue.worker("w1", 2)
    queue.submit("large", slots=2, limit=9 * HOUR)
    assert queue.where() == {"large": [("w1", (0, 1))]}
    queue.submit("urgent", "o/t/eve", Level.URGENT, slots=2)
    assert queue.preempted() == [("urgent", ("large",))]
    queue.submit("lower", "o/t/ann", slots=2)
    assert queue.placed() == []
    assert [kept.job.id for kept in queue.scheduler.reservations] == ["urgent", "lower"]

    queue.finish("small", after=30)
    assert queue.where() == {"urgent": [("w0", (0, 1))]}
    queue.finish("large", after=30)
    assert queue.where() == {"lower": [("w1", (0, 1))]}


def test_a_gang_of_which_only_a_part_fits_is_cared_for_before_lower_ones_start() -> None:
    queue = Queue()
    queue.worker("w0")
    queue.submit("stays", preemptible=False)
    queue.placed()
    queue.worker("w1", 2)
    for name in ("a", "b"):
        queue.submit(name)
    assert queue.placed() == ["a", "b"]
    queue.submit("top", "o/t/eve", Level.CRITICAL, slots=2, nodes=2)
    queue.submit("lower", "o/t/ann", Level.HIGH, nodes=2)
    assert queue.decide() == []

    queue.finish("a", after=60)
    queue.worker("w2", 2)
    assert queue.preempted() == [("top", ("b",))]
    assert sorted(queue.scheduler.running()) == ["b", "stays"]


def test_what_was_promised_to_a_gang_is_taken_back_whatever_its_workers_cost() -> None:
    queue = Queue()
    for name, price in (("dear 0", 9.0), ("dear 1", 9.0), ("cheap 0", 1.0), ("cheap 1", 1.0)):
        queue.worker(name, 2, price=price)
        limit = HOUR * (10 - price)
        queue.submit(f"on {name}", slots=2, limit=limit)
        queue.placed()
    queue.submit("gang", "o/t/ann", slots=2, nodes=2)
    queue.placed()
    (kept,) = queue.scheduler.reservations
    assert [host.id for host in kept.hosts] == ["dear 0", "dear 1"]
    queue.finish("on cheap 0", after=60)
    assert queue.placed() == []
    queue.finish("on cheap 1", after=60)
    assert queue.placed() == ["gang"]

    assert not any(node.promised for node in queue.scheduler.tenants.nodes())


def test_beside_what_is_kept_on_a_worker_others_run_for_as_long_as_they_like() -> None:
    queue = Queue()
    queue.worker("busy", 2)
    queue.submit("runs", slots=2, limit=HOUR)
    assert queue.placed() == ["runs"]
    queue.worker("a", 4)
    queue.submit("gang", "o/t/ann", nodes=2, slots=2)
    assert queue.placed() == []
    for number in range(3):
        queue.submit(f"long {number}", "o/t/ben", limit=99 * HOUR)

    assert queue.placed() == ["long 0", "long 1"]
    queue.finish("runs", after=60)
    assert queue.placed() == ["gang"]


def test_how_long_jobs_run_is_learned_from_those_that_ended() -> None:
    queue = Queue()
    queue.worker()
    for number in range(300):
        queue.submit(f"{number}", limit=HOUR)
        assert queue.placed() == [f"{number}"]
        queue.finish(f"{number}", after=0.1 * HOUR)
    queue.submit("next", limit=10 * HOUR)
    queue.placed()

    expected = queue.scheduler.held["next"].until - queue.now
    assert expected == pytest.approx((0.1 + 0.9 * 0.99**300) * 10 * HOUR)
