"""An urgent job that a limit of its own tenants holds up: lower jobs below that limit yield."""

from dataclasses import replace

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, RunningJob
from st_controller.domain.scheduling.waiting import why_waiting

LIMITS = ({"max_slots": 4}, {"max_jobs": 4})


def _at_its_limit(path: str = "o/t", slots: int = 8, **limits: int) -> Queue:
    """Four jobs of one slot run where no more may; ``low 3`` has worked least."""
    queue = Queue()
    queue.share(path, **(limits or {"max_slots": 4}))
    queue.worker(slots=slots)
    for number in range(4):
        queue.submit(f"low {number}", "o/t/ann")
        assert queue.placed() == [f"low {number}"]
        queue.pass_time(10.0)
    return queue


def _reason(queue: Queue, name: str) -> tuple[str, str]:
    job = queue.scheduler.waiting(name)
    assert job is not None
    reason = why_waiting(queue.scheduler, job, queue.now)
    return reason.code, reason.message


@pytest.mark.parametrize("path", ["", "o", "o/t", "o/t/ann"])
@pytest.mark.parametrize("limits", LIMITS)
def test_the_one_that_loses_least_yields_and_its_room_is_the_urgent_job_s(
    path: str, limits: dict[str, int]
) -> None:
    queue = _at_its_limit(path, **limits)
    queue.submit("urgent", "o/t/ann", Level.URGENT)
    assert queue.preempted() == [("urgent", ("low 3",))]
    for level in (Level.LOW, Level.HIGH):
        queue.submit(f"of class {level}", "o/t/ann", level)
    assert queue.decide() == []

    queue.finish("low 3")
    queue.submit("low 3", "o/t/ann", preemptions=1)
    assert queue.placed() == ["urgent"]
    assert queue.decide() == []  # nobody goes round in circles
    queue.finish("urgent")
    assert queue.placed() == ["of class 2"]


def test_nobody_of_other_tenants_yields() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=1)
    queue.worker(slots=8)
    queue.submit("own", "o/t/ann")
    assert queue.placed() == ["own"]
    queue.pass_time(60.0)
    queue.submit("of another team", "o/u/ben", Level.LOW)
    queue.submit("of another organisation", "p/t/cid", Level.LOW)
    assert len(queue.placed()) == 2  # who would lose less
    queue.submit("urgent", "o/t/dan", Level.URGENT)

    assert queue.preempted() == [("urgent", ("own",))]


@pytest.mark.parametrize("level", [Level.NORMAL, Level.HIGH])
def test_who_is_not_urgent_waits(level: Level) -> None:
    queue = _at_its_limit()
    queue.submit("waits", "o/t/ann", level)
    assert queue.decide() == []


def test_only_lower_classes_yield_and_only_as_often_as_they_may() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=5)
    queue.worker(slots=8)
    queue.submit("as urgent", "o/t/ann", Level.URGENT)
    queue.submit("not to be stopped", "o/t/ann", preemptible=False)
    queue.submit("stopped three times", "o/t/ann", preemptions=3)
    queue.submit("had risen", "o/t/ann", waited=4 * queue.scheduler.policy.ageing_interval)
    queue.submit("lower", "o/t/ann", Level.HIGH)
    assert len(queue.placed()) == 5
    queue.submit("first", "o/t/ben", Level.URGENT)
    queue.submit("second", "o/t/ben", Level.URGENT, slots=2)

    assert queue.preempted() == [("first", ("lower",))]
    queue.finish("lower", after=5.0)
    assert queue.placed() == ["first"]
    assert queue.decide() == []
    assert _reason(queue, "second")[0] == "limit"
    queue.submit("critical", "o/t/ben", Level.CRITICAL)
    assert queue.preempted() == [("critical", ("first",))]  # it has worked least


def test_as_many_yield_as_all_limits_on_the_way_need_and_none_twice() -> None:
    queue = Queue()
    queue.share("o", max_slots=6)
    queue.share("o/t", max_jobs=3)
    queue.share("o/t/ann", max_slots=2)
    queue.worker(slots=16)
    queue.submit("of the user", "o/t/ann", slots=2)
    for name, user in (("of the team", "o/t/ben"), ("also", "o/t/ben"), ("of o", "o/u/cid")):
        queue.submit(name, user)
        queue.pass_time(1.0)
        queue.decide()
    queue.submit("another of o", "o/u/cid")
    assert queue.placed() == ["another of o"]
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=2)
    assert queue.preempted() == [("urgent", ("of the user",))]  # which is enough for all three

    queue.scheduler.withdraw("urgent", queue.now)
    queue.finish("of the user")
    queue.submit("of the user", "o/t/ann", slots=1)
    assert queue.placed() == ["of the user"]
    queue.pass_time(1.0)
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=2)
    assert queue.preempted() == [("urgent", ("of the user",))]


def test_what_the_inner_limit_does_not_free_is_freed_below_the_outer_one() -> None:
    queue = Queue()
    queue.share("o/t", max_slots=5)
    queue.share("o/t/ann", max_slots=3)
    queue.worker(slots=16)
    queue.submit("of the user", "o/t/ann", Level.LOW)
    queue.submit("large", "o/t/ben", slots=4)
    assert len(queue.placed()) == 2
    queue.pass_time(60.0)
    queue.submit("of o", "o/u/cid", Level.LOW)
    assert queue.placed() == ["of o"]
    queue.submit("urgent", "o/t/ann", Level.URGENT, slots=3)

    assert queue.preempted() == [("urgent", ("of the user", "large"))]
    assert queue.decide() == []
    queue.finish("of the user")
    assert queue.decide() == []
    queue.finish("large")
    assert queue.placed() == ["urgent"]


def test_who_yields_on_the_worker_counts_under_the_limit() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=2)
    queue.worker("a", slots=2)
    queue.worker("b", slots=2, accelerator="gpu")
    queue.submit("on a gpu", "o/t/ann", slots=2, accelerator="gpu")
    assert queue.placed() == ["on a gpu"]
    queue.pass_time(60.0)
    queue.submit("elsewhere", "o/t/ann", slots=2, accelerator="cpu")
    assert queue.placed() == ["elsewhere"]
    queue.submit("urgent", "o/t/ben", Level.URGENT, slots=2, accelerator="gpu")

    # Under the limit alone ``elsewhere`` would do, and would lose less.
    assert queue.preempted() == [("urgent", ("on a gpu",))]
    queue.finish("on a gpu")
    assert queue.placed() == ["urgent"]


def test_a_worker_is_cleared_of_others_where_the_tenant_has_nobody_there() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=1)
    queue.worker("a", slots=2)
    queue.worker("b", slots=2, accelerator="gpu")
    queue.submit("own", "o/t/ann", slots=2, accelerator="cpu")
    queue.submit("of p", "p/t/cid", slots=2, accelerator="gpu")
    assert len(queue.placed()) == 2
    queue.submit("urgent", "o/t/ben", Level.URGENT, accelerator="gpu")

    ((_, victims),) = queue.preempted()
    assert sorted(victims) == ["of p", "own"]
    queue.finish("of p")
    assert queue.decide() == []
    queue.finish("own")
    assert queue.where() == {"urgent": [("b", (0,))]}


def test_nobody_is_stopped_for_what_could_never_start() -> None:
    queue = _at_its_limit(slots=4)
    queue.share("o/t/ben", max_jobs=0)
    queue.submit("over the limit", "o/t/cid", Level.URGENT, slots=5)
    queue.submit("nowhere", "o/t/cid", Level.URGENT, accelerator="*H100")
    queue.submit("not allowed", "o/t/ben", Level.URGENT)
    assert queue.decide() == []

    queue.worker("gpu", accelerator="NVIDIA H100")
    assert queue.preempted() == [("nowhere", ("low 3",))]


def test_nobody_is_stopped_where_all_who_would_yield_are_too_few() -> None:
    queue = Queue()
    queue.share("o/t", max_slots=4)
    queue.worker(slots=8)
    queue.submit("stays", "o/t/ann", Level.CRITICAL, slots=2, preemptible=False)
    queue.submit("lower", "o/t/ann", slots=2)
    assert len(queue.placed()) == 2
    queue.submit("urgent", "o/t/ben", Level.URGENT, slots=3)
    assert queue.decide() == []

    queue.finish("stays")
    assert queue.preempted() == [("urgent", ("lower",))]  # it is looked at again at once


def test_each_urgent_job_has_its_own_victim_and_those_who_stop_already_count() -> None:
    queue = _at_its_limit()
    queue.worker("a")
    queue.worker("b")
    for number in range(3):
        queue.submit(f"urgent {number}", "o/t/ben", Level.URGENT)
    assert queue.preempted() == [(f"urgent {n}", (f"low {3 - n}",)) for n in range(3)]
    queue.scheduler.withdraw("urgent 1", queue.now)  # whose victim stops all the same
    queue.submit("urgent 3", "o/t/ben", Level.URGENT)
    assert queue.decide() == []

    for number in range(3):
        queue.finish(f"low {3 - number}")
    assert sorted(queue.placed()) == ["urgent 0", "urgent 2", "urgent 3"]


def test_the_first_starts_when_the_first_victim_has_yielded() -> None:
    queue = _at_its_limit()
    queue.worker("another")
    queue.submit("first", "o/t/ben", Level.URGENT)
    queue.submit("second", "o/t/cid", Level.URGENT)
    assert len(queue.preempted()) == 2

    queue.finish("low 2")
    assert queue.placed() == ["first"]
    queue.finish("low 3")
    assert queue.placed() == ["second"]


def test_who_takes_over_from_another_stops_nobody_more() -> None:
    queue, later = _at_its_limit(), Queue()
    urgent = queue.submit("urgent", "o/t/ben", Level.URGENT)
    assert queue.preempted() == [("urgent", ("low 3",))]

    later.now = queue.now
    later.share("o/t", max_slots=4)
    later.worker(slots=8)
    for held in queue.scheduler.held.values():
        begun = RunningJob(held.job, held.grants, held.started, stopping=held.stopping)
        later.scheduler.adopt(begun, later.now)
    later.scheduler.enqueue(urgent, later.now)
    assert later.decide() == []
    assert _reason(later, "urgent") == _reason(queue, "urgent")
    later.finish("low 3")
    assert later.placed() == ["urgent"]


def test_another_worker_is_kept_when_the_first_leaves_and_nobody_more_is_stopped() -> None:
    queue = _at_its_limit(slots=4)
    queue.worker("spare", slots=2)
    queue.submit("urgent", "o/t/ben", Level.URGENT)
    assert queue.preempted() == [("urgent", ("low 3",))]
    queue.scheduler.drop_worker("spare", queue.now)
    assert queue.decide() == []

    queue.finish("low 3")
    assert queue.where() == {"urgent": [("w", (3,))]}


def test_it_starts_at_once_when_the_limit_is_raised_or_another_job_ends() -> None:
    for mend in (
        lambda queue: queue.share("o/t", max_slots=5),
        lambda queue: queue.finish("low 0"),
    ):
        queue = _at_its_limit()
        queue.submit("urgent", "o/t/ben", Level.URGENT)
        assert queue.preempted() == [("urgent", ("low 3",))]
        mend(queue)
        assert queue.placed() == ["urgent"]


def test_when_it_is_withdrawn_the_room_is_anybody_s() -> None:
    queue = _at_its_limit()
    queue.submit("urgent", "o/t/ben", Level.URGENT)
    queue.submit("waits", "o/t/ann")
    assert queue.preempted() == [("urgent", ("low 3",))]
    queue.scheduler.withdraw("urgent", queue.now)
    queue.finish("low 3")
    assert queue.placed() == ["waits"]


def test_a_critical_job_comes_first_and_the_urgent_one_has_another_stopped() -> None:
    queue = _at_its_limit()
    queue.submit("urgent", "o/t/ben", Level.URGENT)
    assert queue.preempted() == [("urgent", ("low 3",))]
    queue.submit("critical", "o/t/cid", Level.CRITICAL)
    assert queue.preempted() == [("urgent", ("low 2",))]  # the room to come is the critical one's
    queue.finish("low 3")
    assert queue.placed() == ["critical"]
    queue.finish("low 2")
    assert queue.placed() == ["urgent"]


def test_who_has_risen_above_it_and_waits_for_the_same_limit_comes_first() -> None:
    queue = _at_its_limit()
    waited = 4 * queue.scheduler.policy.ageing_interval
    queue.submit("has risen", "o/t/ann", slots=2, waited=waited)
    queue.submit("urgent", "o/t/ann", Level.URGENT)
    assert queue.decide() == []
    queue.scheduler.withdraw("has risen", queue.now)
    queue.pass_time(queue.scheduler.policy.settle_interval)
    assert queue.preempted() == [("urgent", ("low 3",))]


def test_gangs_yield_and_start_whole() -> None:
    queue = Queue()
    queue.share("o", max_slots=5)
    for name in "abc":
        queue.worker(name, slots=2)
    queue.submit("small", "o/t/ann")
    assert queue.placed() == ["small"]
    queue.pass_time(60.0)
    queue.submit("gang", "o/t/ann", slots=2, nodes=2)
    assert queue.placed() == ["gang"]
    queue.submit("urgent", "o/u/ben", Level.URGENT, slots=2, nodes=2)

    assert queue.preempted() == [("urgent", ("gang",))]
    queue.finish("gang")
    assert queue.placed() == ["urgent"]


def test_a_worker_that_is_kept_for_a_lower_job_is_cleared_where_there_is_no_other() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=1)
    queue.worker("a", slots=2, accelerator="gpu")
    queue.worker("b")
    queue.submit("own", "o/t/ann", accelerator="cpu")
    queue.submit("of p", "p/t/cid", accelerator="gpu", limit=600.0)
    assert len(queue.placed()) == 2
    queue.submit("large", "p/t/cid", Level.HIGH, slots=2, accelerator="gpu")
    assert queue.decide() == []
    assert [kept.job.id for kept in queue.scheduler.reservations] == ["large"]
    queue.submit("urgent", "o/t/ben", Level.URGENT, accelerator="gpu")

    assert queue.preempted() == [("urgent", ("own",))]
    queue.finish("own")
    assert queue.where() == {"urgent": [("a", (1,))]}


def test_it_is_looked_at_again_once_a_worker_has_room_for_it() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=1)
    queue.worker("a", accelerator="gpu")
    queue.worker("b")
    queue.submit("own", "o/t/ann", accelerator="cpu")
    queue.submit("not to be stopped", "p/t/cid", accelerator="gpu", preemptible=False)
    assert len(queue.placed()) == 2
    queue.submit("urgent", "o/t/ben", Level.URGENT, accelerator="gpu")
    assert queue.decide() == []
    queue.submit("lower", "p/t/cid", accelerator="gpu")
    queue.finish("not to be stopped")

    assert queue.preempted() == [("urgent", ("own",))]  # and the worker is kept


def test_it_is_looked_at_again_when_a_lower_job_has_filled_the_limit() -> None:
    queue = Queue()
    queue.share("o/t", max_jobs=1)
    queue.worker("a", accelerator="gpu")
    queue.worker("b")
    queue.submit("not to be stopped", "p/t/cid", accelerator="gpu", preemptible=False)
    assert len(queue.placed()) == 1
    queue.submit("urgent", "o/t/ben", Level.URGENT, accelerator="gpu")
    queue.submit("own", "o/t/ann", accelerator="cpu")
    assert queue.placed() == ["own"]
    queue.finish("not to be stopped")

    assert queue.preempted() == [("urgent", ("own",))]


def test_a_job_that_may_not_preempt_waits() -> None:
    queue = _at_its_limit()
    urgent = queue.submit("urgent", "o/t/ben", Level.URGENT)
    queue.scheduler.enqueue(replace(urgent, may_preempt=False), queue.now)
    assert queue.decide() == []


def test_what_is_told_says_whose_limit_and_how_many_stop() -> None:
    queue = _at_its_limit()
    queue.submit("urgent", "o/t/ben", Level.URGENT, slots=2)
    assert _reason(queue, "urgent")[0] == "limit"
    assert len(queue.preempted()) == 1
    said = "o/t has 4 of 4 slots in use, and this job asks for 2"
    assert _reason(queue, "urgent") == (
        "preempting", f"{said}: 2 of its lower jobs are being stopped for it."
    )  # fmt: skip
    queue.finish("low 3")
    said = "o/t has 3 of 4 slots in use, and this job asks for 2"
    assert _reason(queue, "urgent") == (
        "preempting", f"{said}: 1 of its lower jobs is being stopped for it."
    )  # fmt: skip
