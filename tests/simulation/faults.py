"""What goes wrong, or is changed by people, while jobs are scheduled."""

from collections.abc import Callable
from dataclasses import replace

from simulation import invariants
from simulation.scenario import ARRIVALS, share, worker
from simulation.world import World
from st_controller.domain.scheduling.model import Level
from st_shared.protocol.states import AttemptState


class Faults:
    """Chances of every kind, at random moments of the time of arrivals."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        world.interfere = self._interfere
        kinds = [
            self._crash, self._stall, self._drain, self._change_worker, self._join,
            self._kill_leader, self._replace_leader, self._cancel, self._retry, self._override,
            self._change_share, self._change_cap, world.machines.lie,
        ]  # fmt: skip
        for _ in range(self._random.randint(0, 40)):
            moment = self._random.uniform(0.0, ARRIVALS)
            world.at(moment, self._random.choice(kinds))

    def _interfere(self) -> None:
        """Something happens between two writes of the leader."""
        if self._world.calm or self._random.random() > 0.04:
            return
        kinds: list[Callable[[], None]] = [
            self._cancel, self._crash, self._drain, self._kill_leader, self._replace_leader,
            self._override,
        ]  # fmt: skip
        self._random.choice(kinds)()

    def _crash(self) -> None:
        name = self._some_worker()
        self._world.machines.crash(name)
        row = self._world.tables.workers[name]
        pause = self._random.choice((1.0, 20.0, 60.0))
        self._world.after(pause, lambda: self._world.machines.join(row.capacity))

    def _stall(self) -> None:
        name = self._some_worker()
        self._world.machines.stall(name)
        pause = self._random.choice((5.0, 18.0, 24.9, 26.0, 90.0))
        self._world.after(pause, lambda: self._world.machines.return_from_stall(name))

    def _drain(self) -> None:
        name = self._some_worker()
        row = self._world.tables.workers[name]
        self._world.tables.change(replace(row, is_active=not row.is_active))

    def _change_worker(self) -> None:
        """Its contents or price change while it runs what it runs."""
        row = self._world.tables.workers[self._some_worker()]
        changed = self._random.choice(
            (
                replace(row.capacity, holds=frozenset({"base"})),
                replace(row.capacity, labels={"region": "eu-south"}),
                row.capacity,
            )
        )
        self._world.tables.change(replace(row, capacity=changed))

    def _join(self) -> None:
        count = len(self._world.tables.workers)
        if count < 8:
            self._world.machines.join(worker(self._random, f"w{count}"))

    def _kill_leader(self) -> None:
        if self._world.leader is not None:
            self._world.leader = None
            self._world.after(self._random.choice((0.0, 4.0, 15.0)), self._ensure_leader)

    def _ensure_leader(self) -> None:
        if self._world.leader is None:
            self._world.elect()

    def _replace_leader(self) -> None:
        """Somebody takes over though the one who leads is alive, and does not know yet."""
        if self._world.leader is not None:
            self._world.elect()

    def _cancel(self) -> None:
        name = self._some_job()
        if name is not None:
            self._world.tables.cancel(name, self._world.now)
            attempt = self._world.tables.attempt_of(name)
            if attempt is not None and attempt.state != AttemptState.OFFERED:
                self._world.machines.told_to_stop((name,))

    def _retry(self) -> None:
        name = self._some_job()
        if name is not None:
            self._world.tables.retry(name, self._world.now)

    def _override(self) -> None:
        name = self._some_job()
        if name is not None:
            self._world.tables.override(name, self._random.choice((None, *Level)))

    def _change_share(self) -> None:
        tables = self._world.tables
        paths = sorted(tables.shares)
        if paths:
            path = self._random.choice(paths)
            jobs, slots = invariants.running_by_path(tables)
            self._world.excused[path] = jobs[path], slots[path]
            tables.set_share(path, share(self._random, self._world.largest))

    def _change_cap(self) -> None:
        caps = self._world.tables.caps
        if caps:
            array = self._random.choice(sorted(caps))
            self._world.tables.set_cap(array, self._random.randint(1, 4))

    def _some_worker(self) -> str:
        return self._random.choice(sorted(self._world.tables.workers))

    def _some_job(self) -> str | None:
        jobs = self._world.tables.jobs
        return self._random.choice(sorted(jobs)) if jobs else None
