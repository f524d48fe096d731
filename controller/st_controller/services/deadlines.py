"""Whether a deadline has passed that the leader acts on: asked every second, and mostly not so."""

from datetime import datetime, timedelta

from sqlalchemy import and_, bindparam, or_, select
from sqlalchemy.orm import Session

from st_controller.domain.workers import Patience
from st_controller.services.leases import overdue
from st_controller.services.worker_credentials import old_credential
from st_controller.services.worker_orders import drained_late
from st_controller.services.workers import fallen_silent, limits_of_silence
from st_controller.store.schema import Attempt, Worker

# Made once: building a statement costs more than running it.
_ANY = select(
    or_(
        select(Attempt.id).where(overdue(bindparam("now"))).exists(),
        select(Worker.id)
        .where(
            or_(
                fallen_silent(bindparam("silent"), bindparam("gone")),
                old_credential(bindparam("old")),
            )
        )
        .exists(),
        and_(  # few workers drain, and many attempts run
            select(Worker.id).where(Worker.drain_until <= bindparam("now")).exists(),
            drained_late(bindparam("now")).exists(),
        ),
    )
)


def any_passed(
    session: Session, now: datetime, patience: Patience, credential_age: timedelta
) -> bool:
    """Whether there is an offer, a lease, a silence, a drain or a credential to be acted on.

    It looks without a lock: whoever acts makes others wait, on SQLite all who write.
    """
    silent, gone = limits_of_silence(now, patience)
    moments = {"now": now, "silent": silent, "gone": gone, "old": now - credential_age}
    return bool(session.scalar(_ANY, moments))
