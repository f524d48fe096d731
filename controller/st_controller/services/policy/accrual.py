"""What running jobs use is counted as they go, and their holds are renewed.

Who has used up a quota that blocks is stopped at a checkpoint. The leader does so every few
seconds.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, bindparam, or_, select, text
from sqlalchemy.orm import defer

from st_controller.domain import use
from st_controller.domain.attempts import LEASED
from st_controller.domain.policy import quotas
from st_controller.domain.policy.estimates import MARGIN, Amounts, of_time
from st_controller.domain.policy.quotas import HELD, Counter, Place
from st_controller.domain.policy.renewal import Running, renew
from st_controller.services import topics
from st_controller.services.policy import counters, ledger
from st_controller.services.policy.ledger import Spent
from st_controller.services.policy.settlement import Settlement, settlement
from st_controller.services.worker_events import tell
from st_controller.store import direct
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.worker import StopOrder

MOST = 200
"""Jobs in one transaction."""

_UNBOOKED = text("NOT attempts.booked")
_DUE = (
    select(Attempt.job_id)
    .join(Job, Job.id == Attempt.job_id)
    .where(
        _UNBOOKED,
        Attempt.job_id > bindparam("after"),
        or_(
            Attempt.released_at.is_not(None),
            and_(Attempt.claimed_at.is_not(None), Job.held_micros.is_not(None)),
        ),
    )
    .distinct()
    .order_by(Attempt.job_id)
    .limit(MOST)
)
# Documents are read where they are needed, which is where a hold runs out.
_LATER = [defer(each) for each in (Job.spec, Job.dataset_pins, Job.wants, Job.progress, Job.reason)]
_JOBS = (
    select(Job)
    .where(Job.id.in_(bindparam("ids", expanding=True)))
    .options(*_LATER)
    .order_by(Job.id)
    .with_for_update()
    .execution_options(populate_existing=True)
)
_ATTEMPTS = (
    select(Attempt)
    .where(Attempt.job_id.in_(bindparam("ids", expanding=True)), _UNBOOKED)
    .order_by(Attempt.job_id, Attempt.id)
    .with_for_update()
    .execution_options(populate_existing=True)
)


class _Needy(NamedTuple):
    """A running job whose hold will not last long."""

    job: Job
    attempts: Sequence[Attempt]
    running: Running


def accrue(tx: Transaction, after: str = "") -> str | None:
    """Count what the next jobs have used; the id of the last of them, none: there were no more.

    All that it does counts from what was written down last, so it may be done by two at once, and
    nothing depends on how often it is done.
    """
    ids = list(tx.session.scalars(_DUE, {"after": after}))
    if not ids:
        return None
    jobs = tx.session.scalars(_JOBS, {"ids": ids}).all()
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in tx.session.scalars(_ATTEMPTS, {"ids": ids}):
        attempts[attempt.job_id].append(attempt)
    book = settlement(tx)
    spent = ledger.spend(book, tx, [(job, attempts[job.id]) for job in jobs])
    _note_spent(tx, jobs, attempts, spent)
    needy = [
        found
        for job, (_, held) in zip(jobs, spent, strict=True)
        if (found := _needy(job, attempts[job.id], held))
    ]
    if needy:
        _renew(tx, book, needy)
    return ids[-1]


def _note_spent(
    tx: Transaction,
    jobs: Sequence[Job],
    attempts: Mapping[str, Sequence[Attempt]],
    spent: Sequence[Spent],
) -> None:
    """Write down up to where attempts are charged: to their end, or as far as is proven."""
    over: list[Attempt] = []
    live: list[Attempt] = []
    for job, (used, _) in zip(jobs, spent, strict=True):
        for attempt in attempts[job.id]:
            if attempt.released_at is not None:
                over.append(attempt)
            elif used:
                live.append(attempt)
    direct.write_all(tx.session, over, {"booked": True})
    proven = [{"booked_until": use.used_until(attempt)} for attempt in live]
    direct.write_each(tx.session, live, proven)


def _needy(job: Job, attempts: Sequence[Attempt], held: Amounts) -> _Needy | None:
    live = [attempt for attempt in attempts if attempt.released_at is None]
    runs = bool(live) and all(attempt.state in LEASED for attempt in live)
    if not ledger.is_counted(job) or not runs or job.stop_reason is not None:
        return None
    rate = sum(attempt.rate for attempt in live)
    slots = sum(len(attempt.slots) for attempt in live)
    margin = of_time(rate, slots, MARGIN)
    lasts = held.micros >= margin.micros and held.slot_ms >= margin.slot_ms
    running = Running(held, rate, slots, bypasses=bool(job.spec.get("bypass_quota")))
    return None if lasts else _Needy(job, live, running)


def _renew(tx: Transaction, book: Settlement, needy: Sequence[_Needy]) -> None:
    chains = {
        each.job.id: [
            place
            for place in book.quotas.chain(tx.session, ledger.payer_of(each.job))
            if place.meter in HELD
        ]
        for each in needy
    }
    known = counters.lock_all(tx, (place for chain in chains.values() for place in chain))
    now = book.changed(tx.now, known)
    for job, attempts, running in needy:
        chain = chains[job.id]
        decided = renew(running, chain, now)
        if decided.exhausted is not None:
            spent = decided.exhausted
            _stop(tx, job, attempts, quotas.exhausted(spent, now[spent], tx.now))
        elif decided.more:
            ledger.hold(tx, job, ledger.held(job) + decided.more)
            book.count(ledger.payer_of(job), (), decided.more)
            _add(now, chain, decided.more)


def _add(now: dict[Place, Counter], chain: Sequence[Place], more: Amounts) -> None:
    for place in chain:
        if place in now:
            before = now[place]
            now[place] = before._replace(held=before.held + more.of(place.meter))


def _stop(tx: Transaction, job: Job, attempts: Sequence[Attempt], why: Reason) -> None:
    """Order a checkpoint and the end; the job is cancelled, with the reason, once that is told."""
    at: datetime = tx.now
    direct.write(tx.session, job, {"stop_reason": why.model_dump(mode="json"), "changed_at": at})
    tx.audit("system", "job.quota_exhausted", job.id, why=why.message)
    for attempt in attempts:
        if attempt.stop is None:
            attempt.stop = "preempt"
            tell(tx, attempt.worker_id, StopOrder(attempt_id=attempt.id, reason="preempt"))
    topics.tell_of(tx, job)
    topics.wake_queue(tx, [job.id])
