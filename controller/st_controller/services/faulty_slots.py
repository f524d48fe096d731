"""Slots whose accelerators failed again and again: they are offered no more until a person says so.

Each fault is a row of its own, so that whoever ends an attempt locks no worker. Faults count once
for each submission, which is a job with all its tries, or an array: what one program does wrong
wherever it runs says nothing of the slots.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from sqlalchemy import delete, distinct, func, select
from sqlalchemy.orm import Session

from st_controller.store.schema import Attempt, Job, SlotFault
from st_controller.store.transaction import QUEUE_WORKER, Transaction
from st_shared.protocol.resources import FaultySlot
from st_shared.protocol.worker import Failure

MOST = 3
"""Submissions under which a slot failed within the window, that cordon it."""
WINDOW = timedelta(hours=24)
_SHOWN = 200
"""Characters of a message."""
_SUBMISSION = func.coalesce(Job.array_id, Job.id)


def note(tx: Transaction, attempt: Attempt, job: Job, failure: Failure) -> None:
    """An accelerator failed under an attempt; whichever of its slots it was, all are suspect."""
    found = tx.session.execute(
        select(SlotFault.slot, func.count(distinct(_SUBMISSION)))
        .join(Attempt, Attempt.id == SlotFault.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            SlotFault.worker_id == attempt.worker_id,
            SlotFault.at > tx.now - WINDOW,
            _SUBMISSION.is_distinct_from(job.array_id or job.id),
        )
        .group_by(SlotFault.slot)
    )
    counts = {slot: count for slot, count in found}  # noqa: C416 - to mypy a Row is no pair
    for slot in attempt.slots:
        cordons = counts.get(slot, 0) + 1 >= MOST
        said = _first_line(failure.message)
        tx.session.add(
            SlotFault(
                worker_id=attempt.worker_id,
                slot=slot,
                attempt_id=attempt.id,
                at=tx.now,
                message=said,
                cordons=cordons,
            )
        )
        if cordons:
            tx.audit("system", "slot.cordoned", attempt.worker_id, slot=slot, why=said)
    tx.wake(f"{QUEUE_WORKER}{attempt.worker_id}")


def cordoned(session: Session, only: Iterable[str] | None = None) -> Mapping[str, list[FaultySlot]]:
    """The slots that are not offered, by worker, each with its last fault."""
    query = select(SlotFault).where(SlotFault.cordons).order_by(SlotFault.id)
    if only is not None:
        query = query.where(SlotFault.worker_id.in_(list(only)))
    newest: dict[str, dict[int, FaultySlot]] = {}
    for fault in session.scalars(query):
        found = FaultySlot(index=fault.slot, message=fault.message, at=fault.at)
        newest.setdefault(fault.worker_id, {})[fault.slot] = found
    return {
        worker_id: [slots[index] for index in sorted(slots)] for worker_id, slots in newest.items()
    }


def forget(tx: Transaction, worker_id: str) -> None:
    """A person says that a worker takes jobs again, or never again: its slots start anew."""
    tx.session.execute(delete(SlotFault).where(SlotFault.worker_id == worker_id))
    tx.wake(f"{QUEUE_WORKER}{worker_id}")


def prune(tx: Transaction) -> None:
    """Drop faults that are too old to count and cordon nothing."""
    old = ~SlotFault.cordons & (SlotFault.at <= tx.now - WINDOW)
    tx.session.execute(delete(SlotFault).where(old))


def _first_line(message: str) -> str:
    lines = message.strip().splitlines()
    return lines[0][:_SHOWN] if lines else "no message"
