"""What jobs use: written down in charges, and counted where a quota counts it.

An attempt is charged for the time that ``domain.use`` says, however it ends: while it runs as far
as that is proven, which only grows; one that was never claimed costs nothing.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from st_controller.domain.policy.estimates import NOTHING, Amounts
from st_controller.services.policy.quota_book import Payer
from st_controller.services.policy.settlement import Settlement, settlement
from st_controller.services.policy.spans import used_since
from st_controller.store import direct
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction


def payer_of(job: Job) -> Payer:
    """Whom a job is counted for."""
    return Payer(job.org, job.team, job.submitted_by)


def is_counted(job: Job) -> bool:
    """Whether quotas count what this job uses; it costs nothing to ask."""
    return job.held_micros is not None


def settle(tx: Transaction, ended: Sequence[tuple[Job, Sequence[Attempt]]]) -> None:
    """Count what attempts have used that have just given their slots back.

    Jobs and attempts are locked; of a gang come all members. What no quota counts is left to the
    leader, who writes it down within seconds.
    """
    counted = [(job, attempts) for job, attempts in ended if is_counted(job)]
    if not counted:
        return
    spend(settlement(tx), tx, counted)
    done = [attempt for _, attempts in counted for attempt in attempts]
    direct.write_all(tx.session, done, {"booked": True})


class Spent(NamedTuple):
    """What became known to be used by a job, and what is still held for it."""

    used: Amounts
    held: Amounts


def spend(
    book: Settlement, tx: Transaction, jobs: Sequence[tuple[Job, Sequence[Attempt]]]
) -> list[Spent]:
    """Charge what attempts of locked jobs provably used."""
    spent: list[Spent] = []
    changed: list[tuple[Job, Amounts]] = []
    for job, attempts in jobs:
        used = used_since(attempts, book.quotas.zone(job.org))
        total = sum((each.amounts for each in used), NOTHING)
        payer = payer_of(job)
        book.charge(job.id, payer, used)
        before = held(job)
        after = (before - total).at_least_nothing() if is_counted(job) else NOTHING
        if is_counted(job) and (used or after != before):
            book.count(payer, used, after - before)
            changed.append((job, after))
        spent.append(Spent(total, after))
    columns = [_columns(after) for _, after in changed]
    direct.write_each(tx.session, [job for job, _ in changed], columns)
    return spent


def free(tx: Transaction, jobs: Iterable[Job]) -> None:
    """Give back what is held for locked jobs that are over."""
    holding = [job for job in jobs if held(job)]
    if not holding:
        return
    book = settlement(tx)
    for job in holding:
        book.count(payer_of(job), (), NOTHING - held(job))
    direct.write_all(tx.session, holding, {"held_micros": 0, "held_slot_ms": 0})


def held(job: Job) -> Amounts:
    """What is held for a job."""
    return Amounts(job.held_micros or 0, job.held_slot_ms or 0)


def hold(tx: Transaction, job: Job, amounts: Amounts) -> None:
    """Write down what is held for a locked job."""
    direct.write(tx.session, job, _columns(amounts))


def _columns(held: Amounts) -> dict[str, int]:
    return {"held_micros": held.micros, "held_slot_ms": held.slot_ms}
