"""The simulated database: each method is one transaction, and changes everything or nothing.

It follows the rules of the real services (``domain/jobs.py``, conditional offers and claims,
leases with an epoch, leaders with an epoch), so that what the scheduler meets is what it meets
there; that the real SQL keeps these rules is tested beside it, not here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulation.rows import AttemptRow, JobRow, WorkerRow
from st_controller.domain.attempts import LEASED, LIVE
from st_controller.domain.jobs import AttemptEnd, after_attempt, backoff, counts_as_try
from st_controller.domain.jobs import may_move as job_may_move
from st_controller.domain.scheduling.model import Level, Placement, Share
from st_controller.domain.workers import Patience
from st_shared.protocol.states import AttemptState, FailureKind, JobState, Outcome

PATIENCE = Patience()
FIRST_BACKOFF = 5.0


class StaleLeader(Exception):
    """A write of somebody who does not lead any more."""


class StaleLease(Exception):
    """A report about an attempt that is not the reporter's, or is over."""


@dataclass
class News:
    """What was written since the leader looked last."""

    jobs: set[str] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)
    rules: bool = False

    def __bool__(self) -> bool:
        return bool(self.jobs or self.workers or self.rules)


class Tables:
    """Jobs, attempts, workers, shares, caps, usage, and who leads."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobRow] = {}
        self.attempts: dict[str, AttemptRow] = {}
        self.live: dict[str, AttemptRow] = {}
        """The attempts that hold slots, an index."""
        self.workers: dict[str, WorkerRow] = {}
        self.shares: dict[str, Share] = {}
        self.caps: dict[str, int] = {}
        self.forfeited: dict[str, tuple[float, float]] = {}
        """Forfeited share of a node, and when it was that much."""
        self.leader_epoch = 0
        self.forgiven = float("-inf")
        """Until when silence of workers is not held against them."""
        self.news = News()

    # Users and admins

    def submit(self, job: JobRow) -> None:
        """A job is there."""
        self.jobs[job.id] = job
        self.news.jobs.add(job.id)

    def cancel(self, job_id: str, now: float) -> None:
        """A job that waits or is merely offered ends at once; one that runs is told to stop."""
        job = self.jobs[job_id]
        if job.state.is_final:
            return
        attempt = self.attempt_of(job_id)
        if attempt is None:
            self._move(job, JobState.CANCELLED, now)
        elif attempt.state == AttemptState.OFFERED:
            job.cancel_requested = True
            self._end(attempt, Outcome.CANCELLED, now)
        else:
            job.cancel_requested = attempt.stop = True
            self.news.jobs.add(job_id)

    def retry(self, job_id: str, now: float) -> None:
        """A job that failed or was cancelled waits anew."""
        job = self.jobs[job_id]
        if job.state in {JobState.FAILED, JobState.CANCELLED}:
            job.tries_used, job.cancel_requested, job.not_before = 0, False, 0.0
            job.parents = set()
            self._move(job, JobState.QUEUED, now, by_retry=True)

    def override(self, job_id: str, level: Level | None) -> None:
        """An admin moves a job to another level, or lets it go back."""
        self.jobs[job_id].override = level
        self.news.jobs.add(job_id)

    def set_share(self, path: str, share: Share) -> None:
        """Weight and limits of a tenant."""
        self.shares[path] = share
        self.news.rules = True

    def set_cap(self, array: str, most: int) -> None:
        """Most jobs of an array that run at one time."""
        self.caps[array] = most
        self.news.rules = True

    # The leader

    def lead(self, now: float) -> int:
        """Take the leadership; its epoch. Silence while nobody led is forgiven."""
        self.leader_epoch += 1
        self.forgiven = now
        return self.leader_epoch

    def offer(self, leader: int, placement: Placement, now: float) -> AttemptRow | None:
        """Offer a job to workers; none when the job or a worker changed meanwhile."""
        self._prove(leader)
        job = self.jobs[placement.job_id]
        if job.state != JobState.QUEUED or job.parents or job.not_before > now:
            return None
        if not all(self.workers[grant.worker].takes_jobs for grant in placement.grants):
            return None
        wanted = {(grant.worker, slot) for grant in placement.grants for slot in grant.slots}
        if wanted & self.busy():
            return None
        job.attempts += 1
        slots = sum(len(grant.slots) for grant in placement.grants)
        priced = sum(self._price(grant.worker) * len(grant.slots) for grant in placement.grants)
        attempt = AttemptRow(
            f"{job.id}/{job.attempts}",
            job.id,
            job.attempts,
            placement.grants,
            priced / slots,
            now,
            now + PATIENCE.offer_ttl,
        )
        self.attempts[attempt.id] = self.live[attempt.id] = attempt
        self._move(job, JobState.ASSIGNED, now)
        return attempt

    def preempt(self, leader: int, job_id: str, now: float) -> AttemptRow | None:
        """Tell a running job to yield; none when it is over, or stops anyway."""
        self._prove(leader)
        attempt = self.attempt_of(job_id)
        if attempt is None or attempt.stop:
            return None
        self.jobs[job_id].preemptions += 1
        self.news.jobs.add(job_id)
        if attempt.state == AttemptState.OFFERED:
            self._end(attempt, Outcome.EXPIRED, now)
        else:
            attempt.stop = True
        return attempt

    def sweep(self, leader: int, now: float) -> bool:
        """End one offer or lease that ran out, or note one worker's silence; whether any."""
        self._prove(leader)
        for worker_id, worker in self.workers.items():
            silence = now - max(worker.heard, self.forgiven)
            if worker.is_online and silence >= PATIENCE.silent_after:
                worker.is_online = False
                self.news.workers.add(worker_id)
                return True
        for attempt in self.live.values():
            if attempt.state == AttemptState.OFFERED and attempt.expires <= now:
                self._end(attempt, Outcome.EXPIRED, now)
                return True
            if attempt.state in LEASED and self._silence(attempt, now) >= PATIENCE.lease_ttl:
                self._end(attempt, Outcome.LOST, now)
                return True
        return False

    def save_forfeited(self, leader: int, forfeited: dict[str, float], now: float) -> None:
        """Write down what only the scheduler knows; usage itself is told by the attempts."""
        self._prove(leader)
        self.forfeited = {path: (amount, now) for path, amount in forfeited.items() if amount}

    # Workers

    def register(self, row: WorkerRow, now: float) -> None:
        """A worker joins or comes back, perhaps changed, and holds nothing any more."""
        worker_id = row.capacity.id
        self.workers[worker_id] = row
        self.news.workers.add(worker_id)
        for attempt in self.on(worker_id):
            if attempt.state in LEASED:
                self._end(attempt, Outcome.LOST, now)

    def answers(self, worker_id: str, now: float, *, still: bool) -> None:
        """A worker is heard again (and from now on), or for the last time."""
        worker = self.workers[worker_id]
        worker.heard = float("inf") if still else now
        if still and not worker.is_online:
            worker.is_online = True
            self.news.workers.add(worker_id)

    def change(self, row: WorkerRow) -> None:
        """Something about a worker changed: what it has stored, its price, whether it drains."""
        self.workers[row.capacity.id] = row
        self.news.workers.add(row.capacity.id)

    def claim(self, worker_id: str, attempt_id: str, now: float) -> AttemptRow:
        """A worker takes its part of an offer.

        Raises:
            StaleLease: the offer is over, or was made to others.
        """
        attempt = self.live.get(attempt_id)
        named = attempt is not None and any(g.worker == worker_id for g in attempt.grants)
        if attempt is None or not named:
            raise StaleLease
        if attempt.state == AttemptState.OFFERED and attempt.expires <= now:
            raise StaleLease
        attempt.claimed.add(worker_id)
        if len(attempt.claimed) == len(attempt.grants) and attempt.state == AttemptState.OFFERED:
            attempt.state = AttemptState.RUNNING
            self._move(self.jobs[attempt.job], JobState.RUNNING, now)
        return attempt

    def checkpoint(self, worker_id: str, attempt_id: str, epoch: int, now: float) -> None:
        """A worker stored a checkpoint."""
        attempt = self._held(worker_id, attempt_id, epoch)
        attempt.checkpoint = now
        self.news.jobs.add(attempt.job)

    def finish(
        self, worker_id: str, attempt_id: str, epoch: int, outcome: Outcome, now: float,
        failure: FailureKind | None = None,
    ) -> None:  # fmt: skip
        """A worker reports the end of what it runs."""
        attempt = self._held(worker_id, attempt_id, epoch)
        self._end(attempt, outcome, now, failure)

    # What is asked

    def attempt_of(self, job_id: str) -> AttemptRow | None:
        """The live attempt of a job."""
        return self.live.get(f"{job_id}/{self.jobs[job_id].attempts}")

    def busy(self) -> set[tuple[str, int]]:
        """Worker and index of every slot that is held."""
        return {
            (grant.worker, slot)
            for attempt in self.live.values()
            for grant in attempt.grants
            for slot in grant.slots
        }

    def on(self, worker_id: str) -> list[AttemptRow]:
        """The live attempts that hold slots of a worker."""
        return [
            attempt
            for attempt in self.live.values()
            if any(grant.worker == worker_id for grant in attempt.grants)
        ]

    def waiting(self) -> Iterator[JobRow]:
        """The jobs that the scheduler is told of as waiting."""
        return (j for j in self.jobs.values() if j.state == JobState.QUEUED and not j.parents)

    # The rules

    def _prove(self, leader: int) -> None:
        if leader != self.leader_epoch:
            raise StaleLeader

    def _held(self, worker_id: str, attempt_id: str, epoch: int) -> AttemptRow:
        attempt = self.live.get(attempt_id)
        if attempt is None or attempt.state not in LEASED or attempt.epoch != epoch:
            raise StaleLease
        if all(grant.worker != worker_id for grant in attempt.grants):
            raise StaleLease
        return attempt

    def _silence(self, attempt: AttemptRow, now: float) -> float:
        heard = min(self.workers[grant.worker].heard for grant in attempt.grants)
        return now - max(heard, self.forgiven)

    def _price(self, worker_id: str) -> float:
        return self.workers[worker_id].capacity.price

    def _end(
        self, attempt: AttemptRow, outcome: Outcome, now: float, failure: FailureKind | None = None
    ) -> None:
        assert attempt.state in LIVE
        job = self.jobs[attempt.job]
        attempt.state, attempt.outcome, attempt.finished = AttemptState.FINISHED, outcome, now
        del self.live[attempt.id]
        job.tries_used += counts_as_try(outcome)
        state, _ = after_attempt(
            AttemptEnd(
                outcome, failure, None, job.tries_used, job.max_attempts, job.cancel_requested
            )
        )
        if state is JobState.QUEUED and counts_as_try(outcome):
            job.not_before = now + backoff(FIRST_BACKOFF, job.tries_used).total_seconds()
        self._move(job, state, now)

    def _move(self, job: JobRow, state: JobState, now: float, *, by_retry: bool = False) -> None:
        assert job_may_move(job.state, state, by_retry=by_retry), (job.id, job.state, state)
        job.state = state
        self.news.jobs.add(job.id)
        if state is JobState.QUEUED:
            job.queued = now
        if state is JobState.SUCCEEDED:
            self._free_children(job.id)
        elif state.is_final:
            self._cancel_children(job.id, now)

    def _free_children(self, parent: str) -> None:
        for job in self.jobs.values():
            if parent in job.parents:
                job.parents.discard(parent)
                self.news.jobs.add(job.id)

    def _cancel_children(self, parent: str, now: float) -> None:
        for job in self.jobs.values():
            if parent in job.parents and job.state == JobState.QUEUED:
                self._move(job, JobState.CANCELLED, now)
