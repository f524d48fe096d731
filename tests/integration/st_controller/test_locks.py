"""Rows are locked in one order, or calls that meet would end each other's transactions."""

from datetime import timedelta

import pytest
from controller_steps import document, log_line
from sqlalchemy import select, update

from st_controller.dispatch.rounds import Rounds
from st_controller.domain.scheduling.model import Grant, Placement, Preemption
from st_controller.domain.workers import Patience
from st_controller.services import (
    endings,
    finishing,
    gangs,
    job_arrays,
    jobs,
    joint_heartbeats,
    leases,
    offers,
    renewals,
    workers,
)
from st_controller.services.drafts import Rules
from st_controller.services.finishing import Ending
from st_controller.services.joint_heartbeats import Beat, JointHeartbeats
from st_controller.store.schema import Attempt, Job
from st_shared.protocol.resources import JobArrayRequest
from st_shared.protocol.states import FailureKind, JobState, Outcome, WorkerState
from st_shared.protocol.worker import FinishRequest, Heartbeat, Lease

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
    assert report.result(120) == 1


def test_a_registration_that_meets_a_cancellation_waits_for_it(steps, running, meanwhile):
    worker_id, _, job_id = running
    steps.clock.advance(PATIENCE.offer_ttl + 1)
    with steps.db.write() as tx:
        jobs.get_job(tx.session, steps.admin, job_id, lock=True)
        registration = meanwhile(steps.register, worker_id)
        jobs.cancel(tx, steps.admin, job_id)
    assert registration.result(120) == []
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
    assert [order.reason for order in beat.result(120).stops] == ["stale"]
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
                renewals.renew(tx, worker_id, holding, PATIENCE)
            elif how == "joint":
                renewals.renew_all(tx, [(worker_id, holding)], PATIENCE)
            else:
                leases.extend_all(tx, tx.now + timedelta(hours=1))

    with steps.db.write() as tx:
        lock(tx, second_job)
        ends = meanwhile(end_all, steps, worker_id, [first, second])
        beats = meanwhile(renew)
    assert ends.result(120) == [None, None]
    beats.result(120)


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
    assert ends.result(120) == [None, None]
    assert [steps.job(child).open_parents for child in (one, two)] == [0, 0]


@pytest.fixture
def members(steps):
    """The members of a gang, the lower id first, whose leader has the higher one."""
    owners = [steps.join("w0"), steps.join("w1")]
    steps.submit(resources={"nodes": 2})
    steps.place()
    found = []
    for worker_id in owners:
        known = steps.offered(worker_id)
        with steps.db.write() as tx:
            held = tx.session.get_one(Attempt, known)
            held.id = f"att_{9 - held.node}{known[5:]}"
            found.append((worker_id, held.id))
        steps.claim(*found[-1])
    return sorted(found, key=lambda each: each[1])


def beat_all(steps, pairs, leaving=None):
    """Heartbeats of several workers in one transaction; that of one who leaves is no plain one."""
    beats = [
        Beat(
            worker_id,
            Heartbeat(holding=[Lease(attempt_id=each, epoch=1)], leaving=worker_id == leaving),
        )
        for worker_id, each in pairs
    ]
    return JointHeartbeats(steps.db, PATIENCE)._together(beats)


def test_heartbeats_of_a_gang_meet_what_concerns_all_its_members(steps, members, meanwhile):
    worker_id, attempt_id = members[1]
    with steps.db.write() as tx:
        attempt, _ = leases.held(tx, worker_id, attempt_id, 1)  # as any call of a worker begins
        beats = meanwhile(beat_all, steps, members)
        gangs.members(tx.session, attempt)
    assert [each.stops for each in beats.result(120)] == [[], []]


@pytest.mark.parametrize("how", ["preempt", "cancel"])
def test_who_stops_a_gang_locks_its_members_as_heartbeats_do(steps, members, meanwhile, how):
    (_, low), (_, high) = members
    job_id = steps.attempt(low).job_id

    def stop():
        with steps.db.write() as tx:
            if how == "preempt":
                offers.preempt(tx, job_id, "job_other")
            else:
                jobs.cancel(tx, steps.admin, job_id)

    with steps.db.write() as tx:
        renewals.lock(tx.session, [[Lease(attempt_id=low, epoch=1)]])
        stopped = meanwhile(stop)
        renewals.lock(tx.session, [[Lease(attempt_id=high, epoch=1)]])
    stopped.result(120)
    assert [steps.attempt(each).stop for each in (low, high)] == [how, how]


def test_a_sweep_leaves_a_gang_of_which_one_is_being_renewed(steps, members):
    steps.clock.advance(PATIENCE.lease_ttl)
    with steps.db.write() as tx:
        renewals.lock(tx.session, [[Lease(attempt_id=members[0][1], epoch=1)]])
        steps.sweep()
    assert [steps.attempt(each).outcome for _, each in members] == [None, None]
    steps.sweep()
    assert [steps.attempt(each).outcome for _, each in members] == [Outcome.LOST, Outcome.LOST]


def test_heartbeats_lock_in_one_order_whatever_they_say(steps, members, meanwhile):
    (first, low), (_, high) = members
    with steps.db.write() as tx:
        renewals.lock(tx.session, [[Lease(attempt_id=low, epoch=1)]])
        # The one with the higher id is plain, the other is not.
        beats = meanwhile(beat_all, steps, members, first)
        renewals.lock(tx.session, [[Lease(attempt_id=high, epoch=1)]])
    assert [each.stops for each in beats.result(120)] == [[], []]


def test_the_end_of_an_array_locks_attempts_as_heartbeats_do(steps, two_running, meanwhile):
    _, ((first_job, first), (second_job, second)) = two_running
    asked = JobArrayRequest.model_validate(
        {"spec": document("sweep"), "grid": {"training.steps": [1, 2]}}
    )
    with steps.db.write() as tx:
        drafts = job_arrays.check(steps.admin, asked, Rules())
        array, _, _ = job_arrays.submit(tx, steps.admin, asked, drafts, None)
        array_id = array.id
        of_it = update(Job).where(Job.id.in_([first_job, second_job]))
        tx.session.execute(of_it.values(array_id=array_id))

    def end():
        with steps.db.write() as tx:
            job_arrays.cancel(tx, steps.admin, array_id)

    with steps.db.write() as tx:
        renewals.lock(tx.session, [[Lease(attempt_id=first, epoch=1)]])
        ended = meanwhile(end)
        renewals.lock(tx.session, [[Lease(attempt_id=second, epoch=1)]])
    ended.result(120)
    assert [steps.attempt(each).stop for each in (first, second)] == ["cancel", "cancel"]


def loaded_rounds(steps):
    rounds = Rounds(steps.db, PATIENCE)
    with steps.db.read() as session:
        rounds._queue.load(session, steps.clock())
    return rounds


def test_offers_beside_orders_to_yield_lock_workers_first(steps, running, meanwhile):
    worker_id, attempt_id, victim = running
    other, job_id = steps.join("other"), steps.submit("next")
    placed, yields = Placement(job_id, (Grant(other, (0,)),)), Preemption("job_big", (victim,))
    rounds = loaded_rounds(steps)
    with steps.db.write() as tx:
        workers.get_worker(tx.session, other, lock=True)  # as its heartbeat, beside that of ...
        made = meanwhile(rounds._make_true, steps.lead, [yields, placed])
        renewals.renew(tx, worker_id, [Lease(attempt_id=attempt_id, epoch=1)], PATIENCE)
    assert made.result(120) == 1
    assert steps.attempt(attempt_id).stop == "preempt"


def test_orders_to_yield_lock_jobs_in_one_order(steps, two_running, meanwhile):
    _, ((first_job, _), (second_job, _)) = two_running
    rounds, yields = loaded_rounds(steps), Preemption("job_big", (second_job, first_job))
    with steps.db.write() as tx:
        lock(tx, first_job)
        made = meanwhile(rounds._make_true, steps.lead, [yields])
        lock(tx, second_job)
    assert made.result(120) == 0


def fail(steps, worker_id, attempt_id):
    steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.DEVICE_FAULT)


def test_a_fault_of_an_accelerator_waits_for_no_heartbeat(steps, running, meanwhile):
    worker_id, attempt_id, job_id = running
    with steps.db.write() as tx:
        tx.session.execute(joint_heartbeats._WORKERS, {"ids": [worker_id]}).all()
        workers.get_worker(tx.session, worker_id, lock=True)
        ended = meanwhile(fail, steps, worker_id, attempt_id)
        renewals.renew(tx, worker_id, [Lease(attempt_id=attempt_id, epoch=1)], PATIENCE)
    ended.result(120)
    assert steps.job(job_id).state == JobState.QUEUED
