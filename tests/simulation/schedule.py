"""One whole random schedule, from a seed to the end of its last job."""

from functools import partial
from random import Random

from simulation import fitting, invariants
from simulation.faults import Faults
from simulation.invariants import Broken
from simulation.rows import JobRow
from simulation.scenario import ARRIVALS, Scenario, scenario
from simulation.tables import PATIENCE
from simulation.world import MakeCore, World
from st_controller.domain.scheduling.scheduler import Scheduler

OVERHEAD = 60.0
"""Seconds beyond its run that one try of a job may cost everybody: claims, backoff, grace."""


def play(seed: int, make_core: MakeCore = Scheduler) -> World:
    """Play the schedule of a seed: ten minutes of arrivals and faults, then calm to the end.

    Raises:
        Broken: an invariant does not hold; the message names the seed.
    """
    random = Random(seed)
    world = World(scenario(random), random, make_core)
    try:
        _set_up(world, world.scenario)
        world.run(until=ARRIVALS)
        _calm_down(world)
        bound = world.now + _longest(world)
        world.run()
        _all_is_done(world, bound)
    except Exception as broken:
        raise Broken(f"SEED={seed} at {world.now:.3f} s, step {world.steps}: {broken}") from broken
    return world


def _set_up(world: World, given: Scenario) -> None:
    world.tables.shares.update(given.shares)
    world.tables.caps.update(given.caps)
    for capacity in given.workers:
        world.machines.join(capacity)
    world.elect()
    for job in given.jobs:
        world.at(job.submitted, partial(_submit, world, job))
    Faults(world)


def _submit(world: World, job: JobRow) -> None:
    """Parents that are over have been judged at submission."""
    job.parents = {p for p in job.parents if not world.tables.jobs[p].state.is_final}
    world.tables.submit(job)


def _calm_down(world: World) -> None:
    """Nothing breaks any more, and what could never run is cancelled."""
    world.now = max(world.now, ARRIVALS)
    world.calm = True
    world.machines.heal()
    if world.leader is None:
        world.elect()
    for job in list(world.tables.jobs.values()):
        if not fitting.fits(world.tables, job.shape, when_idle=True):
            world.tables.cancel(job.id, world.now)
            world.machines.told_to_stop((job.id,))
    world.wake(world.now)


def _longest(world: World) -> float:
    """Seconds in which all must be over, were the jobs to run one after the other."""
    most = world.scenario.policy.max_preemptions
    return PATIENCE.lease_ttl + sum(
        (job.duration + OVERHEAD) * (job.max_attempts + most) + 60.0
        for job in world.tables.jobs.values()
        if not job.state.is_final
    )


def _all_is_done(world: World, bound: float) -> None:
    left = [job for job in world.tables.jobs.values() if not job.state.is_final]
    if left:
        raise Broken(f"never ended: {left}")
    ends = [attempt.finished or 0.0 for attempt in world.tables.attempts.values()]
    if max(ends, default=0.0) > bound:
        raise Broken(f"ended only at {max(ends):.0f} s, not by {bound:.0f} s")
    invariants.attempts_are_one_after_another(world.tables)
    invariants.succeeded_once(world.tables)
