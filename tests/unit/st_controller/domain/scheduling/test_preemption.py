"""Who yields to urgent jobs, and what becomes of the room."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, Placement, Preemption

HOUR = 3600.0


def full(queue: Queue) -> None:
    """A worker of four slots, in all of which jobs of one slot run for long."""
    queue.worker("w", 4)
    for number in range(4):
        queue.submit(f"small {number}", level=Level.LOW, limit=10 * HOUR)
    assert len(queue.placed()) == 4


@pytest.mark.parametrize("slots", [1, 2])
def test_a_reservation_of_a_lower_level_keeps_nobody_from_preempting(slots: int) -> None:
    """All workers are kept for it, or those that are not run what yields to nobody."""
    queue = Queue()
    queue.worker("other", 4)
    queue.submit("stays", slots=4, limit=20 * HOUR, preemptible=False)
    assert queue.placed() == ["stays"]
    full(queue)
    queue.submit("wide", "o/t/ann", Level.HIGH, slots=4)
    assert queue.placed() == []
    (kept,) = queue.scheduler.reservations
    assert [host.id for host in kept.hosts] == ["w"]
    queue.submit("urgent", "o/t/ben", Level.URGENT, slots=slots, limit=10 * HOUR)

    ((job, victims),) = queue.preempted()
    assert job == "urgent"
    assert len(victims) == slots
    assert {name.split()[0] for name in victims} == {"small"}
    queue.finish(*victims, after=20)
    assert queue.placed() == ["urgent"]


def test_who_may_not_preempt_takes_no_reservation_away_to_do_so() -> None:
    """The next job that ends makes room for it, without the workers that are kept as well."""
    queue = Queue()
    full(queue)
    queue.submit("wide", "o/t/ann", slots=4)
    assert queue.placed() == []
    (kept,) = queue.scheduler.reservations
    queue.submit("high", "o/t/ben", Level.HIGH, limit=10 * HOUR)

    assert queue.decide() == []
    assert kept in list(queue.scheduler.reservations)


@pytest.mark.parametrize("level", [Level.URGENT, Level.CRITICAL])
def test_who_has_risen_as_high_as_an_urgent_job_keeps_its_reservation(level: Level) -> None:
    queue = Queue()
    full(queue)
    waited = (level - Level.HIGH + 0.5) * HOUR
    queue.submit("patient", "o/t/ann", Level.HIGH, slots=4, waited=waited)
    assert queue.placed() == []
    (kept,) = queue.scheduler.reservations
    assert kept.level == level
    queue.submit("urgent", "o/t/ben", Level.URGENT, limit=10 * HOUR)

    assert queue.decide() == []
    assert list(queue.scheduler.reservations) == [kept]


def test_a_reservation_that_is_in_nobodys_way_outlasts_a_preemption() -> None:
    queue = Queue()
    full(queue)
    queue.submit("wide", "o/t/ann", Level.HIGH, slots=4)
    assert queue.placed() == []
    queue.worker("other", 1)
    queue.submit("yields", limit=20 * HOUR)
    assert queue.placed() == ["yields"]
    (kept,) = queue.scheduler.reservations
    queue.submit("urgent", "o/t/ben", Level.URGENT, limit=10 * HOUR)

    assert queue.preempted() == [("urgent", ("yields",))]
    assert kept in list(queue.scheduler.reservations)


def test_the_least_work_is_lost_by_all_victims_together() -> None:
    queue = Queue()
    queue.worker("w", 8)
    for name, slots in (("two", 2), ("two more", 2), ("four", 4)):
        queue.submit(name, slots=slots)
    assert len(queue.placed()) == 3
    queue.pass_time(600)
    for name, seconds in (("two", 5.0), ("two more", 6.0), ("four", 4.0)):  # 10, 12 and 16 lost
        queue.scheduler.checkpointed(name, queue.now - seconds)
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=4)

    assert queue.preempted() == [("urgent", ("four",))]


@pytest.mark.parametrize("slots", [1, 2])
def test_who_yields_for_five_slots_frees_no_more_than_is_needed(slots: int) -> None:
    queue = Queue()
    queue.worker("w", 8)
    for number in range(8 // slots):
        queue.submit(f"job {number}", slots=slots)
    queue.placed()
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=5)

    ((_, victims),) = queue.preempted()
    assert len(victims) == {1: 5, 2: 3}[slots]


@pytest.mark.parametrize(("nodes", "victims"), [(2, ["gang"]), (1, ["job 0"])])
def test_the_work_of_a_gang_is_lost_once(nodes: int, victims: list[str]) -> None:
    """400 slot-seconds on both its workers together, each other job 240 on its own."""
    queue = Queue()
    for number in range(2):
        queue.worker(f"of the gang {number}", 2)
    queue.submit("gang", slots=2, nodes=2)
    assert queue.placed() == ["gang"]
    for number in range(2):
        queue.worker(f"other {number}", 2)
        queue.submit(f"job {number}", slots=2)
    assert len(queue.placed()) == 2
    queue.pass_time(600)
    for name, seconds in (("gang", 100), ("job 0", 120), ("job 1", 120)):
        queue.scheduler.checkpointed(name, queue.now - seconds)
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=2, nodes=nodes)

    assert queue.preempted() == [("urgent", tuple(victims))]


def cleared(queue: Queue, *urgent: str) -> list[str]:
    """Small jobs that yield at once to these urgent ones, on the only worker that there is."""
    full(queue)
    for name in urgent:
        queue.submit(name, "o/t/ann", Level.URGENT, limit=10 * HOUR)
    found = queue.preempted()
    assert [job for job, _ in found] == list(urgent)
    assert queue.decide() == []
    return [victim for _, (victim,) in found]


def test_urgent_jobs_need_not_wait_for_each_other_until_somebody_yields() -> None:
    queue = Queue()
    victims = cleared(queue, "first", "second", "third")
    queue.submit("intruder", "o/t/ben", Level.HIGH, limit=10 * HOUR)
    for victim, urgent in zip(victims, ("first", "second", "third"), strict=True):
        queue.finish(victim, after=20)
        assert queue.placed() == [urgent]
    assert list(queue.scheduler.reservations) == []
    queue.finish("small 3")
    assert queue.placed() == ["intruder"]


def test_a_worker_that_is_cleared_goes_to_the_next_if_the_first_withdraws() -> None:
    queue = Queue()
    victims = cleared(queue, "first", "second", "third")
    queue.submit("intruder", "o/t/ben", Level.HIGH, limit=10 * HOUR)
    queue.scheduler.withdraw("first", queue.now)
    queue.scheduler.withdraw("third", queue.now)
    queue.finish(victims[0], after=20)
    assert queue.placed() == ["second"]
    queue.finish(victims[1], after=20)

    assert queue.placed() == ["intruder"]


def test_a_worker_that_is_cleared_for_several_leaves_all_of_them_in_line() -> None:
    queue = Queue()
    cleared(queue, "first", "second")
    queue.scheduler.drop_worker("w", queue.now)
    assert list(queue.scheduler.reservations) == []
    assert queue.decide() == []
    queue.worker("fresh", 2)

    assert sorted(queue.placed()) == ["first", "second"]


@pytest.mark.parametrize("withdraws", [False, True])
def test_nobody_is_let_in_beside_one_job_where_others_yield_to_another(withdraws: bool) -> None:
    queue = Queue()
    full(queue)
    queue.worker("other", 1)
    queue.submit("on the other", level=Level.LOW, limit=10 * HOUR)
    assert queue.placed() == ["on the other"]
    queue.submit("gang", "o/t/ann", Level.URGENT, nodes=2, limit=10 * HOUR)
    queue.submit("wide", "o/t/ann", Level.URGENT, slots=3, limit=10 * HOUR)
    gang, wide = (victims for _, victims in queue.preempted())
    assert len(gang) == 2
    assert len(wide) == 3
    queue.finish(*wide[:2], after=20)
    queue.submit("intruder", "o/t/ben", Level.HIGH, limit=10 * HOUR)
    assert queue.placed() == []
    if withdraws:
        queue.scheduler.withdraw("wide", queue.now)
        assert queue.placed() == ["intruder"]
        return
    queue.finish(wide[2], after=20)
    assert queue.placed() == ["wide"]
    queue.finish(*gang, after=20)
    assert queue.placed() == ["gang"]


@pytest.mark.parametrize("wide", [1, 2])
def test_nobody_however_short_uses_what_others_have_left_to_an_urgent_job(wide: int) -> None:
    queue = Queue(preemption_grace=300.0)
    full(queue)
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=4)
    ((_, victims),) = queue.preempted()
    queue.finish(*victims[:3], after=5)
    queue.submit("short", "o/t/ben", Level.HIGH, slots=wide, limit=60.0)
    assert queue.placed() == []
    queue.finish(victims[3], after=5)

    assert queue.placed() == ["urgent"]


def test_what_is_too_large_beside_another_urgent_job_preempts_nobody() -> None:
    queue = Queue()
    cleared(queue, "first")
    queue.submit("wide", "o/t/ann", Level.URGENT, slots=4, limit=10 * HOUR)
    queue.submit("gang", "o/t/ann", Level.URGENT, nodes=2, limit=10 * HOUR)
    queue.submit("three", "o/t/ann", Level.URGENT, slots=3, limit=10 * HOUR)

    ((job, victims),) = queue.preempted()
    assert job == "three"
    assert len(victims) == 3


@given(
    running=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    urgent=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    data=st.data(),
)
def test_who_preempts_gets_what_others_leave_and_no_more_yield_than_are_needed(
    running: list[int], urgent: list[int], data: st.DataObject
) -> None:
    """On one worker, whoever yields sooner or later, and others would take the room."""
    queue = Queue()
    queue.worker("w", sum(running))
    for number, slots in enumerate(running):
        queue.submit(f"low {number}", level=Level.LOW, slots=slots, limit=10 * HOUR)
    assert len(queue.placed()) == len(running)
    for number, slots in enumerate(urgent):
        queue.submit(f"urgent {number}", "o/t/ann", Level.URGENT, slots=slots, limit=10 * HOUR)
        queue.submit(f"intruder {number}", "o/t/ben", Level.HIGH, slots=slots, limit=10 * HOUR)
    stopping: dict[str, int] = {}
    free = 0
    while True:
        for decision in queue.decide():
            if isinstance(decision, Preemption):
                assert not stopping.keys() & set(decision.victims)
                stopping |= {name: running[int(name.split()[1])] for name in decision.victims}
            elif isinstance(decision, Placement):
                free -= urgent[int(decision.job_id.split()[1])]
                assert free >= 0
        promised = sum(
            kept.job.shape.slots for kept in queue.scheduler.reservations if kept.is_preempting
        )
        assert 0 <= free + sum(stopping.values()) - promised < max(running)
        if not stopping:
            break
        name = data.draw(st.sampled_from(sorted(stopping)))
        free += stopping.pop(name)
        queue.finish(name, after=20)

    assert not promised


@given(
    running=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20)), min_size=1, max_size=6),
    lacking=st.integers(1, 12),
)
def test_no_other_choice_loses_less_or_has_fewer_yield(
    running: list[tuple[int, int]], lacking: int
) -> None:
    """Each job frees so many slots, and loses so many seconds of work on each."""
    queue = Queue()
    total = sum(slots for slots, _ in running)
    queue.worker("w", total)
    for number, (slots, _) in enumerate(running):
        queue.submit(f"{number}", slots=slots, limit=10 * HOUR)
    assert len(queue.placed()) == len(running)
    queue.pass_time(60)
    lost = {}
    for number, (slots, seconds) in enumerate(running):
        queue.scheduler.checkpointed(f"{number}", queue.now - seconds)
        lost[f"{number}"] = slots * seconds
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=lacking)
    choices = [
        (sum(lost[f"{number}"] for number in chosen), count)
        for count in range(1, len(running) + 1)
        for chosen in combinations(range(len(running)), count)
        if sum(running[number][0] for number in chosen) >= lacking
    ]

    found = [(sum(lost[one] for one in who), len(who)) for _, who in queue.preempted()]
    assert found == ([min(choices)] if choices else [])


def test_where_no_work_is_lost_the_fewest_yield() -> None:
    queue = Queue()
    queue.worker("w", 7)
    for name, slots in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        queue.submit(name, slots=slots)
    assert len(queue.placed()) == 4
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=2)

    assert queue.preempted() == [("urgent", ("c",))]


def test_who_may_not_preempt_waits_whatever_its_class() -> None:
    queue = Queue()
    full(queue)
    job = queue.submit("urgent", "o/t/ann", Level.CRITICAL)
    queue.scheduler.enqueue(replace(job, may_preempt=False), queue.now)

    assert queue.decide() == []


def test_nobody_yields_on_a_worker_that_takes_no_more_jobs() -> None:
    queue = Queue()
    full(queue)
    queue.scheduler.drop_worker("w", queue.now)
    queue.worker("other", 1)
    queue.submit("stays", limit=10 * HOUR, preemptible=False)
    assert queue.placed() == ["stays"]
    queue.submit("urgent", "o/t/ann", Level.URGENT)

    assert queue.decide() == []
