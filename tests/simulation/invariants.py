"""What must hold after every step of a simulated queue, whatever happened."""

from collections import Counter, defaultdict
from itertools import pairwise

from simulation import ledger
from simulation.fitting import fits
from simulation.leader import Leader
from simulation.room_kept import leaves_room
from simulation.rows import JobRow
from simulation.tables import Tables
from st_controller.domain.attempts import LIVE
from st_controller.domain.scheduling.model import Policy, Share
from st_shared.protocol.states import JobState, Outcome

EXACT = 1e-6
"""Relative error of the charged usage that rounding excuses."""
FORGOTTEN = 0.02
"""Slot-seconds that the scheduler may forget: of tenants of whom nothing else is known."""


class Broken(AssertionError):
    """An invariant does not hold."""


def tables_are_sound(tables: Tables) -> None:
    """No slot double-booked, no job in two live attempts, gangs whole, states and attempts agree.

    Raises:
        Broken: saying which does not hold.
    """
    slots: Counter[tuple[str, int]] = Counter()
    owners: Counter[str] = Counter()
    for attempt in tables.live.values():
        shape = tables.jobs[attempt.job].shape
        owners[attempt.job] += 1
        slots.update((grant.worker, slot) for grant in attempt.grants for slot in grant.slots)
        workers = {grant.worker for grant in attempt.grants}
        sizes = {len(grant.slots) for grant in attempt.grants}
        _demand(
            len(workers) == shape.nodes and sizes == {shape.slots}, f"{attempt.id} is not whole"
        )
    _demand(max(slots.values(), default=0) <= 1, f"double-booked: {slots.most_common(2)}")
    _demand(max(owners.values(), default=0) <= 1, f"in two live attempts: {owners.most_common(2)}")
    for job in tables.jobs.values():
        _demand(
            (owners[job.id] == 1) == (job.state in {JobState.ASSIGNED, JobState.RUNNING}),
            f"{job.id} is {job.state} with {owners[job.id]} live attempts",
        )
    _demand(
        all(attempt.state in LIVE for attempt in tables.live.values()), "a live attempt is over"
    )


def limits_hold(tables: Tables, excused: dict[str, tuple[int, int]]) -> None:
    """No tenant, and not everybody together, runs more than its limits allow.

    ``excused``: jobs and slots that a node ran when its limit was lowered; they may run on, and
    what is excused shrinks with them.
    """
    jobs, slots = running_by_path(tables)
    for path, share in tables.shares.items():
        spared_jobs, spared_slots = excused.get(path, (0, 0))
        spared = min(spared_jobs, jobs[path]), min(spared_slots, slots[path])
        excused[path] = spared
        if share.max_jobs is not None:
            _demand(jobs[path] <= max(share.max_jobs, spared[0]), f"{path!r}: too many jobs")
        if share.max_slots is not None:
            _demand(slots[path] <= max(share.max_slots, spared[1]), f"{path!r}: too many slots")


def running_by_path(tables: Tables) -> tuple[Counter[str], Counter[str]]:
    """Running jobs and running slots of every node."""
    jobs: Counter[str] = Counter()
    slots: Counter[str] = Counter()
    for attempt in tables.live.values():
        for path in ledger.paths(tables.jobs[attempt.job].tenant):
            jobs[path] += 1
            slots[path] += attempt.slots
    return jobs, slots


def nothing_is_lost(tables: Tables, leader: Leader) -> None:
    """The scheduler knows each job exactly once: as waiting or as running, and no others."""
    pending, running = list(leader.core.pending()), list(leader.core.running())
    _demand(len(pending) == len(set(pending)), f"waits twice: {sorted(pending)}")
    waiting = {job.id for job in tables.waiting()}
    _demand(set(pending) == waiting, f"waiting: {sorted(set(pending) ^ waiting)}")
    held = {attempt.job for attempt in tables.live.values()}
    _demand(set(running) == held, f"running: {sorted(set(running) ^ held)}")


def usage_is_charged(tables: Tables, leader: Leader, policy: Policy, now: float) -> None:
    """Each node was charged for the slots and seconds that its attempts really held."""
    true = ledger.usage(tables, policy.half_life, now)
    told = leader.core.usage(now)
    for path in {*true, *told} - {""}:
        used, charged = true.get(path, 0.0), told.get(path, (0.0, 0.0))[0]
        wrong = abs(used - charged) > EXACT * used + FORGOTTEN
        _demand(not wrong, f"{path}: charged {charged}, held {used}")


def work_is_conserved(tables: Tables, leader: Leader, policy: Policy, now: float) -> None:
    """After a decision nothing waits that fits on slots, and under limits, kept for nobody."""
    kept = reserved_workers(leader)
    jobs, slots = running_by_path(tables)
    full = full_arrays(tables)
    seen: dict[object, bool] = {}
    for job in tables.waiting():
        if job.not_before > now or job.array in full:
            continue
        if not allowed(job, tables.shares, jobs, slots):
            continue
        if job.array is not None and _comes_after_its_like(job, tables, leader):
            continue
        if job.shape not in seen:
            seen[job.shape] = fits(tables, job.shape, without=kept)
        could_run = seen[job.shape] and not leaves_room(
            job, tables, leader, policy, now, (jobs, slots)
        )
        _demand(not could_run, f"{job.id} could run: {job.shape}, kept: {sorted(kept)}")


def _comes_after_its_like(job: JobRow, tables: Tables, leader: Leader) -> bool:
    """Whether others like it, which rank as high, are in line for all that its cap leaves."""
    backlog = getattr(leader.core, "backlog", None)
    if backlog is None or not backlog.is_held(job.id):
        return False
    running = sum(tables.jobs[one.job].array == job.array for one in tables.live.values())
    reserved = {reservation.job.id for reservation in leader.core.reservations}
    in_line = [
        other
        for other in tables.waiting()
        if other.array == job.array
        and (
            other.id in reserved
            or (other.shape == job.shape and other.served_level >= job.served_level)
        )
        and not backlog.is_held(other.id)
    ]
    return running + len(in_line) >= tables.caps[job.array or ""]


def reserved_workers(leader: Leader) -> set[str]:
    """Workers that are kept for somebody."""
    reservations = getattr(leader.core, "reservations", ())  # the reference keeps none
    return {host.id for reservation in reservations for host in reservation.hosts}


def full_arrays(tables: Tables) -> set[str | None]:
    """Job arrays of which no further job may run."""
    running: Counter[str] = Counter()
    for attempt in tables.live.values():
        array = tables.jobs[attempt.job].array
        if array is not None:
            running[array] += 1
    return {array for array, most in tables.caps.items() if running[array] >= most}


def allowed(job: JobRow, shares: dict[str, Share], jobs: Counter[str], slots: Counter[str]) -> bool:
    """Whether one more job of this shape keeps to the limits."""
    for path in ledger.paths(job.tenant):
        share = shares.get(path, Share())
        if share.max_jobs is not None and jobs[path] + 1 > share.max_jobs:
            return False
        if share.max_slots is not None and slots[path] + job.shape.total > share.max_slots:
            return False
    return True


def preemptions_are_bounded(tables: Tables, policy: Policy) -> None:
    """No job was made to yield more often than the policy allows."""
    for job in tables.jobs.values():
        _demand(job.preemptions <= policy.max_preemptions, f"{job.id}: {job.preemptions} times")


def attempts_are_one_after_another(tables: Tables) -> None:
    """The whole history: no two attempts of a job, and none on a slot, at the same time."""
    by_thing: defaultdict[object, list[tuple[float, float, str]]] = defaultdict(list)
    for attempt in tables.attempts.values():
        end = float("inf") if attempt.finished is None else attempt.finished
        span = attempt.offered, end, attempt.id
        by_thing[attempt.job].append(span)
        for grant in attempt.grants:
            for slot in grant.slots:
                by_thing[grant.worker, slot].append(span)
    for thing, spans in by_thing.items():
        spans.sort()
        for (_, end, first), (begun, _, second) in pairwise(spans):
            _demand(end <= begun, f"{thing}: {first} overlaps {second}")


def succeeded_once(tables: Tables) -> None:
    """A job has succeeded exactly if one of its attempts has, and none has twice."""
    wins = Counter(a.job for a in tables.attempts.values() if a.outcome == Outcome.SUCCEEDED)
    for job in tables.jobs.values():
        _demand(wins[job.id] == (job.state == JobState.SUCCEEDED), f"{job.id}: {wins[job.id]} wins")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
