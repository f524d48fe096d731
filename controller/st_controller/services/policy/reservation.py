"""The quotas of a submission: what it will use is held, or it is refused."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.domain.policy import quotas
from st_controller.domain.policy.approval_rules import Need
from st_controller.domain.policy.estimates import NOTHING, Amounts, Asked
from st_controller.domain.policy.quotas import HELD, RUNNING, Action, Counter, Meter, Passed, Place
from st_controller.domain.policy.roles import BUILT_IN, Role
from st_controller.services import topics
from st_controller.services.drafts import Draft
from st_controller.services.policy import counters, stock, tenants
from st_controller.services.policy.counters import Change
from st_controller.services.policy.ledger import hold, payer_of
from st_controller.services.policy.quota_book import Payer, QuotaBook, holds
from st_controller.services.policy.settlement import settlement
from st_controller.store.schema import Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState
from st_shared.spec.job import JobSpec

APPROVER, RANK = Role.LEAD, BUILT_IN[Role.LEAD].rank
"""Who agrees at least to what passes a quota."""
PATIENCE = 24 * 3600.0
"""Seconds until what nobody agreed to is rejected."""


@dataclass(slots=True)
class Verdict:
    """What the quotas say of a job that none of them blocks."""

    cost: int = 0
    """Micro-units that it is expected to cost."""
    warnings: list[Reason] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    """Why somebody has to agree."""


def reserve(
    tx: Transaction, book: QuotaBook, drafts: Sequence[Draft], rows: Sequence[dict[str, Any]]
) -> list[Verdict]:
    """Count new jobs and hold what they will use; their rows get what is held for each.

    Counters are changed one by one in the order of everybody, each by one statement that changes
    nothing where the ceiling would be passed. Jobs that bypass quotas are counted after the others.

    Raises:
        QuotaExceeded: a quota that blocks has too little left; nothing may be committed then.
    """
    verdicts = [Verdict() for _ in rows]
    asked: dict[Place, list[tuple[int, Amounts]]] = defaultdict(list)
    for index, (draft, row) in enumerate(zip(drafts, rows, strict=True)):
        chain = book.chain(tx.session, Payer(row["org"], row["team"], row["submitted_by"]))
        amounts = NOTHING
        if book.prices or holds(chain):
            of_job = (row["submitted_by"], row["name"], row["family"])
            wanted = Asked.by(draft.spec)
            amounts = book.estimate(tx.session, wanted, of_job, tx.now)
            verdicts[index].cost = amounts.micros
            amounts = book.hold(wanted, amounts, tx.now)
        if holds(chain):
            row["held_micros"], row["held_slot_ms"] = amounts.micros, amounts.slot_ms
        for place in chain:
            asked[place].append((index, amounts))
    for place in quotas.in_order(asked):
        for bypasses in (False, True):
            here = [each for each in asked[place] if drafts[each[0]].spec.bypass_quota is bypasses]
            if here:
                change = _change(place, [amounts for _, amounts in here], len(here))
                for passed in _count(tx, book, place, change, capped=not bypasses):
                    _tell(tx, place, passed, [verdicts[index] for index, _ in here])
    return verdicts


def lock(tx: Transaction, book: QuotaBook, payers: Iterable[Payer]) -> None:
    """Lock the counters of several tenants at once, who are then taken one after the other."""
    chains = {payer: book.chain(tx.session, payer) for payer in payers}
    if len(chains) > 1:
        counters.lock_all(tx, (place for chain in chains.values() for place in chain))


def renew(tx: Transaction, job: Job, spec: JobSpec) -> int:
    """Hold again what a locked job will use that is retried; gives what that costs.

    It is refused at the end of the transaction, where counters are taken last, since other jobs are
    locked after this one.
    """
    book = settlement(tx)
    payer = payer_of(job)
    of_job = (job.submitted_by, job.name, job.family)
    asked = Asked.by(spec)
    amounts = book.quotas.estimate(tx.session, asked, of_job, tx.now)
    if holds(book.quotas.chain(tx.session, payer)):
        wanted = book.quotas.hold(asked, amounts, tx.now)
        hold(tx, job, wanted)
        if spec.bypass_quota:
            book.count(payer, (), wanted)
        else:
            book.ask(payer, wanted)
    else:
        job.held_micros = job.held_slot_ms = None
    return amounts.micros


def _change(place: Place, wanted: Sequence[Amounts], count: int) -> Change:
    if place.meter is Meter.SUBMISSIONS:
        return Change(used=count)
    return Change(held=sum(wanted, NOTHING).of(place.meter))


def _count(
    tx: Transaction, book: QuotaBook, place: Place, change: Change, *, capped: bool
) -> list[Passed]:
    """Count at one place; the limits that are passed and do not block these jobs."""
    if place.meter in HELD or place.meter is Meter.SUBMISSIONS:
        counter = counters.take(tx, place, change, capped=capped)
        if counter is None and place.comes_with_role:
            stock.take(tx, book, place)
            counter = counters.take(tx, place, change, capped=capped)
        return place.passed(counter, change.used + change.held) if counter else []
    stock.make(tx, book, place)
    seen = now(tx.session, place, tx.now)
    if capped and is_refused(place, seen, change):
        raise counters.refusal(place, seen, 0, tx.now)
    return place.passed(_after(place, seen, change), 1)


def now(session: Session, place: Place, at: datetime) -> Counter:
    """How much of a place is taken, of every kind."""
    if place.meter not in RUNNING:
        return stock.look(session, place, at)
    if all(quota.action is Action.BLOCK for quota in place.quotas):
        return Counter(0)  # the scheduler sees to it
    return running(session, place)


def is_refused(place: Place, counter: Counter, change: Change) -> bool:
    """Whether the ceiling of a place does not allow a new job."""
    ceiling = place.ceiling
    if ceiling is None or place.meter in RUNNING:
        return False
    if place.meter is Meter.STORAGE:
        return counter.used >= ceiling.amount
    return counter.total + change.used + change.held > ceiling.amount


def _after(place: Place, counter: Counter, change: Change) -> Counter:
    more = 1 if place.meter in RUNNING else change.used
    return Counter(counter.used + more, counter.held + change.held)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What the quotas would say of a job."""

    cost: int
    needs: tuple[Need, ...]
    refusals: tuple[Reason, ...]
    """By each quota that blocks it."""
    notes: tuple[Reason, ...]


def prospect(
    session: Session, book: QuotaBook, draft: Draft, payer: Payer, family: str, at: datetime
) -> Prospect:
    """The same as ``reserve`` for one job, and nothing is written."""
    of_job = (payer.user_id, draft.spec.name, family)
    asked = Asked.by(draft.spec)
    amounts = book.estimate(session, asked, of_job, at)
    held = book.hold(asked, amounts, at)
    refusals: list[Reason] = []
    notes: list[Reason] = []
    needs: list[Need] = []
    for place in book.chain(session, payer):
        change = _change(place, [held], 1)
        seen = now(session, place, at)
        if is_refused(place, seen, change):
            refused = quotas.refused(place, seen, change.used + change.held, at)
            (notes if draft.spec.bypass_quota else refusals).append(refused)
        for passed in place.passed(_after(place, seen, change), 1):
            said = quotas.told(place, passed, at)
            if passed.quota.action is Action.REQUIRE_APPROVAL:
                needs.append(_need(passed, said))
            elif passed.quota.action is Action.WARN:
                notes.append(said)
    return Prospect(amounts.micros, tuple(needs), tuple(refusals), tuple(notes))


def running(session: Session, place: Place) -> Counter:
    """How many jobs, or slots, run at a place now."""
    what = func.count() if place.meter is Meter.RUNNING_JOBS else func.sum(Job.slots)
    query = select(func.coalesce(what, 0)).where(
        Job.state.in_((JobState.ASSIGNED, JobState.RUNNING)), *tenants.below(Job, place.path)
    )
    return Counter(int(session.scalar(query) or 0))


def _need(passed: Passed, said: Reason) -> Need:
    return Need(APPROVER.value, RANK, 1, PATIENCE, ((passed.quota.id, said.message),))


def _tell(tx: Transaction, place: Place, passed: Passed, whom: Sequence[Verdict]) -> None:
    said = quotas.told(place, passed, tx.now)
    match passed.quota.action:
        case Action.WARN:
            for verdict in whom:
                verdict.warnings.append(said)
        case Action.REQUIRE_APPROVAL:
            for verdict in whom:
                verdict.needs.append(_need(passed, said))
        case _:
            pass
    if passed.counter.total - passed.asked <= passed.quota.amount:  # it is passed just now
        body = {"quota": passed.quota.id, "path": place.path, "kind": place.kind.value}
        tx.emit(topics.QUOTAS, "quota", {**body, "message": said.message})
