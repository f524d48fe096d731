"""The lease of the leader as it is proven: by one statement, since every decision waits for it."""

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.store.schema import CrashMark, LeaderLease

NAME = "scheduler"
"""Of the lease, and of the mark that a crash of the database removes."""


class Held(NamedTuple):
    """Who leads, and what it has marked."""

    holder: str
    epoch: int
    marked: int | None
    """The epoch that was marked since the database last crashed; none: it was not."""


_LOCK = (
    select(
        LeaderLease.holder,
        LeaderLease.epoch,
        select(CrashMark.value).where(CrashMark.name == NAME).scalar_subquery(),
    )
    .where(LeaderLease.name == NAME)
    .with_for_update(of=LeaderLease)
)


def lock(session: Session) -> Held | None:
    """Lock the lease for the transaction; none: nobody has ever led."""
    found = session.execute(_LOCK).one_or_none()
    return None if found is None else Held(*found)
