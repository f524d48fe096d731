"""What was written of jobs of late, told and counted, so that nothing of it is overlooked."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from st_controller.store.moments import Microseconds, microseconds
from st_controller.store.schema import Job

SECOND = 1_000_000
"""Microseconds."""
_SPANS = 50
"""Stretches of time in one statement."""

Mark = tuple[int, int]
"""Version of a job, and the microsecond since 1970 at which it was written of last: together they
tell whether it changed."""


class Tally(NamedTuple):
    """Counted over the marks of the jobs that were written of last within one second."""

    jobs: int = 0
    versions: int = 0
    """Their sum."""
    fractions: int = 0
    """Microseconds after the full second, added up: an override changes no version."""

    def plus(self, mark: Mark, sign: int) -> "Tally":
        """With one job more, or less."""
        return Tally(
            self.jobs + sign,
            self.versions + sign * mark[0],
            self.fractions + sign * (mark[1] % SECOND),
        )


_NONE = Tally()


class Noticed:
    """Marks of the jobs that were looked at, and the tallies of the seconds that they fall into."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._tallies: dict[int, Tally] = {}

    def put(self, job_id: str, mark: Mark) -> None:
        """A job was looked at, and had this mark."""
        before = self._marks.get(job_id)
        if before == mark:
            return
        if before is not None:
            self._count(before, -1)
        self._marks[job_id] = mark
        self._count(mark, 1)

    def put_later(self, job_id: str, mark: Mark) -> None:
        """The same, unless it is known to have changed since."""
        self.put(job_id, max(mark, self._marks.get(job_id, mark)))

    def has(self, job_id: str, mark: Mark) -> bool:
        """Whether a job was looked at since it has this mark."""
        return self._marks.get(job_id) == mark

    def differing(self, told: dict[int, Tally], since: int) -> set[int]:
        """Seconds of which the database tells something else, from ``since`` on."""
        return {second for second, tally in told.items() if self._tallies.get(second) != tally} | {
            second for second in self._tallies if second >= since and second not in told
        }

    def forget(self, before: int) -> None:
        """Seconds before this one are done with."""
        self._marks = {
            job_id: mark for job_id, mark in self._marks.items() if mark[1] // SECOND >= before
        }
        self._tallies = {at: tally for at, tally in self._tallies.items() if at >= before}

    def _count(self, mark: Mark, sign: int) -> None:
        second = mark[1] // SECOND
        tally = self._tallies.get(second, _NONE).plus(mark, sign)
        if tally.jobs:
            self._tallies[second] = tally
        else:
            del self._tallies[second]


def second_of(moment: datetime) -> int:
    """The full seconds since 1970."""
    return microseconds(moment) // SECOND


def tallies(session: Session, since: int) -> dict[int, Tally]:
    """What was written of jobs since a second, counted by seconds, without reading it."""
    at = Microseconds(Job.changed_at)
    late = (
        select(Job.version, at.label("at")).where(Job.changed_at >= _moment(since)).subquery("late")
    )
    second = late.c.at // SECOND
    counted = select(
        second, func.count(), func.sum(late.c.version), func.sum(late.c.at % SECOND)
    ).group_by(second)
    return {
        int(key): Tally(int(jobs), int(versions), int(fractions))
        for key, jobs, versions, fractions in session.connection().execute(counted)
    }


def changed_in(session: Session, seconds: Collection[int]) -> Iterator[tuple[str, Mark]]:
    """Jobs that were written of last in one of these seconds."""
    spans = [
        (Job.changed_at >= _moment(first)) & (Job.changed_at < _moment(end))
        for first, end in _spans(seconds)
    ]
    for start in range(0, len(spans), _SPANS):
        query = select(Job.id, Job.version, Microseconds(Job.changed_at)).where(
            or_(*spans[start : start + _SPANS])
        )
        for job_id, version, at in session.connection().execute(query):
            yield job_id, (version, at)


def _spans(seconds: Collection[int]) -> Iterator[tuple[int, int]]:
    """Unbroken stretches of seconds: the first, and the one after the last."""
    ordered = sorted(seconds)
    begun = 0
    for place, second in enumerate(ordered, start=1):
        if place == len(ordered) or ordered[place] != second + 1:
            yield ordered[begun], second + 1
            begun = place


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)
