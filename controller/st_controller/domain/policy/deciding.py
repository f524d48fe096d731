"""Whether somebody may decide on a job that waits for approval."""

from datetime import datetime
from typing import NamedTuple


class Standing(NamedTuple):
    """An approval, as far as it decides who may have a say."""

    is_pending: bool
    expires_at: datetime
    rank: int
    approver: str
    requested_by: str
    submitted_by: str
    said: frozenset[str]
    """Ids of the users who have said something."""


class Refused(NamedTuple):
    """Why not: a code and a sentence."""

    code: str
    message: str


def why_not_decide(standing: Standing, *, user_id: str, rank: int, now: datetime) -> Refused | None:
    """Why this person may not decide now; none: they may. Reach is looked at elsewhere."""
    if not standing.is_pending:
        return Refused("already_decided", "it does not wait for approval any more")
    if now >= standing.expires_at:
        return Refused("approval_expired", "the time to decide is over; the job is rejected")
    if user_id in {standing.requested_by, standing.submitted_by}:
        return Refused("own_job", "nobody decides on their own job")
    if rank < standing.rank:
        return Refused("rank_too_low", f"this needs the role {standing.approver}, or a higher one")
    if user_id in standing.said:
        return Refused("already_said", "you have said what you think of it; others must, too")
    return None


def waits_for(approver: str, quorum: int, given: int, sentences: list[str]) -> str:
    """The reason of a job that waits, such as ``Awaiting approval by a lead``."""
    more = f" ({given} of {quorum} have agreed)" if quorum > 1 else ""
    return (
        f"Awaiting approval by the role {approver} or a higher one{more}: {'; '.join(sentences)}."
    )
