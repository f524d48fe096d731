"""Every decision is judged before it is made true, against what the scheduler was told."""

from collections import Counter
from collections.abc import Iterable

from simulation import ledger
from simulation.fitting import room, slot_suits, worker_suits
from simulation.invariants import Broken, allowed, full_arrays, running_by_path
from simulation.rows import JobRow
from simulation.tables import Tables
from st_controller.domain.scheduling.model import (
    Decision,
    Level,
    Placement,
    Policy,
    Preemption,
    Share,
)
from st_shared.protocol.states import JobState


class Judge:
    """Judges the decisions of one ``decide`` in their order, as if each came true."""

    def __init__(self, tables: Tables, policy: Policy, reserved: Iterable[str], now: float) -> None:
        self._tables, self._policy, self._now = tables, policy, now
        self._reserved = set(reserved)
        """Jobs that had a reservation before; they need not wait for their turn again."""
        self._busy = tables.busy()
        self._jobs, self._slots = running_by_path(tables)
        self._started: dict[str, Placement] = {}
        self._stopped: set[str] = set()
        self._freed = self._leaving()
        self.told: Counter[str] = Counter()
        """How often what was decided."""
        self._arrays: Counter[str] = Counter()
        for attempt in tables.live.values():
            array = tables.jobs[attempt.job].array
            if array is not None:
                self._arrays[array] += 1

    def judge(self, decisions: list[Decision]) -> None:
        """Look at each decision.

        Raises:
            Broken: one is against the rules.
        """
        for decision in decisions:
            if isinstance(decision, Placement):
                self._placement(decision)
            else:
                self._preemption(decision)

    def _placement(self, placement: Placement) -> None:
        job = self._tables.jobs[placement.job_id]
        self._may_start(job)
        self._keeps_limits(job)
        self._suits(job, placement)
        self._is_its_turn(job)
        self._started[job.id] = placement

    def _may_start(self, job: JobRow) -> None:
        waits = job.state == JobState.QUEUED and not job.parents and job.id not in self._started
        _demand(waits, f"{job.id} is {job.state} with parents {job.parents}, and was started")
        _demand(job.not_before <= self._now, f"{job.id} was started before its time")

    def _keeps_limits(self, job: JobRow) -> None:
        holds = allowed(job, self._tables.shares, self._jobs, self._slots)
        _demand(holds, f"{job.id} of {job.tenant.path} was started over a limit")
        for path in ledger.paths(job.tenant):
            self._jobs[path] += 1
            self._slots[path] += job.shape.total
        if job.array is not None:
            self._arrays[job.array] += 1
            most = self._tables.caps.get(job.array, len(self._tables.jobs))
            _demand(self._arrays[job.array] <= most, f"{job.id}: too many of array {job.array}")

    def _suits(self, job: JobRow, placement: Placement) -> None:
        shape, grants = job.shape, placement.grants
        workers = {grant.worker for grant in grants}
        _demand(len(workers) == len(grants) == shape.nodes, f"{job.id} is not whole: {grants}")
        for grant in grants:
            row = self._tables.workers[grant.worker]
            _demand(row.takes_jobs, f"{job.id}: {grant.worker} takes no jobs")
            _demand(worker_suits(row.capacity, shape), f"{job.id} does not suit {grant.worker}")
            _demand(len(set(grant.slots)) == len(grant.slots) == shape.slots, f"{job.id}: {grant}")
            for slot in grant.slots:
                kind = row.capacity.slots.get(slot)
                _demand(kind is not None and slot_suits(kind, shape), f"{job.id}: {grant}")
                _demand((grant.worker, slot) not in self._busy, f"{job.id}: {grant} is taken")
                self._busy.add((grant.worker, slot))

    def _is_its_turn(self, job: JobRow) -> None:
        """Nobody of the same user, level and shape came earlier: those are interchangeable."""
        if job.array is not None or job.id in self._reserved:
            return
        full = full_arrays(self._tables)
        for other in self._tables.waiting():
            earlier = (other.submitted, other.id) < (job.submitted, job.id)
            same = (other.tenant, other.served_level, other.shape) == (
                job.tenant, job.served_level, job.shape,
            )  # fmt: skip
            if earlier and same and other.array not in full and other.id not in self._reserved:
                could = other.array is None and other.not_before <= self._now
                _demand(
                    not could or other.id in self._started,
                    f"{job.id} was started before {other.id}, which came earlier",
                )

    def _preemption(self, preemption: Preemption) -> None:
        job = self._tables.jobs[preemption.job_id]
        self._may_start(job)
        _demand(job.served_level >= Level.URGENT, f"{job.id} may not preempt")
        _demand(bool(preemption.victims), f"{job.id} preempts nobody")
        for victim_id in preemption.victims:
            self._freed |= self._victim(job, victim_id)
        able = sum(
            row.takes_jobs
            and room(row.capacity, job.shape, self._taken(worker_id)) >= job.shape.slots
            for worker_id, row in self._tables.workers.items()
        )
        _demand(able >= job.shape.nodes, f"{preemption} makes too little room for {job.shape}")
        self._room_under_limits(job, preemption)

    def _room_under_limits(self, job: JobRow, preemption: Preemption) -> None:
        """Once all have yielded its limits let it start; nobody yields who has no part in it."""
        shares = self._tables.shares
        if allowed(job, shares, self._jobs, self._slots):
            return
        self.told["preemptions under limits"] += 1
        leaving = self._stopped | {a.job for a in self._tables.live.values() if a.stop}
        _demand(self._is_allowed_without(job, leaving), f"{preemption}: a limit is in the way")
        limited = {path for path in ledger.paths(job.tenant) if _is_limited(shares.get(path))}
        for victim_id in preemption.victims:
            attempt = self._tables.attempt_of(victim_id)
            grants = attempt.grants if attempt else ()
            workers = (self._tables.workers[grant.worker] for grant in grants)
            is_there = any(worker_suits(row.capacity, job.shape) for row in workers)
            is_below = limited.intersection(ledger.paths(self._tables.jobs[victim_id].tenant))
            _demand(is_there or bool(is_below), f"{preemption}: {victim_id} yields for nothing")

    def _is_allowed_without(self, job: JobRow, gone: set[str]) -> bool:
        jobs, slots = self._jobs.copy(), self._slots.copy()
        for other_id in gone:
            other = self._tables.jobs[other_id]
            for path in ledger.paths(other.tenant):
                jobs[path] -= 1
                slots[path] -= other.shape.total
        return allowed(job, self._tables.shares, jobs, slots)

    def _victim(self, job: JobRow, victim_id: str) -> set[tuple[str, int]]:
        victim = self._tables.jobs[victim_id]
        attempt = self._tables.attempt_of(victim_id)
        if attempt is None:
            started = victim_id in self._started
            raise Broken(f"{victim_id} {'was only just started' if started else 'does not run'}")
        _demand(victim.preemptible, f"{victim_id} may not be preempted")
        _demand(not attempt.stop and victim_id not in self._stopped, f"{victim_id} stops already")
        _demand(victim.served_level < job.served_level, f"{victim_id} ranks as high as {job.id}")
        most = self._policy.max_preemptions
        _demand(victim.preemptions < most, f"{victim_id} has yielded {most} times already")
        self._stopped.add(victim_id)
        return {(grant.worker, slot) for grant in attempt.grants for slot in grant.slots}

    def _leaving(self) -> set[tuple[str, int]]:
        """Slots of jobs that were told to stop before; a decision adds those of its victims."""
        return {
            (grant.worker, slot)
            for attempt in self._tables.live.values()
            if attempt.stop
            for grant in attempt.grants
            for slot in grant.slots
        }

    def _taken(self, worker_id: str) -> list[int]:
        return [slot for worker, slot in self._busy - self._freed if worker == worker_id]


def _is_limited(share: Share | None) -> bool:
    return share is not None and (share.max_jobs, share.max_slots) != (None, None)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
