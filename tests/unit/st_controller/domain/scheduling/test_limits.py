"""Limits of running jobs and slots, and caps of arrays."""

from dataclasses import replace

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level


@pytest.mark.parametrize("path", ["", "o", "o/t", "o/t/ann"])
def test_a_limit_of_jobs_holds_wherever_it_is_set(path: str) -> None:
    queue = Queue()
    queue.share(path, max_jobs=2)
    queue.worker(slots=8)
    for number in range(5):
        queue.submit(f"{number}", "o/t/ann")

    assert queue.placed() == ["0", "1"]
    queue.finish("0")
    assert queue.placed() == ["2"]


@pytest.mark.parametrize("path", ["", "o", "o/t", "o/t/ann"])
def test_a_limit_of_slots_lets_what_still_fits_pass(path: str) -> None:
    queue = Queue()
    queue.share(path, max_slots=4)
    queue.worker(slots=8)
    queue.submit("three", "o/t/ann", slots=3)
    queue.submit("two", "o/t/ann", slots=2)
    queue.submit("one", "o/t/ann")

    assert queue.placed() == ["three", "one"]


def test_whoever_is_at_a_limit_does_not_hold_up_the_others() -> None:
    queue = Queue()
    queue.share("o/t/ann", max_jobs=1)
    queue.worker(slots=3)
    for number in range(3):
        queue.submit(f"ann {number}", "o/t/ann")
    queue.submit("ben", "o/t/ben")

    assert sorted(queue.placed()) == ["ann 0", "ben"]


def test_an_array_runs_no_more_jobs_at_once_than_its_cap() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 2, queue.now)
    queue.worker(slots=8)
    for number in range(5):
        queue.submit(f"{number}", array="sweep")
    queue.submit("other")

    assert queue.placed() == ["0", "1", "other"]
    queue.finish("1")
    assert queue.placed() == ["2"]
    queue.scheduler.withdraw("3", queue.now)
    queue.scheduler.set_array_cap("sweep", 5, queue.now)
    assert queue.placed() == ["4"]


def test_a_cap_that_is_lifted_lets_all_in() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 1, queue.now)
    queue.worker(slots=8)
    for number in range(4):
        queue.submit(f"{number}", array="sweep")
    assert queue.placed() == ["0"]
    queue.scheduler.set_array_cap("sweep", None, queue.now)
    assert queue.placed() == ["1", "2", "3"]


def test_a_job_that_was_raised_takes_the_place_of_another_of_its_array() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 2, queue.now)
    queue.worker(slots=1)
    for number in range(4):
        queue.submit(f"{number}", array="sweep")
    assert queue.placed() == ["0"]

    queue.submit("3", level=Level.HIGH, array="sweep")
    queue.finish("0")
    assert queue.placed() == ["3"]
    queue.submit("2", level=Level.HIGH, array="sweep")
    for ends in ("3", "2"):
        queue.finish(ends)
        assert len(queue.placed()) == 1
    assert sorted(queue.scheduler.running()) == ["1"]
    assert list(queue.scheduler.pending()) == []


def test_a_job_of_a_capped_array_that_yielded_goes_on_before_the_next() -> None:
    queue = Queue()
    queue.worker()
    queue.scheduler.set_array_cap("array", 1, queue.now)
    jobs = {name: queue.submit(name, array="array") for name in ("a", "b", "c")}
    assert queue.placed() == ["a"]
    queue.submit("urgent", "o/t/ann", Level.URGENT)
    assert queue.preempted() == [("urgent", ("a",))]
    queue.finish("a", after=10)
    again = replace(jobs["a"], waiting_since=queue.now, preemptions=1)
    queue.scheduler.enqueue(again, queue.now)
    order = [*queue.placed()]
    for _ in range(3):
        queue.finish(order[-1], after=10)
        order += queue.placed()

    assert order == ["urgent", "a", "b", "c"]


def test_a_job_that_was_lowered_again_waits_behind_the_others_of_its_array() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 1, queue.now)
    queue.worker()
    first, last, other = (queue.submit(name, array="sweep") for name in ("first", "last", "other"))
    assert queue.placed() == [first.id]
    queue.submit("top", level=Level.CRITICAL, array="sweep")

    for level in (Level.HIGH, Level.LOW):
        queue.scheduler.enqueue(replace(last, level=level), queue.now)
    for before, after in ((first.id, "top"), ("top", other.id), (other.id, last.id)):
        queue.finish(before)
        assert queue.placed() == [after]


def test_a_cap_that_is_lowered_sends_back_who_came_last_and_stops_nobody() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 4, queue.now)
    queue.worker(slots=3)
    for number in range(6):
        queue.submit(f"{number}", array="sweep")
    assert queue.placed() == ["0", "1", "2"]  # the fourth stands in line

    queue.scheduler.set_array_cap("sweep", 2, queue.now)
    assert sorted(queue.scheduler.running()) == ["0", "1", "2"]
    queue.finish("0")
    assert queue.placed() == []
    queue.finish("1")
    assert queue.placed() == ["3"]
    queue.scheduler.set_array_cap("sweep", 3, queue.now)
    assert queue.placed() == ["4"]


def test_a_job_that_fits_nowhere_keeps_no_other_of_its_array_from_running() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 2, queue.now)
    queue.worker(slots=4)
    for number in range(3):
        queue.submit(f"hopeless {number}", array="sweep", accelerator="h100*")
    for number in range(4):
        queue.submit(f"{number}", array="sweep")
    assert queue.placed() == ["0", "1"]
    queue.finish("0")
    assert queue.placed() == ["2"]

    queue.worker("new", slots=4, accelerator="h100")
    assert queue.placed() == []  # as many run as may
    queue.finish("1", "2")
    assert queue.placed() == ["hopeless 0", "hopeless 1"]
    queue.finish("hopeless 0")
    assert queue.placed() == ["hopeless 2"]
    queue.finish("hopeless 1", "hopeless 2")
    assert queue.placed() == ["3"]


def test_a_cap_holds_whatever_the_shapes_of_an_array_and_whoever_gives_up_what_was_kept() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 1, queue.now)
    queue.worker(slots=2)
    queue.submit("runs", limit=600.0)
    assert queue.placed() == ["runs"]
    queue.submit("wide", array="sweep", slots=2)
    queue.submit("small", array="sweep", limit=86_400.0)
    queue.submit("same", array="sweep", slots=2)
    assert queue.placed() == []
    assert [kept.job.id for kept in queue.scheduler.reservations] == ["wide"]

    queue.scheduler.withdraw("wide", queue.now)
    assert queue.placed() == ["small"]
    queue.finish("runs", "small", after=60.0)
    assert queue.placed() == ["same"]
    assert list(queue.scheduler.pending()) == []


def test_those_in_no_line_are_counted_by_reason_and_organisation() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 1, queue.now)
    for number in range(3):
        queue.submit(f"{number}", "lab/team/ann", array="sweep")
    queue.submit("later", "lab/team/ann", not_before=queue.now + 60.0)
    queue.submit("elsewhere", "org/team/ben", not_before=queue.now + 60.0)

    held = queue.scheduler.backlog.held_by_reason
    assert held(queue.now) == {"not_before": 2, "array_cap": 2}
    assert held(queue.now, "lab") == {"not_before": 1, "array_cap": 2}
    assert held(queue.now, "org") == {"not_before": 1}
    assert held(queue.now, "none") == {}
