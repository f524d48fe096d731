"""The scheduler's loop itself: what wakes it, and what it does when something goes wrong."""

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from st_controller.dispatch.leadership import LEASE_SECONDS
from st_controller.dispatch.service import Dispatcher
from st_controller.services import queue_rules
from st_shared.protocol.queue import ShareRequest
from st_shared.protocol.states import JobState, WorkerDesired, WorkerState


def test_after_an_error_that_nobody_foresaw_all_is_read_anew_and_scheduling_goes_on(
    steps, loop, monkeypatch
):
    known = []
    real = loop.queue.decide

    def odd(now, most):
        if not known:
            known.append(loop.queue.scheduler)
            raise ValueError("a defect")
        return real(now, most)

    async def story():
        monkeypatch.setattr(loop.queue, "decide", odd)
        job_id = await asyncio.to_thread(steps.submit)
        await asyncio.to_thread(steps.join)
        await loop.until(lambda: steps.job(job_id).state == JobState.ASSIGNED)
        assert known
        assert loop.queue.scheduler is not known[0]

    loop.run(story)


class Watched:
    """The lock of a queue, which notes who asks for it."""

    def __init__(self, lock) -> None:
        self._lock, self.asked = lock, set()

    def __enter__(self):
        self.asked.add(threading.get_ident())
        return self._lock.__enter__()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)


def test_the_event_loop_never_asks_for_the_lock_of_the_queue(steps, loop, monkeypatch):
    monkeypatch.setattr("st_controller.dispatch.service.RENEW_SECONDS", 0.05)
    lock = loop.queue.lock = Watched(loop.queue.lock)

    async def story():
        job_id = await asyncio.to_thread(steps.submit)
        await asyncio.to_thread(steps.join)
        await loop.until(lambda: steps.job(job_id).state == JobState.ASSIGNED)
        before = loop.dispatcher.leadership.epoch
        other = await asyncio.to_thread(steps.rounds.seek, "ctl_other", alone=True)
        # It is deposed, resigns, and takes over again.
        await loop.until(lambda: getattr(loop.dispatcher.leadership, "epoch", 0) > other.epoch)
        assert other.epoch > before

    loop.run(story)
    assert lock.asked
    assert threading.get_ident() not in lock.asked


def test_who_follows_keeps_the_queue_that_it_read_for_its_age(steps):
    queue = steps.platform.queue
    shared = steps.platform.settings.model_copy(update={"database_url": "postgresql://shared"})
    follower = Dispatcher(replace(steps.platform, settings=shared), "ctl_follower")

    def read():
        age = timedelta(seconds=5)
        with steps.db.read() as session, queue.current(session, steps.clock(), age) as scheduler:
            return scheduler

    async def story():
        first = read()
        assert not await follower._seek()
        steps.clock.advance(LEASE_SECONDS - 1)
        assert not await follower._seek()
        assert read() is first
        steps.rounds.seek("ctl_test", alone=False)
        steps.clock.advance(3)
        assert read() is not first

    asyncio.run(story())


@pytest.mark.parametrize(("seconds", "kept"), [(9.9, False), (10.0, True), (3600.0, True)])
def test_who_was_suspended_holds_no_silence_against_workers(steps, running, seconds, kept):
    """As a laptop that slept, or the only controller of a machine that was paused."""
    _, attempt_id, job_id = running
    rounds = Dispatcher(steps.platform, "ctl_test")._rounds
    lead = rounds.seek("ctl_test", alone=True)
    rounds.begin(lead, timedelta(seconds=steps.patience.lease_ttl))
    for _ in range(2):  # it is at work, and hears nobody
        steps.clock.advance(8)
        rounds.sweep(lead)
    steps.clock.advance(seconds)
    rounds.sweep(lead)
    assert (steps.job(job_id).state == JobState.RUNNING) is kept
    if kept:
        until = steps.clock() + timedelta(seconds=steps.patience.lease_ttl)
        assert steps.attempt(attempt_id).lease_expires_at == until
        for _ in range(3):  # and from then on silence counts
            steps.clock.advance(8)
            rounds.sweep(lead)
        assert steps.job(job_id).state == JobState.RUNNING
        steps.clock.advance(1)
        rounds.sweep(lead)
    assert steps.job(job_id).state == JobState.QUEUED


@pytest.mark.parametrize("back", [1.0, 3600.0])
def test_after_a_clock_was_set_back_nobody_waits_for_who_is_dead(steps, running, back):
    worker_id, attempt_id, job_id = running
    offered_to = steps.join("other")
    offered = steps.submit("offered")
    dispatcher = Dispatcher(steps.platform, "ctl_test")
    asyncio.run(dispatcher._seek())
    first = steps.platform.queue.scheduler
    rounds, lead = dispatcher._rounds, dispatcher.leadership
    rounds.place(lead)
    assert steps.offered(offered_to)
    rounds.sweep(lead)
    steps.clock.advance(-back)
    asyncio.run(dispatcher._seek())
    is_noticed = back > 1
    # Moments never go back for what decides: it is made anew.
    assert (steps.platform.queue.scheduler is not first) is is_noticed
    longest = steps.clock() + timedelta(seconds=steps.patience.lease_ttl)
    assert (steps.attempt(attempt_id).lease_expires_at <= longest) is is_noticed
    if is_noticed:
        for _ in range(4):
            steps.clock.advance(steps.patience.lease_ttl / 4)
            rounds.sweep(lead)
        assert {steps.job(each).state for each in (job_id, offered)} == {JobState.QUEUED}
        for each in (worker_id, offered_to):
            assert steps.worker(each).observed == WorkerState.GONE


def test_who_was_suspended_and_places_first_was_away_all_the_same(steps, running):
    _, _, job_id = running
    rounds = Dispatcher(steps.platform, "ctl_test")._rounds
    lead = rounds.seek("ctl_test", alone=True)
    rounds.begin(lead, timedelta(seconds=steps.patience.lease_ttl))
    steps.clock.advance(60)
    steps.join("other")
    steps.submit("other")
    assert rounds.place(lead) == 1
    rounds.sweep(lead)
    assert steps.job(job_id).state == JobState.RUNNING


def test_a_leader_that_places_for_long_was_not_away(steps, running):
    _, _, job_id = running
    rounds = Dispatcher(steps.platform, "ctl_test")._rounds
    lead = rounds.seek("ctl_test", alone=True)
    rounds.begin(lead, timedelta(seconds=steps.patience.lease_ttl))
    for number in range(3):
        steps.clock.advance(9)
        steps.join(f"other-{number}")
        steps.submit(f"other-{number}")
        assert rounds.place(lead) == 1
    rounds.sweep(lead)
    assert steps.job(job_id).state == JobState.QUEUED


def jobs_in(steps, state: JobState, *job_ids: str):
    """Whether all of them are in this state; to be asked again and again."""
    return lambda: {steps.job(job_id).state for job_id in job_ids} == {state}


def test_a_worker_that_joins_is_offered_what_waits_already(steps, loop):
    job_id = steps.submit()

    async def story():
        worker_id = await asyncio.to_thread(steps.join)
        await loop.until(jobs_in(steps, JobState.ASSIGNED, job_id))
        assert steps.attempt(steps.offered(worker_id)).job_id == job_id

    loop.run(story)


def test_a_submission_is_offered_to_a_worker_that_is_idle(steps, loop):
    steps.join()

    async def story():
        job_id = await asyncio.to_thread(steps.submit)
        await loop.until(jobs_in(steps, JobState.ASSIGNED, job_id))

    loop.run(story)


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_the_end_of_a_job_lets_the_next_one_start(steps, loop, end):
    first, second = steps.submit("first"), steps.submit("second")
    worker_id = steps.join()

    async def story():
        await loop.until(jobs_in(steps, JobState.ASSIGNED, first))
        attempt_id = steps.offered(worker_id)
        if end == "finish":
            await asyncio.to_thread(steps.claim, worker_id, attempt_id)
            await asyncio.to_thread(steps.finish, worker_id, attempt_id)
        else:
            await asyncio.to_thread(steps.cancel, first)
        await loop.until(jobs_in(steps, JobState.ASSIGNED, second))

    loop.run(story)


def test_a_worker_that_takes_jobs_again_is_offered_some(steps, loop):
    worker_id = steps.join()
    steps.order(worker_id, WorkerDesired.DRAINING)

    async def story():
        job_id = await asyncio.to_thread(steps.submit)
        await loop.until(lambda: loop.queue.scheduler.waiting(job_id) is not None)
        assert steps.job(job_id).state == JobState.QUEUED
        await asyncio.to_thread(steps.order, worker_id, WorkerDesired.ACTIVE)
        await loop.until(jobs_in(steps, JobState.ASSIGNED, job_id))

    loop.run(story)


def test_a_limit_that_is_raised_lets_jobs_start(steps, loop):
    def limit(most: int) -> None:
        with steps.db.write() as tx:
            queue_rules.set_share(tx, steps.admin, "default", ShareRequest(max_jobs=most))

    limit(0)
    steps.join()
    job_id = steps.submit()

    async def story():
        assert steps.job(job_id).state == JobState.QUEUED
        await asyncio.to_thread(limit, 1)
        await loop.until(jobs_in(steps, JobState.ASSIGNED, job_id))

    loop.run(story)


def test_fifty_jobs_that_waited_over_a_restart_all_go_to_a_fresh_worker(steps, loop):
    ids = [steps.submit(f"job-{number}") for number in range(50)]

    async def story():
        await loop.until(lambda: len(loop.queue.scheduler.backlog) == 50)
        await asyncio.to_thread(lambda: steps.join("fresh", slots=50))
        await loop.until(jobs_in(steps, JobState.ASSIGNED, *ids))

    loop.run(story)
