"""When jobs will start: the real scheduler is replayed forward on a copy of the queue."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from st_controller.domain.scheduling.model import (
    PendingJob,
    Placement,
    Preemption,
    RunningJob,
)
from st_controller.domain.scheduling.preemption import Running
from st_controller.domain.scheduling.scheduler import Scheduler

MOST_JOBS = 2_000
"""Jobs of the queue that are replayed; the start of later ones is not foretold."""
MOST_EVENTS = 20_000
SHORTEST = 1.0
"""Seconds that a job is taken to last at least; one that outlasts its forecast may end any time."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a replay foretold."""

    made_at: float
    starts: dict[str, float] = field(default_factory=dict)
    """Job -> moment of its start, in the order in which jobs start."""
    is_complete: bool = True
    """Whether every job that waits was replayed."""

    def place(self, job_id: str) -> int | None:
        """How many jobs start before this one; none: it was not reached."""
        for place, other in enumerate(self.starts):
            if other == job_id:
                return place
        return None

    def ahead(self, job_id: str, most: int) -> list[str]:
        """The first jobs that start before this one."""
        found: list[str] = []
        for other in self.starts:
            if other == job_id or len(found) >= most:
                break
            found.append(other)
        return found


def foretell(scheduler: Scheduler, now: float, most_jobs: int = MOST_JOBS) -> Forecast:
    """Replay the queue as it stands, each job lasting as declared or learned, else to its limit.

    Jobs that nobody has submitted yet are not foreseen, so a start may come later than told.
    """
    copy = _Replay(scheduler, now, most_jobs)
    copy.run()
    return Forecast(now, copy.starts, copy.is_complete)


class _Replay:
    """A copy of a scheduler, driven by the ends that are expected."""

    def __init__(self, original: Scheduler, now: float, most_jobs: int) -> None:
        self.starts: dict[str, float] = {}
        self._now = now
        self._ends: list[tuple[float, str]] = []
        self._jobs: dict[str, PendingJob] = {}
        self._copy = Scheduler(original.policy)
        self._copy_fleet(original)
        self._copy_running(original)
        waiting = list(_foremost(original, most_jobs))
        for job in waiting:
            self._jobs[job.id] = job
            self._copy.enqueue(job, now)
        self._left = {job.id for job in waiting}
        self.is_complete = len(waiting) == len(original.backlog) + len(list(original.reservations))

    def run(self) -> None:
        """Go on until every job has started, or nothing more happens."""
        for _ in range(MOST_EVENTS):
            self._decide()
            if not self._left or not self._step():
                return
        self.is_complete = False

    def _copy_fleet(self, original: Scheduler) -> None:
        for path in original.shared():
            self._copy.set_share(path, original.tenants.share(path))
        for array, most in original.backlog.caps().items():
            self._copy.set_array_cap(array, most, self._now)
        for host in original.fleet.hosts():
            if host.takes_jobs:
                self._copy.put_worker(host.capacity, self._now)
        self._copy.load_usage(original.usage(self._now), self._now)

    def _copy_running(self, original: Scheduler) -> None:
        for running in original.held.values():
            self._jobs[running.job.id] = running.job
            self._copy.adopt(
                RunningJob(
                    running.job,
                    running.grants,
                    running.started,
                    running.checkpointed,
                    stopping=running.stopping,
                    price=running.rate / max(1, running.slots),
                ),
                self._now,
            )
            heappush(self._ends, (self._expected_end(running), running.job.id))

    def _expected_end(self, running: Running) -> float:
        if running.stopping:
            return self._now + self._copy.policy.preemption_grace
        return max(self._now + SHORTEST, running.started + _lasts(running.job))

    def _decide(self) -> None:
        for decision in self._copy.decide(self._now):
            if isinstance(decision, Placement):
                self._begin(decision.job_id)
            elif isinstance(decision, Preemption):
                for victim in decision.victims:
                    yielded = self._now + self._copy.policy.preemption_grace
                    heappush(self._ends, (yielded, victim))

    def _begin(self, job_id: str) -> None:
        if job_id in self._left:
            self._left.discard(job_id)
            self.starts[job_id] = self._now
        heappush(self._ends, (self._now + _lasts(self._jobs[job_id]), job_id))

    def _step(self) -> bool:
        """Go to the next moment at which anything happens; false when there is none."""
        moment = self._copy.next_moment()
        end = self._ends[0][0] if self._ends else None
        coming = [at for at in (moment, end) if at is not None]
        if not coming:
            return False
        self._now = max(self._now, min(coming))
        while self._ends and self._ends[0][0] <= self._now:
            self._end(heappop(self._ends)[1])
        return True

    def _end(self, job_id: str) -> None:
        running = self._copy.held.get(job_id)
        if running is None:
            return
        self._copy.finish(job_id, self._now)
        if running.stopping:  # it goes on later
            again = replace(
                running.job,
                waiting_since=self._now,
                preemptions=running.job.preemptions + 1,
            )
            self._jobs[job_id] = again
            self._copy.enqueue(again, self._now)


def _lasts(job: PendingJob) -> float:
    return max(SHORTEST, min(job.expected or job.shape.limit, job.shape.limit))


def _foremost(original: Scheduler, most: int) -> Iterator[PendingJob]:
    """Up to ``most`` jobs that wait, from every line the first ones."""
    found = 0
    for reservation in original.reservations:
        found += 1
        yield reservation.job
    yield from original.backlog.foremost(most - found)
