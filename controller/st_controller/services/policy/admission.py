"""The pass of every new job: may it be asked for, is there a quota left, who has to agree.

It runs in the transaction that writes the job, just before its row: what is refused leaves nothing
behind, and what is let through was judged by the rules in force at that moment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from st_controller.domain.policy.approval_rules import Need
from st_controller.domain.policy.resource_rules import Subject
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft
from st_controller.services.policy import approval_step, book, reservation, resource_step
from st_controller.services.policy.approval_step import BYPASS, Applicant
from st_controller.services.policy.quota_book import Payer
from st_controller.store.requests import request_text
from st_controller.store.schema import Job, User
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState


@dataclass(frozen=True, slots=True)
class Admission:
    """What becomes of a job that was let through."""

    state: JobState = JobState.QUEUED
    """Queued, or awaiting approval."""
    reason: Reason | None = None
    """Why it waits, where the policy makes it wait."""
    warnings: tuple[Reason, ...] = ()
    """Told to whoever submits it."""
    need: Need | None = None
    """What it waits for."""


ADMITTED = Admission()
"""Let through without a word."""


def admit(
    tx: Transaction, actor: Actor, drafts: Sequence[Draft], rows: Sequence[dict[str, Any]]
) -> list[Admission]:
    """Judge new jobs of one person, all or none.

    ``rows`` are the columns that they are going to have; each takes its state, its reason and its
    narrowed request from here.

    Raises:
        NotPermitted: a rule denies one of them, or a quota has nothing left; each field is named.
    """
    policy = book.current(tx.session)
    if policy.is_empty:
        return [ADMITTED] * len(rows)
    applicant = Applicant(actor.user_id, actor.may(BYPASS))
    who = [Subject(row["org"], row["team"], actor.username, actor.role) for row in rows]
    told = resource_step.apply(policy.resources, who, drafts, rows)
    counted = reservation.reserve(tx, policy.quotas, drafts, rows)
    judged = approval_step.apply(
        tx.session,
        tx.now,
        policy.approvals,
        applicant,
        who,
        drafts,
        rows,
        costs=[verdict.cost for verdict in counted],
        further=[verdict.needs for verdict in counted],
    )
    admissions = [
        _admission(found.need, (*warnings, *verdict.warnings, *found.warnings))
        for found, warnings, verdict in zip(judged, told, counted, strict=True)
    ]
    for row, admission in zip(rows, admissions, strict=True):
        if admission.need:
            row["state"], row["queued_at"] = admission.state.value, None
            row["reason"] = admission.reason.model_dump() if admission.reason else None
    return admissions


def readmit(tx: Transaction, actor: Actor, job: Job, draft: Draft) -> Admission:
    """Judge a job once more that ``actor`` tries again, by what its owner may ask for.

    What people have agreed to stands. The request of the job is narrowed anew.

    Raises:
        NotPermitted: a rule denies it now.
    """
    _note_bypass(tx, actor, [job.id] if draft.spec.bypass_quota else ())
    policy = book.current(tx.session)
    row: dict[str, Any] = {
        "org": job.org,
        "team": job.team,
        "config": job.config,
        "family": job.family,
        "slots": job.slots,
        "request": request_text(job.spec),
    }
    if policy.is_empty:
        job.request = row["request"]
        return ADMITTED
    owner = tx.session.get_one(User, job.submitted_by)
    who = [Subject(job.org, job.team, owner.username, owner.role)]
    (told,) = resource_step.apply(policy.resources, who, [draft], [row])
    payer = Payer(job.org, job.team, job.submitted_by)
    found = reservation.prospect(tx.session, policy.quotas, draft, payer, job.family, tx.now)
    cost = reservation.renew(tx, job, draft.spec)
    agreed = approval_step.granted(tx.session, job.id)
    applicant = Applicant(owner.id, actor.may(BYPASS), retried=job.id, granted=agreed)
    (judged,) = approval_step.apply(
        tx.session,
        tx.now,
        policy.approvals,
        applicant,
        who,
        [draft],
        [row],
        costs=[cost],
        further=[found.needs],
    )
    job.request = row["request"]
    approval_step.record(tx, actor.user_id, [job.id], [judged.need])
    return _admission(judged.need, (*told, *judged.warnings))


def prepare(tx: Transaction, payers: Iterable[Payer]) -> None:
    """Before jobs of several tenants are admitted one after the other in one transaction."""
    several = set(payers)
    if len(several) > 1:
        reservation.lock(tx, book.current(tx.session).quotas, several)


def record(
    tx: Transaction, actor: Actor, rows: Sequence[dict[str, Any]], admissions: Sequence[Admission]
) -> None:
    """Write what belongs to the admission of jobs whose rows are there now: holds, approvals."""
    approval_step.record(
        tx,
        actor.user_id,
        [row["id"] for row in rows],
        [admission.need for admission in admissions],
    )
    _note_bypass(tx, actor, [row["id"] for row in rows if row["spec"]["bypass_quota"]])


def _note_bypass(tx: Transaction, actor: Actor, job_ids: Iterable[str]) -> None:
    """Write down who let jobs pass the quotas."""
    for job_id in job_ids:
        tx.audit(actor.signature, "job.quota_bypassed", job_id)


def _admission(need: Need | None, warnings: tuple[Reason, ...]) -> Admission:
    if need is None:
        return Admission(warnings=warnings) if warnings else ADMITTED
    return Admission(JobState.AWAITING_APPROVAL, approval_step.reason_of(need), warnings, need)
