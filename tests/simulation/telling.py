"""What happened in a schedule, counted: a simulator in which nothing happens proves nothing."""

from collections import Counter

from simulation.world import World


def happened(world: World) -> Counter[str]:
    """How often each kind of thing happened."""
    tables = world.tables
    told: Counter[str] = Counter({"steps": world.steps, "leaders": tables.leader_epoch})
    told += world.told
    for attempt in tables.attempts.values():
        told[f"attempts {attempt.outcome}"] += 1
        told["gangs placed"] += len(attempt.grants) > 1
    for job in tables.jobs.values():
        told[f"jobs {job.state}"] += 1
    return told
