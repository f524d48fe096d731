"""The simulation: events on a virtual clock, chances from a seed, checks after every step."""

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from simulation import invariants
from simulation.invariants import Broken
from simulation.judging import Judge
from simulation.leader import Core, Leader
from simulation.machines import Machines
from simulation.scenario import Scenario
from simulation.tables import PATIENCE, StaleLeader, Tables
from st_controller.domain.scheduling.model import Decision, Placement, Policy, Preemption

MOST_ROUNDS = 200
"""Of deciding in one step; a scheduler that needs more goes round in circles."""
MOST_STEPS = 20_000
MOMENT = 1e-3
"""Seconds by which a look comes after the moment that it is for."""

MakeCore = Callable[[Policy], Core]


class World:
    """One schedule."""

    def __init__(self, scenario: Scenario, random: Random, make_core: MakeCore) -> None:
        self.scenario, self.random = scenario, random
        self.now = 0.0
        self.tables = Tables()
        self.calm = False
        """Whether nothing breaks any more."""
        self.steps = 0
        self.told: Counter[str] = Counter()
        """How often what happened."""
        self.excused: dict[str, tuple[int, int]] = {}
        self.interfere: Callable[[], None] = lambda: None
        """Called between any two writes of the leader."""
        self._make_core = make_core
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._wakes: set[float] = set()
        self.machines = Machines(self)
        self.leader: Leader | None = None

    def at(self, moment: float, event: Callable[[], None]) -> None:
        """Let something happen at a moment, or now where that is past."""
        self._serial += 1
        heappush(self._events, (max(moment, self.now), self._serial, event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let something happen so much later."""
        self.at(self.now + seconds, event)

    def wake(self, moment: float) -> None:
        """Have the leader look at a moment, whatever happens until then."""
        if moment not in self._wakes:
            self._wakes.add(moment)
            self.at(moment, lambda: self._wakes.discard(moment))

    def elect(self) -> Leader:
        """A new leader takes over from whoever leads."""
        self.leader = Leader(
            self.tables, self._make_core(self.scenario.policy), self.scenario.policy, self.now
        )
        for silence in (PATIENCE.silent_after, PATIENCE.lease_ttl):
            self.wake(self.now + silence + MOMENT)
        return self.leader

    def run(self, until: float = float("inf")) -> None:
        """Go on until nothing more happens, or a moment comes.

        Raises:
            Broken: an invariant does not hold after a step.
        """
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
            self._lead()
            self._check()
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Broken(f"no end after {MOST_STEPS} steps")

    # The leader's part of a step

    def _lead(self) -> None:
        for _ in range(MOST_ROUNDS):
            leader = self.leader
            if leader is None:
                return
            leader.sweep(self.now)
            leader.catch_up(self.now)
            decisions = self._decide(leader)
            if not decisions and not leader.has_news:
                self._conserved(leader)
                moment = leader.core.next_moment()
                if moment is not None:
                    self.wake(max(moment, self.now + MOMENT))
                return
            self._make_true(leader, decisions)
        raise Broken(f"the leader decides for ever, last {decisions}")

    def _decide(self, leader: Leader) -> list[Decision]:
        most = self.random.choice((1, 3, None))
        reservations = getattr(leader.core, "reservations", ())
        reserved = [reservation.job.id for reservation in reservations]
        judge = Judge(self.tables, self.scenario.policy, reserved, self.now)
        decisions = leader.core.decide(self.now, most)
        judge.judge(decisions)
        self.told += judge.told
        for decision in decisions:
            is_kept = decision.job_id in reserved
            self.told["preemptions"] += isinstance(decision, Preemption)
            self.told["placements of reserved jobs"] += is_kept
        self.told["decisions while workers are kept"] += bool(reserved)
        return decisions

    def _make_true(self, leader: Leader, decisions: list[Decision]) -> None:
        for decision in decisions:
            self.interfere()
            if self.leader is not leader:
                self._is_refused(leader, decision)
                continue
            if leader.make_true(decision, self.now):
                self._tell_workers(decision)
            else:
                self.told["offers that came to nothing"] += 1

    def _is_refused(self, late: Leader, decision: Decision) -> None:
        """Somebody else leads, or nobody: a late write of this leader changes nothing.

        Where nobody has taken over yet, the leader died before it wrote.
        """
        if self.tables.leader_epoch == late.epoch:
            return
        before = repr((self.tables.jobs, self.tables.attempts))
        try:
            late.make_true(decision, self.now)
        except StaleLeader:
            self.told["late writes refused"] += 1
        else:
            raise Broken("a leader that was replaced could write")
        if repr((self.tables.jobs, self.tables.attempts)) != before:
            raise Broken("a refused write changed something")

    def _tell_workers(self, decision: Decision) -> None:
        if isinstance(decision, Preemption):
            self.machines.told_to_stop(decision.victims)
        elif isinstance(decision, Placement):
            self.machines.offered(decision)
            self.wake(self.now + PATIENCE.offer_ttl + MOMENT)

    # The checks

    def _conserved(self, leader: Leader) -> None:
        invariants.work_is_conserved(self.tables, leader, self.scenario.policy, self.now)
        invariants.nothing_is_lost(self.tables, leader)
        if self.steps % 4 == 0:
            policy = self.scenario.policy
            invariants.usage_is_charged(self.tables, leader, policy, self.now)

    def _check(self) -> None:
        invariants.tables_are_sound(self.tables)
        invariants.limits_hold(self.tables, self.excused)
        invariants.preemptions_are_bounded(self.tables, self.scenario.policy)

    @property
    def largest(self) -> int:
        """Slots of the largest job there will be."""
        return max(job.shape.total for job in self.scenario.jobs)
