"""The shell around a scheduler: keeps it up with the tables, and makes its decisions true."""

from collections.abc import Iterable, Mapping
from math import exp, log
from typing import Protocol

from simulation import ledger
from simulation.rows import JobRow
from simulation.tables import News, Tables
from st_controller.domain.scheduling.model import (
    Decision,
    PendingJob,
    Placement,
    Policy,
    RunningJob,
    Share,
    WorkerCapacity,
)
from st_shared.protocol.states import JobState, Outcome


class Core(Protocol):
    """What the simulator asks of a scheduler; both the real one and the reference have it."""

    def set_share(self, path: str, share: Share) -> None: ...
    def set_array_cap(self, array: str, most: int | None, now: float) -> None: ...
    def put_worker(self, worker: WorkerCapacity, now: float) -> None: ...
    def drop_worker(self, worker_id: str, now: float) -> None: ...
    def enqueue(self, job: PendingJob, now: float) -> None: ...
    def withdraw(self, job_id: str, now: float) -> None: ...
    def adopt(self, running: RunningJob, now: float) -> None: ...
    def finish(self, job_id: str, now: float, *, charge: bool = True) -> None: ...
    def checkpointed(self, job_id: str, at: float) -> None: ...
    def load_usage(self, usage: Mapping[str, tuple[float, float]], now: float) -> None: ...
    def usage(self, now: float) -> dict[str, tuple[float, float]]: ...
    def pending(self) -> Iterable[str]: ...
    def running(self) -> Iterable[str]: ...
    def waiting(self, job_id: str) -> PendingJob | None: ...
    def next_moment(self) -> float | None: ...
    def decide(self, now: float, most: int | None = None) -> list[Decision]: ...


class Leader:
    """One controller that leads, or believes so."""

    def __init__(self, tables: Tables, core: Core, policy: Policy, now: float) -> None:
        self._tables = tables
        self.core = core
        self.epoch = tables.lead(now)
        self._known: dict[str, str] = {}
        """The attempt under which the scheduler knows a running job."""
        self._again: set[str] = set()
        self._told: set[str] = set()
        """Workers that the scheduler knows."""
        self._load(policy, now)

    def catch_up(self, now: float) -> None:
        """Tell the scheduler all that was written since."""
        news, self._tables.news = self._tables.news, News()
        if news.rules:
            self._take_rules(now)
        for worker_id in sorted(news.workers):
            self._take_worker(worker_id, now)
        jobs, self._again = sorted(news.jobs | self._again), set()
        for job_id in jobs:
            self._take(self._tables.jobs[job_id], now)

    def sweep(self, now: float) -> None:
        """End all that ran out."""
        while self._tables.sweep(self.epoch, now):
            pass
        forfeited = {path: late for path, (_, late) in self.core.usage(now).items()}
        self._tables.save_forfeited(self.epoch, forfeited, now)

    def make_true(self, decision: Decision, now: float) -> bool:
        """Write a decision; where it cannot be, the scheduler is told so."""
        if not isinstance(decision, Placement):
            for victim in decision.victims:
                self._tables.preempt(self.epoch, victim, now)
            return True
        attempt = self._tables.offer(self.epoch, decision, now)
        if attempt is None:
            self.core.finish(decision.job_id, now, charge=False)
            self._again.add(decision.job_id)
            return False
        self._known[decision.job_id] = attempt.id
        return True

    @property
    def has_news(self) -> bool:
        """Whether the scheduler does not know all that was written."""
        return bool(self._tables.news or self._again)

    def _load(self, policy: Policy, now: float) -> None:
        tables = self._tables
        tables.news = News()
        self._take_rules(now)
        for worker_id in sorted(tables.workers):
            self._take_worker(worker_id, now)
        used = ledger.usage(tables, policy.half_life, now)
        late = {
            path: amount * exp(-log(2) * (now - at) / policy.half_life)
            for path, (amount, at) in tables.forfeited.items()
        }
        both = {path: (used[path], late.get(path, 0.0)) for path in {*used, *late} if path}
        self.core.load_usage(both, now)
        for attempt in list(tables.live.values()):
            self._take(tables.jobs[attempt.job], now)
        for job in list(tables.waiting()):
            self._take(job, now)

    def _take(self, job: JobRow, now: float) -> None:
        attempt = self._tables.attempt_of(job.id)
        if attempt is not None:
            if self._known.get(job.id, attempt.id) != attempt.id:
                self.core.finish(job.id, now)
                del self._known[job.id]
            if job.id not in self._known:
                self.core.adopt(attempt.as_running(job), now)
                self._known[job.id] = attempt.id
            _note(self.core, job, stops=attempt.stop)
            if attempt.checkpoint is not None:
                self.core.checkpointed(job.id, attempt.checkpoint)
            return
        if self._known.pop(job.id, None):
            last = self._tables.attempts[f"{job.id}/{job.attempts}"]
            self.core.finish(job.id, now, charge=last.outcome != Outcome.EXPIRED)
        if job.state != JobState.QUEUED or job.parents:
            self.core.withdraw(job.id, now)
        elif self.core.waiting(job.id) != job.as_pending():
            self.core.enqueue(job.as_pending(), now)

    def _take_worker(self, worker_id: str, now: float) -> None:
        row = self._tables.workers[worker_id]
        if row.takes_jobs:
            self.core.put_worker(row.capacity, now)
            self._told.add(worker_id)
        elif worker_id in self._told:
            self.core.drop_worker(worker_id, now)
            self._told.discard(worker_id)

    def _take_rules(self, now: float) -> None:
        for path, share in self._tables.shares.items():
            self.core.set_share(path, share)
        for array, most in self._tables.caps.items():
            self.core.set_array_cap(array, most, now)


def _note(core: Core, job: JobRow, *, stops: bool) -> None:
    """What changed about a running job: its level, and whether somebody told it to stop."""
    held = getattr(core, "held", None)  # the reference never preempts, and has no need to know
    if held is not None:
        held[job.id].job = job.as_pending()
        held[job.id].stopping |= stops
