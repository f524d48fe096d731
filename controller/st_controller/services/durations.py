"""How long jobs take, learned from those that succeeded."""

import re
from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.store.schema import Job
from st_shared.protocol.states import JobState

MOST_LEARNED = 2000
"""Jobs, the newest first, that are learned from."""
FEWEST = 3
"""Jobs of a family that must have ended before it is believed to have a usual duration."""

_MOST_IDS = 500

_NUMBER = re.compile(r"[-_ .]?\d+$")


class Ended(NamedTuple):
    """A job that succeeded."""

    owner: str
    name: str
    family: str
    seconds: float


class Durations:
    """The median duration of a person's jobs of one name, and of all jobs of one family."""

    def __init__(self, ended: Iterable[Ended] = ()) -> None:
        by_name: dict[tuple[str, str], list[float]] = defaultdict(list)
        by_family: dict[str, list[float]] = defaultdict(list)
        for job in ended:
            by_name[job.owner, _stem(job.name)].append(job.seconds)
            by_family[job.family].append(job.seconds)
        self._by_name = {key: median(found) for key, found in by_name.items()}
        self._by_family = {
            family: median(found) for family, found in by_family.items() if len(found) >= FEWEST
        }

    def __bool__(self) -> bool:
        """Whether anything was learned."""
        return bool(self._by_name or self._by_family)

    def of(self, owner: str, name: str, family: str) -> float | None:
        """Seconds that such a job takes as far as is known; none: nothing alike has ended yet."""
        return self._by_name.get((owner, _stem(name))) or self._by_family.get(family)


def learned_of(session: Session, learned: Durations, job_ids: Iterable[str]) -> dict[str, float]:
    """Job -> seconds that it takes as far as was learned, of those that declare nothing."""
    ids = list(job_ids) if learned else []
    found: dict[str, float] = {}
    for start in range(0, len(ids), _MOST_IDS):
        query = select(Job.id, Job.submitted_by, Job.name, Job.family).where(
            Job.id.in_(ids[start : start + _MOST_IDS]), Job.expected_seconds.is_(None)
        )
        for job_id, *alike in session.execute(query):
            seconds = learned.of(*alike)
            if seconds is not None:
                found[job_id] = seconds
    return found


def learn(session: Session) -> Durations:
    """What the newest jobs that succeeded teach."""
    rows = session.execute(
        select(Job.submitted_by, Job.name, Job.family, Job.started_at, Job.finished_at)
        .where(Job.state == JobState.SUCCEEDED, Job.started_at.is_not(None))
        .order_by(Job.submitted_at.desc())
        .limit(MOST_LEARNED)
    )
    return Durations(
        Ended(owner, name, family, max(0.1, (finished - started).total_seconds()))
        for owner, name, family, started, finished in rows
        if started is not None and finished is not None
    )


def _stem(name: str) -> str:
    """The name without a number at its end, so that jobs of an array are alike."""
    return _NUMBER.sub("", name)
