"""Whether a worker is to remove what no attempt needs, as was ordered of it or of all.

An order to all is one row, however many workers there are: each compares it with what it did last.
"""

from datetime import datetime

from sqlalchemy import and_, bindparam, or_, select, text
from sqlalchemy.orm import Session

from st_controller.store.moments import UtcMoment
from st_controller.store.schema import GarbageOrderOfAll, Worker

_OF_ALL = select(GarbageOrderOfAll.ordered_at).where(GarbageOrderOfAll.id == 1)
_ORDER = text(
    "INSERT INTO garbage_order_of_all (id, ordered_at) VALUES (1, :now)"
    " ON CONFLICT (id) DO UPDATE SET ordered_at = excluded.ordered_at"
).bindparams(bindparam("now", type_=UtcMoment()))

_ordered = _OF_ALL.scalar_subquery()
IS_DUE = or_(
    Worker.garbage_ordered_at.is_not(None),
    and_(Worker.garbage_collected_at.is_(None), _ordered >= Worker.joined_at),
    _ordered > Worker.garbage_collected_at,
)
"""The same as ``is_due``, as a column."""


def is_due(session: Session, worker: Worker) -> bool:
    """Whether it was ordered since the worker joined, and has not been done since."""
    if worker.garbage_ordered_at is not None:
        return True
    ordered, done = session.scalar(_OF_ALL), worker.garbage_collected_at
    if ordered is None:
        return False
    return ordered >= worker.joined_at if done is None else ordered > done


def order_of_all(session: Session, now: datetime) -> None:
    """Order it of all who have joined."""
    session.execute(_ORDER, {"now": now})
