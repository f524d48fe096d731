"""What tenants have used, written down now and then so that reading it is quick."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from math import exp, log

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session, aliased

from st_controller.store.schema import Attempt, Job, TenantUsage, User
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import Outcome


def save(tx: Transaction, usage: Mapping[str, tuple[float, float]]) -> None:
    """Put down usage and forfeited share of every node as they stand now.

    What is used after this moment is found in the attempts, so nothing depends on how often
    this is done.
    """
    tx.session.execute(delete(TenantUsage))
    rows = [
        {"path": path, "usage": used, "forfeited": forfeited, "as_of": tx.now}
        for path, (used, forfeited) in usage.items()
    ]
    if rows:
        tx.session.execute(insert(TenantUsage), rows)


def read(session: Session, half_life: float, now: datetime) -> dict[str, tuple[float, float]]:
    """Usage and forfeited share of every node at ``now``.

    What was written down is decayed, and what attempts have held since is added, so that nothing
    is lost however a scheduler ended.
    """
    decay = log(2) / half_life
    found: dict[str, tuple[float, float]] = {}
    oldest = now
    for row in session.scalars(select(TenantUsage)):
        factor = exp(-decay * max(0.0, (now - row.as_of).total_seconds()))
        found[row.path] = (row.usage * factor, row.forfeited * factor)
        oldest = min(oldest, row.as_of)
    since = oldest if found else now - timedelta(seconds=20 * half_life)
    for path, charge in _charges(session, since, decay, now):
        used, forfeited = found.get(path, (0.0, 0.0))
        found[path] = (max(0.0, used + charge), forfeited)
    return found


def _charges(
    session: Session, since: datetime, decay: float, now: datetime
) -> Iterator[tuple[str, float]]:
    """What attempts have used since a moment, with what was charged for in vain before it."""
    leader = aliased(Attempt)  # of a gang it says for all whether anything ran
    rows = session.execute(
        select(
            Attempt.slots,
            Attempt.price,
            leader.outcome,
            Attempt.offered_at,
            Attempt.released_at,
            Job.org,
            Job.team,
            User.username,
        )
        .join(Job, Job.id == Attempt.job_id)
        .join(User, User.id == Job.submitted_by)
        .join(
            leader,
            (leader.job_id == Attempt.job_id)
            & (leader.number == Attempt.number)
            & (leader.node == 0),
        )
        .where((Attempt.released_at.is_(None)) | (Attempt.released_at > since))
        .execution_options(yield_per=5000)
    )
    for slots, price, outcome, begun, released, org, team, user in rows:
        if outcome == Outcome.EXPIRED and released is not None:
            charge = -_used(begun, since, decay, now)
        else:
            charge = _used(max(begun, since), released or now, decay, now)
        if charge:
            for path in ("", org, f"{org}/{team}", f"{org}/{team}/{user}"):
                yield path, len(slots) * price * charge


def _used(begun: datetime, ended: datetime, decay: float, now: datetime) -> float:
    """What one slot-second a second between two moments has decayed to; 0 when they are turned."""
    older = (now - begun).total_seconds()
    newer = max(0.0, (now - ended).total_seconds())
    return (exp(-decay * newer) - exp(-decay * older)) / decay if older > newer else 0.0
