"""Rows are locked in one order, or calls that meet would end each other's transactions."""

from datetime import timedelta

import pytest
from controller_steps import log_line
from sqlalchemy import select, update

from st_controller.domain.workers import Patience
from st_controller.services import endings, finishing, jobs, leases, workers
from st_controller.services.finishing import Ending
from st_controller.store.schema import Attempt, Job
from st_shared.protocol.states import (
    JobState,
    Outcome,
    WorkerState,
)
from st_shared.protocol.worker import FinishRequest, Lease

PATIENCE = Patience()


@pytest.fixture(autouse=True)
def _only_where_rows_are_locked(steps):
    if steps.db.is_sqlite:
        pytest.skip("SQLite locks no rows")


def test_a_report_that_meets_a_cancellation_waits_for_it(steps, running, meanwhile):
    worker_id, attempt_id, job_id = running
    with steps.db.write() as tx:
        jobs.get_job(tx.session, steps.admin, job_id, lock=True)
        report = meanwhile(steps.ship, worker_id, attempt_id, [log_line(1)])
        jobs.cancel(tx, steps.admin, job_id)
    assert report.result(10) == 1


def test_a_registration_that_meets_a_cancellation_waits_for_it(steps, running, meanwhile):
    worker_id, _, job_id = running
    steps.clock.advance(PATIENCE.offer_ttl + 1)
    with steps.db.write() as tx:
        jobs.get_job(tx.session, steps.admin, job_id, lock=True)
        registration = meanwhile(steps.register, worker_id)
        jobs.cancel(tx, steps.admin, job_id)
    assert registration.result(10) == []
    assert steps.job(job_id).state == JobState.CANCELLED


def test_a_sweep_waits_for_nobody(steps, running):
    _, attempt_id, job_id = running
    steps.clock.advance(PATIENCE.lease_ttl)
    with steps.db.write() as tx:
        jobs.get_job(tx.session, steps.admin, job_id, lock=True)
        steps.sweep()
    assert steps.attempt(attempt_id).outcome is None
    steps.sweep()
    assert steps.attempt(attempt_id).outcome == Outcome.LOST


def test_a_heartbeat_that_meets_the_end_of_its_lease_is_told(steps, running, meanwhile):
    worker_id, attempt_id, _ = running
    with steps.db.write() as tx:
        attempt, job = leases.held(tx, worker_id, attempt_id, 1)
        beat = meanwhile(steps.beat, worker_id, attempt_id)
        endings.end_attempt(tx, attempt, job, Outcome.LOST)
    assert [order.reason for order in beat.result(10).stops] == ["stale"]
    assert steps.attempt(attempt_id).lease_expires_at is None


def test_a_worker_that_is_heard_at_the_last_moment_is_not_called_silent(steps):
    worker_id = steps.join()
    steps.clock.advance(PATIENCE.silent_after)
    with steps.db.write() as tx:
        worker = workers.get_worker(tx.session, worker_id, lock=True)
        steps.sweep()
        worker.last_heartbeat_at = tx.now
    assert steps.worker(worker_id).observed == WorkerState.ONLINE


@pytest.fixture
def two_running(steps):
    """A worker of two slots, and two attempts whose ids stand the other way round than their jobs.

    So they do after a retry, or where the younger job is served first.
    """
    worker_id = steps.join(slots=2)
    jobs_ = sorted([steps.submit("a"), steps.submit("b")])
    steps.place()
    found = []
    for job_id, prefix in zip(jobs_, ("att_9", "att_0"), strict=True):
        with steps.db.write() as tx:
            (known,) = tx.session.scalars(select(Attempt.id).where(Attempt.job_id == job_id))
            renamed = prefix + known[5:]
            tx.session.execute(update(Attempt).where(Attempt.id == known).values(id=renamed))
        steps.claim(worker_id, renamed)
        found.append((job_id, renamed))
    return worker_id, found


def lock(tx, *job_ids):
    for job_id in job_ids:
        tx.session.execute(select(Job.id).where(Job.id == job_id).with_for_update()).all()


def end_all(steps, worker_id, attempt_ids):
    done = {"epoch": 1, "outcome": "succeeded", "last_seq": 0}
    endings = [Ending(worker_id, each, FinishRequest(**done)) for each in attempt_ids]
    with steps.db.write() as tx:
        return finishing.finish_all(tx, endings)


@pytest.mark.parametrize("how", ["alone", "joint", "takeover"])
def test_heartbeats_and_takeovers_meet_the_end_of_many(steps, two_running, meanwhile, how):
    worker_id, ((_, first), (second_job, second)) = two_running
    holding = [Lease(attempt_id=each, epoch=1) for each in (first, second)]

    def renew():
        with steps.db.write() as tx:
            if how == "alone":
                leases.renew(tx, worker_id, holding, PATIENCE)
            elif how == "joint":
                leases.renew_all(tx, [(worker_id, holding)], PATIENCE)
            else:
                leases.extend_all(tx, tx.now + timedelta(hours=1))

    with steps.db.write() as tx:
        lock(tx, second_job)
        ends = meanwhile(end_all, steps, worker_id, [first, second])
        beats = meanwhile(renew)
    assert ends.result(10) == [None, None]
    beats.result(10)


def test_the_ends_of_many_lock_what_waits_for_them_in_one_order(steps, meanwhile):
    worker_id = steps.join(slots=2)
    parents = [steps.submit("p1"), steps.submit("p2")]
    one, two = steps.submit("c1", after=[parents[1]]), steps.submit("c2", after=[parents[0]])
    steps.place()
    with steps.db.read() as session:
        attempts = list(session.scalars(select(Attempt.id).where(Attempt.worker_id == worker_id)))
    for attempt_id in attempts:
        steps.claim(worker_id, attempt_id)
    with steps.db.write() as tx:
        lock(tx, one)
        ends = meanwhile(end_all, steps, worker_id, attempts)
        lock(tx, two)
    assert ends.result(10) == [None, None]
    assert [steps.job(child).open_parents for child in (one, two)] == [0, 0]
