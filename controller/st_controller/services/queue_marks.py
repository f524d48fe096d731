"""What was written of jobs of late, told and counted, so that nothing of it is overlooked."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.store.moments import Microseconds, microseconds
from st_controller.store.schema import Job

_MICROSECOND = timedelta(microseconds=1)

Mark = tuple[int, datetime]
"""Version of a job and when it was written of last: together they tell whether it changed."""


class Tally(NamedTuple):
    """Counted over the marks of the jobs that anything was written of since a moment."""

    jobs: int
    versions: int
    """Their sum."""
    delay: int
    """Microseconds from the moment to when each was written of, added up: an override changes no
    version."""

    @classmethod
    def of(cls, marks: Iterable[Mark], since: datetime) -> "Tally":
        """The same of what is in memory."""
        late = [mark for mark in marks if mark[1] >= since]
        delay = sum((at - since for _, at in late), timedelta())
        return cls(len(late), sum(version for version, _ in late), delay // _MICROSECOND)


def changed_since(session: Session, moment: datetime) -> list[tuple[str, Mark]]:
    """Jobs that anything was written of since ``moment``."""
    query = select(Job.id, Job.version, Job.changed_at).where(Job.changed_at >= moment)
    return [(job_id, (version, at)) for job_id, version, at in session.execute(query)]


def count_changed_since(session: Session, moment: datetime) -> Tally:
    """What was written of jobs since ``moment``, without reading it."""
    delay = Microseconds(Job.changed_at) - microseconds(moment)
    counted = select(
        func.count(),
        func.coalesce(func.sum(Job.version), 0),
        func.coalesce(func.sum(delay), 0),
    ).where(Job.changed_at >= moment)
    jobs, versions, late = session.execute(counted).one()
    return Tally(int(jobs), int(versions), int(late))
