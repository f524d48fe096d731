"""For whom a job has to leave room under the limits of its tenants."""

from collections import Counter
from functools import partial

from simulation import ledger
from simulation.leader import Leader
from simulation.rows import JobRow
from simulation.tables import Tables
from st_controller.domain.scheduling.model import Level, Policy, Shape, Share
from st_controller.domain.scheduling.reservations import Reservation


def leaves_room(
    job: JobRow,
    tables: Tables,
    leader: Leader,
    policy: Policy,
    now: float,
    used: tuple[Counter[str], Counter[str]],
) -> bool:
    """Whether somebody at a higher level waits for nothing but one of its limits, or has a
    reservation under one of them at its level or above.

    ``used``: running jobs and running slots by path.
    """
    reservations = list(getattr(leader.core, "reservations", ()))
    for path in ledger.paths(job.tenant):
        share = tables.shares.get(path, Share())
        if share.max_slots is None and share.max_jobs is None:
            continue
        kept = [each for each in reservations if path in ledger.paths(each.job.tenant)]
        blocked = partial(_is_blocked, share, (used[0][path], used[1][path]), kept)
        if blocked(job.shape, job.served_level):
            return True
        for other in tables.waiting():
            # Who has risen, but is over its share, is served at the level asked for.
            least = max(other.served_level, job.served_level + 1)
            if (
                path in ledger.paths(other.tenant)
                and other.not_before <= now
                and least <= _reached(other, policy, now)
                and _within(share, other.shape.total, 0, 0)
                and blocked(other.shape, least)
            ):
                return True
    return False


def _is_blocked(
    share: Share, used: tuple[int, int], kept: list[Reservation], shape: Shape, level: int
) -> bool:
    slots = [each.job.shape.total for each in kept if each.level >= level]
    return not _within(share, shape.total, used[0] + len(slots), used[1] + sum(slots))


def _within(share: Share, slots: int, jobs_used: int, slots_used: int) -> bool:
    if share.max_jobs is not None and jobs_used >= share.max_jobs:
        return False
    return share.max_slots is None or slots_used + slots <= share.max_slots


def _reached(job: JobRow, policy: Policy, now: float) -> int:
    """The level that it has at most, by how long it waits."""
    risen = job.served_level + int((now - job.queued) / policy.ageing_interval)
    return max(job.served_level, min(risen, Level.CRITICAL))
