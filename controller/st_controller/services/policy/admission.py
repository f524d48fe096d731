"""The pass of every new job: may it be asked for, is there a quota left, who has to agree.

It runs in the transaction that writes the job, just before its row: what is refused leaves nothing
behind, and what is let through was judged by the rules in force at that moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft
from st_controller.services.policy import book
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


ADMITTED = Admission()
"""Let through without a word."""


def admit(
    tx: Transaction, actor: Actor, drafts: Sequence[Draft], rows: Sequence[dict[str, Any]]
) -> list[Admission]:
    """Judge new jobs, all or none.

    ``rows`` are the columns that they are going to have; each takes its state and reason from here.

    Raises:
        NotPermitted: a rule denies one of them, or a quota has nothing left; each field is named.
    """
    policy = book.current(tx.session)
    if policy.is_empty:
        return [ADMITTED] * len(rows)
    admissions = [ADMITTED for _draft, _row in zip(drafts, rows, strict=True)]
    del actor
    for row, admission in zip(rows, admissions, strict=True):
        if admission.state is not JobState.QUEUED:
            row["state"], row["queued_at"] = admission.state.value, None
        if admission.reason:
            row["reason"] = admission.reason.model_dump()
    return admissions


def record(
    tx: Transaction, rows: Sequence[dict[str, Any]], admissions: Sequence[Admission]
) -> None:
    """Write what belongs to the admission of jobs whose rows are there now: holds, approvals."""
    del tx, rows, admissions
