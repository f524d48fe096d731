"""What must hold in the database after every step, whoever died at which write."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from simulation.invariants import Broken
from st_controller.domain.attempts import LIVE
from st_controller.domain.jobs import may_move
from st_controller.domain.scheduling.scheduler import Scheduler
from st_controller.store.schema import (
    Attempt,
    AuditEntry,
    IdempotencyKey,
    Job,
    JobTransition,
    OutboxEvent,
)
from st_shared.protocol.states import JobState, Outcome


def database_is_sound(session: Session, most_running: int) -> None:
    """All that can be read of it agrees; ``most_running``: the limit of everybody's jobs.

    Raises:
        Broken: saying which does not hold.
    """
    jobs = {row.id: row for row in session.execute(select(Job.id, Job.state, Job.version))}
    attempts = session.execute(
        select(
            Attempt.id,
            Attempt.job_id,
            Attempt.number,
            Attempt.epoch,
            Attempt.state,
            Attempt.outcome,
            Attempt.worker_id,
            Attempt.slots,
        ).order_by(Attempt.job_id, Attempt.number)
    ).all()
    live = [attempt for attempt in attempts if attempt.state in LIVE]
    _slots_are_apart(live)
    _jobs_and_attempts_agree(jobs, attempts, live)
    _demand(len(live) <= most_running, f"{len(live)} jobs run, {most_running} may")
    _histories_are_whole(session, jobs)
    _events_are_in_order(session)


def keys_made_one_job_each(session: Session, answered: Mapping[str, str]) -> None:
    """Whoever was told of a job finds it, and no key made another."""
    made = dict(session.execute(select(IdempotencyKey.key, IdempotencyKey.result)).all())
    known = set(session.scalars(select(Job.id)))
    for key, job_id in answered.items():
        _demand(made.get(key) == {"job": job_id}, f"{key} was answered {job_id}: {made.get(key)}")
        _demand(job_id in known, f"{job_id} is lost")
    _demand(len(known) == len(made), f"{len(made)} keys made {len(known)} jobs")


def memory_is_true(session: Session, scheduler: Scheduler) -> None:
    """What the leader decides with is what the database says, once it has caught up."""
    live = set(session.scalars(select(Attempt.job_id).where(Attempt.state.in_(LIVE))))
    _demand(set(scheduler.running()) == live, f"runs in memory: {set(scheduler.running()) ^ live}")
    ready = select(Job.id).where(Job.state == JobState.QUEUED, Job.open_parents == 0)
    waits = set(session.scalars(ready))
    _demand(
        set(scheduler.pending()) == waits, f"waits in memory: {waits ^ set(scheduler.pending())}"
    )


def _slots_are_apart(live: list[Any]) -> None:
    taken = Counter((attempt.worker_id, slot) for attempt in live for slot in attempt.slots)
    _demand(max(taken.values(), default=0) <= 1, f"double-booked: {taken.most_common(2)}")


def _jobs_and_attempts_agree(jobs: Mapping[str, Any], attempts: Any, live: list[Any]) -> None:
    owners = Counter(attempt.job_id for attempt in live)
    by_job: dict[str, list[Any]] = defaultdict(list)
    for attempt in attempts:
        by_job[attempt.job_id].append(attempt)
    for job in jobs.values():
        runs = job.state in {JobState.ASSIGNED, JobState.RUNNING}
        _demand(owners[job.id] == runs, f"{job.id} is {job.state}, live: {owners[job.id]}")
        mine = by_job[job.id]
        numbers = [attempt.number for attempt in mine]
        _demand(numbers == list(range(1, len(mine) + 1)), f"{job.id} has attempts {numbers}")
        _demand(
            all(a.epoch < b.epoch for a, b in pairwise(mine)), f"epochs of {job.id} do not rise"
        )
        won = [attempt.outcome for attempt in mine].count(Outcome.SUCCEEDED)
        succeeded = job.state == JobState.SUCCEEDED
        _demand(won == succeeded, f"{job.id} is {job.state} and succeeded {won} times")


def _histories_are_whole(session: Session, jobs: Mapping[str, Any]) -> None:
    """Each change of a job's state is legal and written down once, with its audit entry."""
    history: dict[str, list[Any]] = defaultdict(list)
    columns = select(JobTransition.job_id, JobTransition.version, JobTransition.state)
    for row in session.execute(columns.order_by(JobTransition.version)):
        history[row.job_id].append(row)
    for job in jobs.values():
        steps = history[job.id]
        _demand(bool(steps) and steps[-1].state == job.state, f"{job.id} has no history")
        _demand(steps[-1].version == job.version, f"{job.id}: version {job.version}")
        for before, after in pairwise(steps):
            legal = may_move(JobState(before.state), JobState(after.state))
            _demand(legal, f"{job.id}: {before.state} -> {after.state}")
    submitted = session.scalars(
        select(AuditEntry.target).where(AuditEntry.action == "job.submitted")
    ).all()
    _demand(sorted(submitted) == sorted(jobs), "jobs and audited submissions differ")


def _events_are_in_order(session: Session) -> None:
    places = list(session.scalars(select(OutboxEvent.position).order_by(OutboxEvent.id)))
    _demand(places == list(range(1, len(places) + 1)), "events have gaps or are out of order")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
