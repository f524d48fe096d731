"""The one place where a job's state is written: legal steps only, by one writer, with a record."""

import pytest
from controller_steps import progress_line
from sqlalchemy import func, select, update

from st_controller.domain.jobs import TRANSITIONS
from st_controller.errors import Conflict
from st_controller.services.moves import Queued, assign_jobs, move_job, succeed_all
from st_controller.store.schema import AuditEntry, Job, JobTransition, OutboxEvent
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState, Outcome

WHY = Reason(code="test", message="because")


def move(steps, job_id, after) -> str | None:
    """Move without locking; gives the code of a refusal."""
    try:
        with steps.db.write() as tx:
            move_job(tx, tx.session.get_one(Job, job_id), after, "root", WHY)
    except Conflict as refused:
        return refused.code
    return None


def records(steps, job_id) -> tuple[int, int, int]:
    """How many transitions, audit entries and events there are of a job."""
    with steps.db.read() as session:
        return (
            session.scalar(
                select(func.count())
                .select_from(JobTransition)
                .where(JobTransition.job_id == job_id)
            ),
            session.scalar(
                select(func.count()).select_from(AuditEntry).where(AuditEntry.target == job_id)
            ),
            session.scalar(select(func.count()).select_from(OutboxEvent)),
        )


def test_each_move_leaves_one_transition_one_audit_entry_and_one_event(steps):
    job_id = steps.submit()
    path = [JobState.ASSIGNED, JobState.RUNNING, JobState.QUEUED, JobState.CANCELLED]
    assert records(steps, job_id) == (1, 1, 1)
    for place, state in enumerate(path, start=2):
        assert move(steps, job_id, state) is None
        assert records(steps, job_id) == (place, place, place)
    with steps.db.read() as session:
        told = session.execute(
            select(JobTransition.version, JobTransition.state).order_by(JobTransition.version)
        ).all()
        audited = session.scalars(select(AuditEntry.action).order_by(AuditEntry.seq)).all()
    assert told == [(1, "queued"), *((n, state) for n, state in enumerate(path, start=2))]
    assert audited == ["job.submitted", *(f"job.{state}" for state in path)]


def test_no_illegal_step_is_taken_and_none_leaves_a_trace(steps):
    job_id = steps.submit()
    for before in JobState:
        with steps.db.write() as tx:
            tx.session.execute(update(Job).values(state=before))
        for after in set(JobState) - TRANSITIONS[before]:
            assert move(steps, job_id, after) == "illegal_move"
        job = steps.job(job_id)
        assert (job.state, job.version, records(steps, job_id)) == (before, 1, (1, 1, 1))


def test_what_was_changed_since_it_was_read_is_not_overwritten(steps):
    job_id = steps.submit()

    def move_late() -> None:
        with steps.db.write() as tx:
            job = tx.session.get_one(Job, job_id)
            tx.session.execute(
                update(Job).values(version=2).execution_options(synchronize_session=False)
            )
            move_job(tx, job, JobState.ASSIGNED, "root")

    with pytest.raises(Conflict) as refused:
        move_late()
    assert refused.value.code == "version_conflict"
    assert (steps.job(job_id).state, steps.job(job_id).version) == ("queued", 1)


@pytest.mark.parametrize("beside", [0, 1], ids=["alone", "among others"])
def test_what_was_changed_since_it_was_decided_is_not_assigned(steps, beside):
    ids = [steps.submit(f"job-{number}") for number in range(1 + beside)]
    read = [_queued(steps.job(job_id)) for job_id in ids]
    before = [records(steps, job_id) for job_id in ids]
    stale = read[0]._replace(version=read[0].version + 5)
    with pytest.raises(Conflict) as refused, steps.db.write() as tx:
        assign_jobs(tx, [stale, *read[1:]], "scheduler")
    assert refused.value.code == "version_conflict"
    assert [records(steps, job_id) for job_id in ids] == before
    assert {steps.job(job_id).state for job_id in ids} == {JobState.QUEUED}


def test_a_new_attempt_begins_without_the_progress_of_the_last(steps, running):
    worker_id, attempt_id, job_id = running
    steps.ship(worker_id, attempt_id, [progress_line(1)])
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED, last=1)
    assert steps.job(job_id).progress is not None
    assert steps.place() == 1
    assert (steps.job(job_id).progress, steps.job(job_id).reason) == (None, None)


def test_what_goes_back_waits_from_then_on(steps, running):
    worker_id, attempt_id, job_id = running
    submitted = steps.job(job_id).submitted_at
    steps.clock.advance(7)
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    job = steps.job(job_id)
    assert (job.queued_at, job.submitted_at) == (steps.clock(), submitted)


def test_what_was_changed_since_it_was_read_does_not_succeed(steps, running):
    _, _, job_id = running
    job = steps.job(job_id)
    with steps.db.write() as tx:
        tx.session.execute(update(Job).values(version=job.version + 5))
    with pytest.raises(Conflict), steps.db.write() as tx:
        succeed_all(tx, [job], ["root"])
    assert steps.job(job_id).state == JobState.RUNNING


def _queued(job: Job) -> Queued:
    return Queued(job.id, job.version, job.submitted_by, job.org, job.team)


def test_of_eight_that_move_one_job_at_once_one_wins(steps, together):
    job_id = steps.submit()
    outcomes = together(
        lambda turn: move(steps, job_id, JobState.ASSIGNED if turn % 2 else JobState.CANCELLED),
        range(8),
    )
    job = steps.job(job_id)
    moved = outcomes.count(None)
    # Assigned may still be cancelled by one that came later; nothing else may follow.
    assert moved in {1, 2}
    assert job.version == 1 + moved
    assert records(steps, job_id) == (job.version,) * 3
    assert set(outcomes) <= {None, "version_conflict", "illegal_move"}


def test_two_transactions_that_read_the_same_version_do_not_both_win(steps):
    if steps.db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    job_id = steps.submit()

    def move_late() -> None:
        with steps.db.write() as tx:
            job = tx.session.get_one(Job, job_id)
            assert move(steps, job_id, JobState.ASSIGNED) is None
            move_job(tx, job, JobState.CANCELLED, "root")

    with pytest.raises(Conflict) as refused:
        move_late()
    assert refused.value.code == "version_conflict"
    assert steps.job(job_id).state == JobState.ASSIGNED
    assert records(steps, job_id) == (2, 2, 2)


def move_and_fail(steps, job_id) -> None:
    with steps.db.write() as tx:
        move_job(tx, tx.session.get_one(Job, job_id), JobState.ASSIGNED, "root")
        tx.session.flush()
        raise ZeroDivisionError


def test_a_move_that_is_undone_leaves_nothing(steps):
    job_id = steps.submit()
    with pytest.raises(ZeroDivisionError):
        move_and_fail(steps, job_id)
    assert (steps.job(job_id).state, records(steps, job_id)) == ("queued", (1, 1, 1))


def test_followers_are_told_after_the_commit_and_only_then(steps):
    job_id, told = steps.submit(), []
    steps.db.notify = told.append
    with pytest.raises(ZeroDivisionError):
        move_and_fail(steps, job_id)
    with steps.db.write() as tx:
        move_job(tx, tx.session.get_one(Job, job_id), JobState.ASSIGNED, "root")
        assert told == []
    # Where the event has its place already, its own followers are told, otherwise the relay.
    events = "jobs" if steps.db.is_sqlite else "outbox"
    assert told == [{events, f"job:{job_id}"}]
