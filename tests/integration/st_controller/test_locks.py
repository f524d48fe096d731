"""Rows are locked in one order, or calls that meet would end each other's transactions."""

import pytest
from controller_steps import log_line

from st_controller.domain.workers import Patience
from st_controller.services import endings, jobs, leases, workers
from st_shared.protocol.states import (
    JobState,
    Outcome,
    WorkerState,
)

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
