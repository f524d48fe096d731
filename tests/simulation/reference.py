"""A slow scheduler that is right at a glance, to measure the real one and the simulator against.

It looks at every job and every slot at every decision, and works usage out anew from all that
ever ran. It neither reserves nor preempts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import exp, log

from simulation.fitting import room
from simulation.ledger import paths
from st_controller.domain.scheduling.model import (
    Decision,
    Grant,
    Level,
    PendingJob,
    Placement,
    Policy,
    RunningJob,
    Shape,
    Share,
    WorkerCapacity,
)

NEGLIGIBLE = 1e-3
"""Priced slot-seconds by which a share may be passed."""


class Reference:
    """The rules in their plainest form; every method promises what the real scheduler's does."""

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._workers: dict[str, WorkerCapacity] = {}
        self._shares: dict[str, Share] = {}
        self._caps: dict[str, int] = {}
        self._waiting: dict[str, PendingJob] = {}
        self._running: dict[str, RunningJob] = {}
        self._since: dict[str, float] = {}
        """From when on a running job is charged here."""
        self._charges: list[tuple[str, float, float, float]] = []
        """Of what is over: path, price of its slots for one second, from, until."""
        self._loaded: dict[str, tuple[float, float]] = {}
        """Usage that was taken over, and when."""
        self._kept: defaultdict[str, float] = defaultdict(float)
        """By path what decay forgave of its distance from siblings, as of ``_now``."""
        self._now = 0.0

    def set_share(self, path: str, share: Share) -> None:
        """Weight and limits of a node."""
        self._shares[path] = share

    def set_array_cap(self, array: str, most: int | None, now: float) -> None:
        """Most jobs of an array that run at one time."""
        self._caps.pop(array, None)
        if most is not None:
            self._caps[array] = most

    def put_worker(self, worker: WorkerCapacity, now: float) -> None:
        """A worker takes jobs."""
        self._workers[worker.id] = worker

    def drop_worker(self, worker_id: str, now: float) -> None:
        """A worker takes no more jobs."""
        del self._workers[worker_id]

    def enqueue(self, job: PendingJob, now: float) -> None:
        """A job waits."""
        self._waiting[job.id] = job

    def withdraw(self, job_id: str, now: float) -> None:
        """A job does not wait any more."""
        self._waiting.pop(job_id, None)

    def adopt(self, running: RunningJob, now: float) -> None:
        """A job holds slots; it is charged from now on."""
        self._waiting.pop(running.job.id, None)
        self._running[running.job.id] = running
        self._since[running.job.id] = now

    def finish(self, job_id: str, now: float, *, charge: bool = True) -> None:
        """A job gives its slots back."""
        running = self._running.pop(job_id, None)
        if running is None:
            return
        since = self._since.pop(job_id)
        price = running.price * running.job.shape.total
        for path in paths(running.job.tenant):
            if charge:
                self._charges.append((path, price, since, now))
            else:  # what an earlier scheduler charged for it is taken back
                self._charges.append((path, -price, running.started, since))

    def checkpointed(self, job_id: str, at: float) -> None:
        """Of no interest to who never preempts."""

    def load_usage(self, usage: Mapping[str, tuple[float, float]], now: float) -> None:
        """Take over what was used."""
        for path, (used, _) in usage.items():
            self._loaded[path] = used, now

    def usage(self, now: float) -> dict[str, tuple[float, float]]:
        """Decayed usage of every node; a share is never forfeited here."""
        decay = log(2) / self._policy.half_life
        used: defaultdict[str, float] = defaultdict(float)
        for path, (amount, at) in self._loaded.items():
            used[path] += amount * exp(-decay * (now - at))
        running = [
            (path, held.price * held.job.shape.total, self._since[job_id], now)
            for job_id, held in self._running.items()
            for path in paths(held.job.tenant)
        ]
        for path, price, since, until in self._charges + running:
            grown = exp(-decay * (now - until)) - exp(-decay * (now - since))
            used[path] += price * grown / decay
        return {path: (max(0.0, amount), 0.0) for path, amount in used.items()}

    def pending(self) -> Iterable[str]:
        """Ids of the jobs that wait."""
        return list(self._waiting)

    def running(self) -> Iterable[str]:
        """Ids of the jobs that hold slots."""
        return list(self._running)

    def waiting(self, job_id: str) -> PendingJob | None:
        """A job that waits."""
        return self._waiting.get(job_id)

    def next_moment(self) -> float | None:
        """The next ``not_before``."""
        moments = (job.not_before for job in self._waiting.values())
        return min((moment for moment in moments if moment > self._now), default=None)

    def decide(self, now: float, most: int | None = None) -> list[Decision]:
        """Start the first job in the order of service that may start and fits, and so on."""
        self._keep_apart(now)
        self._now = now
        decisions: list[Decision] = []
        while most is None or len(decisions) < most:
            placement = self._next(now)
            if placement is None:
                break
            decisions.append(placement)
        return decisions

    def _next(self, now: float) -> Placement | None:
        may = [job for job in self._waiting.values() if self._may_start(job, now)]
        usage = self._claims(now)
        wanted = {path for tenant in {job.tenant for job in may} for path in paths(tenant)}
        over = {path for path in wanted if self._is_over(path, usage)}
        first = {
            (job.tenant, job.level, job.shape): job for job in sorted(may, key=_came, reverse=True)
        }
        levels = {line: self._level(job, now) for line, job in first.items()}
        for job in sorted(may, key=lambda job: self._turn(job, usage, over, levels)):
            grants = self._place(job.shape)
            if grants is not None:
                price = sum(
                    self._workers[grant.worker].price * len(grant.slots) for grant in grants
                )
                running = RunningJob(job, grants, now, price=price / job.shape.total)
                self.adopt(running, now)
                return Placement(job.id, grants)
        return None

    def _turn(
        self,
        job: PendingJob,
        usage: dict[str, float],
        over: set[str],
        levels: Mapping[tuple[object, ...], int],
    ) -> tuple[object, ...]:
        """The higher level first; then those within their share on every step of the tree.

        Then org, team and user served least; then who came first. Of jobs that are alike the level
        is that of the one that came first, however long those behind it have waited.
        """
        steps = [path for path in paths(job.tenant) if path]
        has_more = any(path in over for path in steps)
        served = [(self._served(path, usage), path) for path in steps]
        level = levels[job.tenant, job.level, job.shape]
        return -level, has_more, *served, job.submitted, job.id

    def _is_over(self, path: str, usage: dict[str, float]) -> bool:
        """Whether a node has had more for its weight than its active siblings on average."""
        if not path:
            return False
        above = path.rpartition("/")[0]
        jobs = [*self._waiting.values(), *(held.job for held in self._running.values())]
        active = {
            node
            for job in jobs
            for node in paths(job.tenant)
            if node and node.rpartition("/")[0] == above
        }
        used = sum(self._reckoned(node, usage) for node in active)
        weights = sum(self._shares.get(node, Share()).weight for node in active)
        weight = self._shares.get(path, Share()).weight
        mine = self._reckoned(path, usage)
        return mine > used / weights * weight * (1 + 1e-9) + NEGLIGIBLE

    def _keep_apart(self, now: float) -> None:
        """Take back what decay forgave since of the distance between siblings that all wait."""
        usage, claims = self.usage(now), self._claims(now)
        factor = exp(-log(2) / self._policy.half_life * (now - self._now))
        beside: defaultdict[str, set[str]] = defaultdict(set)
        for job in self._waiting.values():
            for path in filter(None, paths(job.tenant)):
                beside[path.rpartition("/")[0]].add(path)
        self._kept = defaultdict(float, {p: kept * factor for p, kept in self._kept.items()})
        for siblings in beside.values():
            weights = {path: self._shares.get(path, Share()).weight for path in siblings}
            level = sum(claims.get(path, 0.0) for path in siblings) / sum(weights.values())
            for path in siblings:
                ahead = claims.get(path, 0.0) - level * weights[path]
                kept = self._kept[path] + ahead * (1 - factor)
                self._kept[path] = max(kept, -usage.get(path, (0.0, 0.0))[0])

    def _claims(self, now: float) -> dict[str, float]:
        """Usage of every node with what was kept of its distance from siblings."""
        factor = exp(-log(2) / self._policy.half_life * (now - self._now))
        used = {path: amount for path, (amount, _) in self.usage(now).items()}
        return {
            path: used.get(path, 0.0) + self._kept[path] * factor for path in {*used, *self._kept}
        }

    def _level(self, job: PendingJob, now: float) -> int:
        """Its class, raised for each interval that it waited."""
        if job.level >= Level.CRITICAL:
            return job.level
        steps = max(0, int((now - job.waiting_since) / self._policy.ageing_interval))
        return min(job.level + steps, Level.CRITICAL)

    def _served(self, path: str, usage: dict[str, float]) -> float:
        return self._reckoned(path, usage) / self._shares.get(path, Share()).weight

    def _reckoned(self, path: str, usage: dict[str, float]) -> float:
        """What a node has had, and what it will have had soon."""
        ahead = self._policy.horizon * sum(
            running.price * running.job.shape.total
            for running in self._running.values()
            if path in paths(running.job.tenant)
        )
        return usage.get(path, 0.0) + ahead

    def _may_start(self, job: PendingJob, now: float) -> bool:
        if job.not_before > now:
            return False
        others = [running.job for running in self._running.values()]
        if job.array in self._caps:
            alike = sum(other.array == job.array for other in others)
            if alike >= self._caps[job.array]:
                return False
        for path in paths(job.tenant):
            share = self._shares.get(path, Share())
            here = [other.shape.total for other in others if path in paths(other.tenant)]
            if share.max_jobs is not None and len(here) >= share.max_jobs:
                return False
            if share.max_slots is not None and sum(here) + job.shape.total > share.max_slots:
                return False
        return True

    def _place(self, shape: Shape) -> tuple[Grant, ...] | None:
        """The first worker, or workers with the same kinds of slots, with enough free slots."""
        for first in self._workers.values():
            kinds = set(first.slots.values())
            alike = [w for w in self._workers.values() if set(w.slots.values()) == kinds]
            able = [w for w in alike if room(w, shape, self._busy(w.id)) >= shape.slots]
            if len(able) >= shape.nodes:
                return tuple(self._grant(worker, shape) for worker in able[: shape.nodes])
        return None

    def _grant(self, worker: WorkerCapacity, shape: Shape) -> Grant:
        free = [slot for slot in worker.slots if slot not in self._busy(worker.id)]
        suits = [
            slot for slot in free if room(replace(worker, slots={slot: worker.slots[slot]}), shape)
        ]
        return Grant(worker.id, tuple(suits[: shape.slots]))

    def _busy(self, worker_id: str) -> set[int]:
        return {
            slot
            for running in self._running.values()
            for grant in running.grants
            if grant.worker == worker_id
            for slot in grant.slots
        }


def _came(job: PendingJob) -> tuple[float, str]:
    return job.submitted, job.id
