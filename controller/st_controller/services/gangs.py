"""Attempts of several members: each has a row with a lease of its own, all have one epoch."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain import use
from st_controller.domain.attempts import LEASED, LIVE
from st_controller.domain.gangs import MemberEnd, after_member, deciding, is_excused
from st_controller.errors import InvalidRequest
from st_controller.services import topics
from st_controller.services.worker_events import tell
from st_controller.store import direct
from st_controller.store.schema import Attempt, Worker
from st_controller.store.transaction import Transaction
from st_shared.protocol.journal import JournalEvent, LogEvent
from st_shared.protocol.states import AttemptState, FailureKind, Outcome, WorkerState
from st_shared.protocol.worker import Meeting, MeetingPlace, StopOrder

_LONGEST = 16_384
"""Characters of a log line."""


def members(session: Session, attempt: Attempt) -> list[Attempt]:
    """All members of an attempt whose job is locked, the leader first; locked as well."""
    return of_job(session, attempt.job_id, attempt.number)


def of_job(session: Session, job_id: str, number: int) -> list[Attempt]:
    """The same for an attempt that is named by its number.

    Locked by their ids, as heartbeats do, and whatever their states: the end of one concerns all.
    """
    found = session.scalars(
        select(Attempt)
        .where(Attempt.job_id == job_id, Attempt.number == number)
        .order_by(Attempt.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return sorted(found, key=lambda each: each.node)


def are_free(session: Session, attempt: Attempt) -> bool:
    """Lock all members of an attempt without waiting; false where somebody else has one."""
    if attempt.nodes == 1:
        return True
    found = session.scalars(
        select(Attempt.id)
        .where(Attempt.job_id == attempt.job_id, Attempt.number == attempt.number)
        .with_for_update(skip_locked=True)
    )
    return len(found.all()) == attempt.nodes


def only_missed_another(
    session: Session, attempt: Attempt, outcome: Outcome, failure: FailureKind | None
) -> bool:
    """Whether a member that is about to end so has only missed one that left on purpose."""
    ended = MemberEnd(attempt.node, outcome, failure)
    if attempt.nodes == 1 or not is_excused(ended, being_stopped=True):
        return False
    everybody = members(session, attempt)
    leaving = select(Worker.id).where(
        Worker.id.in_([member.worker_id for member in everybody]),
        Worker.observed == WorkerState.GONE,
    )
    told = any(member.stop is not None for member in everybody)
    return is_excused(ended, being_stopped=told or session.scalar(leaving) is not None)


def settle(tx: Transaction, ended: Attempt) -> Attempt | None:
    """After one member has ended, tell the others.

    Once all have ended they give their slots back, and the member whose end is that of the attempt
    comes back.
    """
    tx.session.flush()
    everybody = members(tx.session, ended)
    done = everybody[0].outcome == Outcome.SUCCEEDED
    others = after_member(_end_of(ended), leader_succeeded=done)
    for member in everybody:
        if member.state not in LIVE or others == "go on":
            continue
        if others == "drop" or member.state == AttemptState.OFFERED:
            _drop(tx, member, Outcome(str(ended.outcome)))
        elif member.stop is None:
            member.stop = "preempt"
            tell(tx, member.worker_id, StopOrder(attempt_id=member.id, reason="preempt"))
    if any(member.state in LIVE for member in everybody):
        if others != "go on":  # the scheduler may count on their slots
            topics.wake_queue(tx, [ended.job_id])
        return None
    direct.write_all(tx.session, everybody, {"released_at": use.released(everybody, tx.now)})
    counts = deciding([_end_of(member) for member in everybody])
    return everybody[counts.node]


def meet(tx: Transaction, attempt: Attempt, meeting: Meeting) -> MeetingPlace:
    """A member has all that it needs; where to meet comes back once every member has.

    The leader's first word stands as soon as another may have heard it.

    Raises:
        InvalidRequest: the attempt has one member, or the leader does not say where it is.
    """
    if attempt.nodes == 1:
        raise InvalidRequest.of(
            "attempt_id", "this attempt has one member: there is nobody to meet"
        )
    if attempt.node == 0 and (meeting.host is None or meeting.port is None):
        raise InvalidRequest.of(
            "host", "the first member must say where it can be met: host and port"
        )
    everybody = members(tx.session, attempt)
    if any(member.met_at is None for member in everybody):
        met: dict[str, Any] = {"met_at": attempt.met_at or tx.now}
        if attempt.node == 0:
            met["rendezvous"] = {"host": meeting.host, "port": meeting.port}
        direct.write(tx.session, attempt, met)
    if any(member.met_at is None for member in everybody):
        return MeetingPlace(host=None, port=None)
    return MeetingPlace.model_validate(everybody[0].rendezvous)


def as_one(
    tx: Transaction, attempt: Attempt, events: Sequence[JournalEvent]
) -> tuple[str, list[JournalEvent]]:
    """Journal lines of a member as they stand in the journal of the attempt, which the leader has.

    Lines of all members are numbered as they arrive; the job is locked, so none comes between.
    """
    leader = attempt if attempt.node == 0 else members(tx.session, attempt)[0]
    numbered = [
        _signed(event, attempt.node, seq)
        for seq, event in enumerate(events, start=leader.stored_seq + 1)
    ]
    direct.write(tx.session, leader, {"stored_seq": numbered[-1].seq})
    return leader.id, numbered


def _signed(event: JournalEvent, node: int, seq: int) -> JournalEvent:
    """A log line says which node wrote it; the leader's do not."""
    changes: dict[str, Any] = {"seq": seq}
    if node and isinstance(event, LogEvent):
        changes["message"] = f"[node {node}] {event.message}"[:_LONGEST]
    return event.model_copy(update=changes)


def _end_of(member: Attempt) -> MemberEnd:
    failure = FailureKind(member.failure["kind"]) if member.failure else None
    return MemberEnd(member.node, Outcome(str(member.outcome)), failure)


def _drop(tx: Transaction, member: Attempt, outcome: Outcome) -> None:
    """End a member at once; nobody waits for what it says."""
    how = outcome if member.state in LEASED and outcome is Outcome.LOST else Outcome.EXPIRED
    ended = {
        "state": AttemptState.FINISHED,
        "outcome": how,
        "finished_at": tx.now,
        "lease_expires_at": None,
    }
    direct.write(tx.session, member, ended)
    tx.audit("system", f"attempt.{how}", member.id, job=member.job_id, worker=member.worker_id)
    tell(tx, member.worker_id, StopOrder(attempt_id=member.id, reason="stale"))
