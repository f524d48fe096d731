"""Slots that somebody outside the queue uses are not offered, and come back."""

from queue_steps import Queue

from st_controller.domain.scheduling.model import Placement
from st_controller.domain.scheduling.waiting import why_waiting

WHO = "process 42 (python), 12 GiB"


def placed(queue):
    return {
        decision.job_id: decision.grants[0].slots
        for decision in queue.decide()
        if isinstance(decision, Placement)
    }


def test_a_busy_slot_is_not_offered_until_it_is_free():
    queue = Queue()
    queue.worker(slots=2, busy={0: WHO})
    queue.submit("first")
    second = queue.submit("second")
    assert placed(queue) == {"first": (1,)}
    found = why_waiting(queue.scheduler, second, queue.now)
    assert found.code == "busy"
    assert found.message.endswith(f"More would fit, but are not to be had: w slot 0: {WHO}.")
    queue.worker(slots=2)
    assert placed(queue) == {"second": (0,)}


def test_a_job_that_needs_a_busy_slot_says_who_has_it():
    queue = Queue()
    queue.worker("gpu-7", slots=2, accelerator="NVIDIA H100", busy={1: WHO})
    job = queue.submit("wide", slots=2, accelerator="nvidia*")
    assert placed(queue) == {}
    found = why_waiting(queue.scheduler, job, queue.now)
    assert found.code == "slots_in_use"
    assert f"gpu-7 slot 1: {WHO}" in found.message
    other = queue.submit("other", slots=3)
    assert why_waiting(queue.scheduler, other, queue.now).code == "no_matching_worker"


def test_a_host_of_which_every_slot_is_busy_offers_nothing():
    queue = Queue()
    queue.worker(slots=1, busy={0: WHO})
    job = queue.submit("job")
    assert placed(queue) == {}
    assert why_waiting(queue.scheduler, job, queue.now).code == "slots_in_use"
    queue.worker(slots=1)
    assert placed(queue) == {"job": (0,)}


def test_a_job_keeps_its_slot_while_somebody_else_comes_and_goes_there():
    queue = Queue()
    queue.worker()
    queue.submit("job")
    assert placed(queue) == {"job": (0,)}
    queue.worker(busy={0: WHO})
    queue.worker()
    queue.submit("next")
    assert placed(queue) == {}  # it is free of strangers, but not of the job
    queue.scheduler.finish("job", queue.now)
    assert placed(queue) == {"next": (0,)}


def test_a_job_that_ends_while_somebody_else_is_there_leaves_nothing_behind():
    queue = Queue()
    queue.worker()
    queue.submit("job")
    queue.decide()
    queue.worker(busy={0: WHO})
    queue.scheduler.finish("job", queue.now)
    queue.submit("next")
    assert placed(queue) == {}
    queue.worker()
    assert placed(queue) == {"next": (0,)}
