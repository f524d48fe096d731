"""When jobs will start: the real scheduler is replayed forward on a copy of the queue."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import NamedTuple

from st_controller.domain.scheduling.model import (
    PendingJob,
    Placement,
    Policy,
    Preemption,
    RunningJob,
    Share,
    WorkerCapacity,
)
from st_controller.domain.scheduling.running import Running
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
    reached: float = 0.0
    """The moment that the replay had come to when it ended."""
    unreached: frozenset[str] = frozenset()
    """Jobs that were still to start when it was cut short: they start later than ``reached``."""
    never: frozenset[str] = frozenset()
    """Jobs that do not start while nothing changes."""

    def tells_of(self, job_id: str) -> bool:
        """Whether anything can be told of a job; else it came later, or lies too far behind."""
        return job_id in self.starts or job_id in self.unreached or job_id in self.never

    def later_than(self, job_id: str) -> float | None:
        """A moment before which this job does not start, where no more could be told."""
        return self.reached if job_id in self.unreached else None

    def place(self, job_id: str) -> int | None:
        """How many jobs start before this one; none: it was not reached."""
        for place, other in enumerate(self.starts):
            if other == job_id:
                return place
        return None

    def ahead(self, job_id: str, most: int) -> list[str]:
        """The first jobs that start before this one; none, where it does not start."""
        if job_id in self.never:
            return []
        found: list[str] = []
        for other in self.starts:
            if other == job_id or len(found) >= most:
                break
            found.append(other)
        return found


@dataclass(frozen=True, slots=True)
class Dependent:
    """A job that is not to be served before others have succeeded."""

    job: PendingJob
    after: frozenset[str]
    """Those that have not yet."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A queue as it stood at one moment: all that a replay needs, and nothing that changes."""

    now: float
    policy: Policy
    shares: dict[str, Share]
    caps: dict[str, int]
    workers: list[WorkerCapacity]
    usage: dict[str, tuple[float, float]]
    running: list[RunningJob]
    waiting: list[PendingJob]
    is_complete: bool
    """Whether ``waiting`` and ``dependents`` are all."""
    dependents: tuple[Dependent, ...] = ()

    @classmethod
    def of(cls, scheduler: Scheduler, now: float, most_jobs: int = MOST_JOBS) -> "Snapshot":
        """Cheap beside the replay: only lists are made."""
        waiting = list(_foremost(scheduler, most_jobs))
        length = len(scheduler.backlog) + len(list(scheduler.reservations))
        return cls(
            now,
            scheduler.policy,
            {path: scheduler.tenants.share(path) for path in scheduler.shared()},
            dict(scheduler.backlog.caps()),
            [host.capacity for host in scheduler.fleet.hosts() if host.takes_jobs],
            scheduler.usage(now),
            [_as_told(running) for running in scheduler.held.values()],
            waiting,
            len(waiting) == length,
        )

    def jobs(self) -> Iterable[PendingJob]:
        """All jobs that are replayed."""
        yield from (running.job for running in self.running)
        yield from self.waiting
        yield from (each.job for each in self.dependents)

    def followed_by(self, dependents: Iterable[Dependent], *, are_all: bool = True) -> "Snapshot":
        """The same with jobs that wait for others: each begins to wait for slots as they end."""
        is_complete = self.is_complete and are_all
        return replace(self, dependents=tuple(dependents), is_complete=is_complete)

    def lasting(self, expected: Mapping[str, float]) -> "Snapshot":
        """The same where these jobs, by id, last so many seconds, as was learned since."""

        def told(job: PendingJob) -> PendingJob:
            seconds = expected.get(job.id, job.expected)
            return job if seconds == job.expected else replace(job, expected=seconds)

        return replace(
            self,
            running=[replace(each, job=told(each.job)) for each in self.running],
            waiting=[told(job) for job in self.waiting],
            dependents=tuple(replace(each, job=told(each.job)) for each in self.dependents),
        )


def _never() -> bool:
    return False


def foretell(snapshot: Snapshot, is_enough: Callable[[], bool] = _never) -> Forecast:
    """Replay the queue as it stood, each job lasting as declared or learned, else to its limit.

    Jobs that nobody has submitted yet are not foreseen, so a start may come later than told. It is
    cut short when ``is_enough`` says so, which is asked at every event.
    """
    replay = _Replay(snapshot)
    was_cut = replay.run(is_enough)
    return Forecast(
        snapshot.now,
        replay.starts,
        snapshot.is_complete and not was_cut,
        replay.now,
        unreached=frozenset(replay.left) if was_cut else frozenset(),
        never=frozenset() if was_cut else frozenset(replay.left),
    )


class _Ending(NamedTuple):
    """When a job that holds slots is expected to give them back."""

    at: float
    job_id: str
    started: float
    """When it took them; what is expected of an earlier start does not happen any more."""
    yields: bool
    """Whether it goes on later."""


class _Replay:
    """A copy of a scheduler, driven by the ends that are expected."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.starts: dict[str, float] = {}
        self.now = snapshot.now
        self.left = {job.id for job in snapshot.waiting}
        self._after: dict[str, set[str]] = {}
        self._released: dict[str, list[str]] = defaultdict(list)
        self._ends: list[_Ending] = []
        self._done: dict[str, float] = defaultdict(float)
        """Seconds that jobs had worked when they yielded."""
        self._jobs = {job.id: job for job in snapshot.waiting}
        self._copy = Scheduler(snapshot.policy)
        self._copy_fleet(snapshot)
        for running in snapshot.running:
            self._jobs[running.job.id] = running.job
            self._copy.adopt(running, self.now)
            ends = self._expected_end(running)
            heappush(self._ends, _Ending(ends, running.job.id, running.started, running.stopping))
        for job in snapshot.waiting:
            self._copy.enqueue(job, self.now)
        for dependent in snapshot.dependents:
            self._await(dependent)
        for dependent in snapshot.dependents:
            if not dependent.after:
                self._join(dependent.job.id)

    def run(self, is_enough: Callable[[], bool]) -> bool:
        """Go on until every job has started, or nothing more happens; whether it was cut short."""
        for _ in range(MOST_EVENTS):
            self._decide()
            if not self.left or not self._step():
                return False
            if is_enough():
                break
        return True

    def _copy_fleet(self, snapshot: Snapshot) -> None:
        for path, share in snapshot.shares.items():
            self._copy.set_share(path, share)
        for array, most in snapshot.caps.items():
            self._copy.set_array_cap(array, most, self.now)
        for worker in snapshot.workers:
            self._copy.put_worker(worker, self.now)
        self._copy.load_usage(snapshot.usage, self.now)

    def _await(self, dependent: Dependent) -> None:
        """A job joins the queue once others have ended, which are taken to succeed."""
        job = dependent.job
        self.left.add(job.id)
        self._jobs[job.id] = job
        self._after[job.id] = set(dependent.after)
        for parent in dependent.after:
            self._released[parent].append(job.id)

    def _release(self, parent: str) -> None:
        for job_id in self._released.pop(parent, ()):
            self._after[job_id].discard(parent)
            if not self._after[job_id]:
                self._join(job_id)

    def _join(self, job_id: str) -> None:
        job = self._jobs[job_id]
        job = self._jobs[job_id] = replace(job, waiting_since=max(self.now, job.not_before))
        self._copy.enqueue(job, self.now)

    def _expected_end(self, running: RunningJob) -> float:
        if running.stopping:
            return self.now + self._copy.policy.preemption_grace
        return max(self.now + SHORTEST, running.started + _lasts(running.job))

    def _decide(self) -> None:
        for decision in self._copy.decide(self.now):
            if isinstance(decision, Placement):
                self._begin(decision.job_id)
            elif isinstance(decision, Preemption):
                yielded = self.now + self._copy.policy.preemption_grace
                for victim in decision.victims:
                    started = self._copy.held[victim].started
                    heappush(self._ends, _Ending(yielded, victim, started, yields=True))

    def _begin(self, job_id: str) -> None:
        if job_id in self.left:
            self.left.discard(job_id)
            self.starts[job_id] = self.now
        left = max(SHORTEST, _lasts(self._jobs[job_id]) - self._done[job_id])
        heappush(self._ends, _Ending(self.now + left, job_id, self.now, yields=False))

    def _step(self) -> bool:
        """Go to the next moment at which anything happens; false when there is none."""
        moment = self._copy.next_moment()
        end = self._ends[0].at if self._ends else None
        coming = [at for at in (moment, end) if at is not None]
        if not coming:
            return False
        self.now = max(self.now, min(coming))
        while self._ends and self._ends[0].at <= self.now:
            self._end(heappop(self._ends))
        return True

    def _end(self, ending: _Ending) -> None:
        job_id = ending.job_id
        running = self._copy.held.get(job_id)
        if running is None or running.started != ending.started:
            return
        self._copy.finish(job_id, self.now)
        if ending.yields:
            self._done[job_id] += self.now - running.started
            again = replace(
                running.job,
                waiting_since=self.now,
                preemptions=running.job.preemptions + 1,
            )
            self._jobs[job_id] = again
            self._copy.enqueue(again, self.now)
        else:
            self._release(job_id)


def _as_told(running: Running) -> RunningJob:
    return RunningJob(
        running.job,
        running.grants,
        running.started,
        running.checkpointed,
        stopping=running.stopping,
        price=running.rate / max(1, running.slots),
    )


def _lasts(job: PendingJob) -> float:
    return max(SHORTEST, min(job.expected or job.shape.limit, job.shape.limit))


def _foremost(original: Scheduler, most: int) -> Iterator[PendingJob]:
    """Up to ``most`` jobs that wait, from every line the first ones."""
    found = 0
    for reservation in original.reservations:
        found += 1
        yield reservation.job
    yield from original.backlog.foremost(most - found)
