"""The workers of a simulation: they take offers, run, crash, fall silent, lie and come back."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from simulation.rows import AttemptRow, WorkerRow
from simulation.tables import PATIENCE, StaleLease
from st_controller.domain.scheduling.model import Placement, WorkerCapacity
from st_shared.protocol.states import AttemptState, FailureKind, Outcome

if TYPE_CHECKING:
    from simulation.world import World

Report = tuple[str, int]
"""An attempt and the epoch under which a worker holds it."""
ENDS = {
    "succeeds": (Outcome.SUCCEEDED, None),
    "fails": (Outcome.FAILED, FailureKind.CRASHED),
    "is broken": (Outcome.FAILED, FailureKind.BAD_DATA),
}


@dataclass(slots=True)
class Machine:
    """One worker as it is, whatever the controller thinks of it."""

    answers: bool = True
    boots: int = 0
    """How often it was started; what ran before a crash does not run after."""
    unsent: list[Callable[[], None]] = field(default_factory=list)
    """Reports that it could not make while it was silent."""


class Machines:
    """All workers."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._machines: dict[str, Machine] = {}

    def join(self, capacity: WorkerCapacity) -> None:
        """A worker is there, or there again after a crash."""
        world = self._world
        machine = self._machines.setdefault(capacity.id, Machine())
        machine.answers = True
        machine.boots += 1
        machine.unsent.clear()
        known = world.tables.workers.get(capacity.id)
        active = known.is_active if known else True
        row = WorkerRow(capacity, heard=float("inf"), is_active=active)
        world.tables.register(row, world.now)

    def crash(self, worker_id: str) -> None:
        """All that it runs is gone; it says nothing until it joins again."""
        machine = self._machines[worker_id]
        machine.boots += 1
        machine.unsent.clear()
        self.stall(worker_id)

    def stall(self, worker_id: str) -> None:
        """It stops answering, but what it runs goes on."""
        machine, world = self._machines[worker_id], self._world
        if not machine.answers:
            return
        machine.answers = False
        world.tables.answers(worker_id, world.now, still=False)
        for silence in (PATIENCE.silent_after, PATIENCE.lease_ttl):
            world.wake(world.now + silence + 1e-3)

    def return_from_stall(self, worker_id: str) -> None:
        """It answers again, and says what it could not say."""
        machine, world = self._machines[worker_id], self._world
        if machine.answers:
            return
        machine.answers = True
        world.tables.answers(worker_id, world.now, still=True)
        unsent, machine.unsent = machine.unsent, []
        for report in unsent:
            report()

    def offered(self, placement: Placement) -> None:
        """An offer reaches its workers, who claim it soon, or never."""
        attempt = self._world.tables.attempt_of(placement.job_id)
        assert attempt is not None
        for grant in attempt.grants:
            if self._world.calm or self._world.random.random() > 0.05:
                delay = self._world.random.choice((0.0, 0.1, 9.9, 10.5))
                delay = 0.1 if self._world.calm else delay
                self._world.after(delay, self._claim_by(grant.worker, attempt))

    def told_to_stop(self, jobs: tuple[str, ...]) -> None:
        """Jobs are to yield: they do so at a checkpoint, or are killed when the grace is over."""
        world = self._world
        for job_id in jobs:
            attempt = world.tables.attempt_of(job_id)
            if attempt is not None and attempt.state != AttemptState.OFFERED:
                grace = world.scenario.policy.preemption_grace
                needed = world.random.choice((0.5, grace / 2, grace))
                cancelled = world.tables.jobs[job_id].cancel_requested
                outcome = Outcome.CANCELLED if cancelled else Outcome.PREEMPTED
                world.after(needed, self._report_by(attempt, outcome, None))

    def lie(self) -> None:
        """A worker reports what is not its own, under an old epoch, or once more: refused."""
        world = self._world
        attempts = list(world.tables.attempts.values())
        if not attempts:
            return
        attempt = world.random.choice(attempts)
        owner = attempt.grants[0].worker
        others = [name for name in world.tables.workers if name not in _workers(attempt)]
        lies: list[tuple[str, int]] = [(owner, attempt.epoch - 1), (owner, attempt.epoch + 1)]
        lies += [(name, attempt.epoch) for name in others[:1]]
        if attempt.state == AttemptState.FINISHED:
            lies.append((owner, attempt.epoch))
        who, epoch = world.random.choice(lies)
        before = repr((world.tables.jobs, world.tables.attempts))
        for report in (self._false_end, self._false_checkpoint):
            try:
                report(who, attempt.id, epoch)
            except StaleLease:
                world.told["lies refused"] += 1
                continue
            raise AssertionError(f"a lie was believed: {who} about {attempt.id}, epoch {epoch}")
        assert repr((world.tables.jobs, world.tables.attempts)) == before

    def _false_end(self, who: str, attempt: str, epoch: int) -> None:
        self._world.tables.finish(who, attempt, epoch, Outcome.SUCCEEDED, self._world.now)

    def _false_checkpoint(self, who: str, attempt: str, epoch: int) -> None:
        self._world.tables.checkpoint(who, attempt, epoch, self._world.now)

    def heal(self) -> None:
        """Everybody answers and takes jobs."""
        for worker_id, machine in self._machines.items():
            row = self._world.tables.workers[worker_id]
            if not row.is_active:
                self._world.tables.change(replace(row, is_active=True))
            if not machine.answers:
                self.join(row.capacity)

    def _claim_by(self, worker_id: str, attempt: AttemptRow) -> Callable[[], None]:
        def claim() -> None:
            world = self._world
            if not self._machines[worker_id].answers:
                return
            with suppress(StaleLease):
                world.tables.claim(worker_id, attempt.id, world.now)
                if attempt.state == AttemptState.RUNNING and len(attempt.claimed) == len(
                    attempt.grants
                ):
                    self._begin(attempt)

        return claim

    def _begin(self, attempt: AttemptRow) -> None:
        world = self._world
        job = world.tables.jobs[attempt.job]
        outcome, failure = ENDS[job.fate]
        world.after(job.duration, self._report_by(attempt, outcome, failure))
        world.after(job.duration / 2, self._checkpoint_by(attempt))

    def _report_by(
        self, attempt: AttemptRow, outcome: Outcome, failure: FailureKind | None
    ) -> Callable[[], None]:
        """The end of a run, told by one of its workers, unless it has crashed meanwhile."""
        worker_id = attempt.grants[0].worker

        def report() -> None:
            world = self._world
            said = outcome
            if world.tables.jobs[attempt.job].cancel_requested and outcome != Outcome.SUCCEEDED:
                said = Outcome.CANCELLED
            try:
                world.tables.finish(worker_id, attempt.id, attempt.epoch, said, world.now, failure)
            except StaleLease:
                world.told["late reports refused"] += 1

        return self._unless_silent(worker_id, report)

    def _checkpoint_by(self, attempt: AttemptRow) -> Callable[[], None]:
        worker_id = attempt.grants[0].worker

        def store() -> None:
            with suppress(StaleLease):
                self._world.tables.checkpoint(worker_id, attempt.id, attempt.epoch, self._world.now)

        return self._unless_silent(worker_id, store)

    def _unless_silent(self, worker_id: str, tell: Callable[[], None]) -> Callable[[], None]:
        machine = self._machines[worker_id]
        boots = machine.boots

        def act() -> None:
            if machine.boots != boots:
                return
            if machine.answers:
                tell()
            else:
                machine.unsent.append(tell)

        return act


def _workers(attempt: AttemptRow) -> set[str]:
    return {grant.worker for grant in attempt.grants}
