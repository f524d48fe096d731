"""The scheduler: told of workers, jobs and time, it decides who is served next, and where."""

from collections.abc import Iterable, Iterator, Mapping

from st_controller.domain.scheduling.backlog import Backlog
from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.held_back import HeldBack
from st_controller.domain.scheduling.lines import Line
from st_controller.domain.scheduling.model import (
    Decision,
    Grant,
    Level,
    PendingJob,
    Placement,
    Policy,
    Preemption,
    RunningJob,
    Share,
    WorkerCapacity,
)
from st_controller.domain.scheduling.preemption import Clearing, Clearings, Running
from st_controller.domain.scheduling.reservations import Reservation, Reservations
from st_controller.domain.scheduling.tenants import Tenants

MOST_AT_ANY_RATE = 12
"""Reservations beyond which nobody gets one for having been passed by."""
EVERYTHING = -1
"""All shapes, those that nobody has asked for yet included."""
LEARNING = 0.01
"""Weight of the newest job in what is learned of how long jobs run."""


class Scheduler:
    """Keeps the queue and the fleet in memory; ``decide`` applies its own decisions to them.

    Every call carries the moment at which it happens; moments never go back. Nothing else is
    read: the same calls give the same decisions. Until the first ``decide`` it takes over what
    was there before, and does not take those who come for tenants that were idle.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.fleet = Fleet()
        self.tenants = Tenants(self.policy, self.fleet.shapes)
        self.backlog = Backlog(self.policy, self.tenants)
        self.reservations = Reservations(self.fleet, self.policy.reserved_part)
        self.held: dict[str, Running] = {}
        """Jobs that hold slots."""
        self._clearings = Clearings(self.policy, self.fleet, self.held)
        self._stuck = 0
        """Gangs of which one node fits, but not all."""
        self._used_of_limit = 1.0
        """Part of their time limits that jobs used of late."""
        self._in_vain = 0
        """Shapes for which room beside or before what is reserved was sought and not found."""
        self._given_back: set[str] = set()
        """Jobs that lost their reservation in this decision to a higher level; once is enough, for
        what is reserved changes who is within its share, and so who has risen."""
        self._unexamined = EVERYTHING
        """Shapes of which the head of the line may need a reservation."""
        self._freed: set[str] = set()
        """Jobs on whose reserved workers slots came free since they were looked at."""
        self._held_back = HeldBack(self.fleet)
        self._settled_at = float("-inf")

    # What it is told

    def set_share(self, path: str, share: Share) -> None:
        """Weight and limits of ``org``, ``org/team`` or ``org/team/user``; empty: everything."""
        self.tenants.set_share(path, share)
        self._unexamined = EVERYTHING

    def set_array_cap(self, array: str, most: int | None, now: float) -> None:
        """Most jobs of a job array that are served at one time; none: as many as fit."""
        for reservation in self.reservations:
            if reservation.job.array == array:
                self._release(reservation, now)
        self.backlog.cap(array, most, (running.job for running in self.held.values()), now)

    def put_worker(self, worker: WorkerCapacity, now: float) -> None:
        """A worker joined, or changed what it has; what it runs stays."""
        self._release_host(worker.id, now)
        self.fleet.put(worker)
        self._examine_all()
        self._stuck = 0
        self.tenants.fleet_rate = self.fleet.rate

    def drop_worker(self, worker_id: str, now: float) -> None:
        """A worker takes no more jobs; what it runs goes on until ``finish``."""
        self._release_host(worker_id, now)
        self.fleet.close(worker_id)
        self._examine_all()
        self.tenants.fleet_rate = self.fleet.rate

    def enqueue(self, job: PendingJob, now: float) -> None:
        """A job may be served from ``not_before`` on; one that waits already is replaced.

        Raises:
            ValueError: the job holds slots; it has to ``finish`` first.
        """
        if job.id in self.held:
            raise ValueError(f"{job.id} is running")
        self.withdraw(job.id, now)
        known = self.fleet.shapes.find(job.shape)
        if known is None:
            known = self.fleet.number(job.shape)
            self.reservations.forget_room()
        self.backlog.add(job, known, now)

    def withdraw(self, job_id: str, now: float) -> None:
        """A job is not to be served any more; unknown ones are ignored."""
        reservation = self.reservations.find(job_id)
        if reservation is not None:
            self._release(reservation, now)
        self.backlog.remove(job_id, now)

    def adopt(self, running: RunningJob, now: float) -> None:
        """A job holds slots that an earlier decision gave it; it is charged from now on."""
        self.withdraw(running.job.id, now)
        self.backlog.array_runs(running.job)
        held = self._hold(running, now)
        held.stopping = running.stopping

    def finish(self, job_id: str, now: float, *, charge: bool = True) -> None:
        """A job gives its slots back; without ``charge`` as if it had never had them."""
        running = self.held.pop(job_id, None)
        if running is None:
            return
        if charge:
            used = min(1.0, (now - running.started) / running.job.shape.limit)
            self._used_of_limit += LEARNING * (used - self._used_of_limit)
        self.tenants.stop(running.leaf, running.slots, running.rate, now)
        if not charge:
            self.tenants.refund(running.leaf, running.rate, running.started, now)
            self._unexamined = EVERYTHING
        elif any(node.is_limited for node in running.leaf.ancestry):
            self._unexamined |= running.leaf.shapes
        for grant in running.grants:
            host = self.fleet.release(job_id, grant.worker)
            if host is not None and host.kept_for is not None:
                self._freed.add(host.kept_for)
                self.reservations.changed(host.kept_for)
            elif host is not None:
                self._stuck &= ~host.group.fits(host.vector, self.fleet.shapes.known)
        self.backlog.array_left(running.job, now)

    def checkpointed(self, job_id: str, at: float) -> None:
        """A running job stored a checkpoint: what preempting it would lose starts here."""
        running = self.held.get(job_id)
        if running is not None:
            running.checkpointed = max(running.checkpointed, at)

    def load_usage(self, usage: Mapping[str, tuple[float, float]], now: float) -> None:
        """Take over usage and forfeited share of every node, as they stood at ``now``."""
        for path, (used, forfeited) in usage.items():
            self.tenants.set_usage(path, used, forfeited, now)
        self._unexamined = EVERYTHING

    # What it tells

    def usage(self, now: float) -> dict[str, tuple[float, float]]:
        """Decayed usage and forfeited share of every node, in slot-seconds times price."""
        self.tenants.settle(now)
        return {node.path: (node.usage, node.forfeited) for node in self.tenants.nodes()}

    def pending(self) -> Iterable[str]:
        """Ids of the jobs that wait."""
        return [*self.backlog.ids(), *(reserved.job.id for reserved in self.reservations)]

    def running(self) -> Iterable[str]:
        """Ids of the jobs that hold slots."""
        return list(self.held)

    def waiting(self, job_id: str) -> PendingJob | None:
        """A job that waits, whether in a line or with a reservation."""
        reservation = self.reservations.find(job_id)
        return reservation.job if reservation else self.backlog.find(job_id)

    def shared(self) -> set[str]:
        """Paths for which a weight or limits were set."""
        return self.tenants.shared()

    def capped(self) -> set[str]:
        """Job arrays for which a cap was set."""
        return set(self.backlog.caps())

    def next_moment(self) -> float | None:
        """When time alone may change a decision; none: only news can."""
        return self.backlog.next_moment()

    # What it decides

    def decide(self, now: float, most: int | None = None) -> list[Decision]:
        """What is to happen now, best first; ``most`` bounds the number of decisions."""
        self.tenants.is_settled = True
        if now - self._settled_at >= self.policy.settle_interval:
            self.tenants.settle(now)
            self._settled_at = now
            self._examine_all()  # who counts as raised may have changed
        self.backlog.advance(now)
        self._in_vain = 0
        self._given_back.clear()
        self._note_arrivals()
        self._held_back.let_in()
        decisions: list[Decision] = []
        while most is None or len(decisions) < most:
            decision = self._next(now)
            if decision is None:
                break
            decisions.append(decision)
        return decisions

    def _next(self, now: float) -> Decision | None:
        """Go down the order of service: what fits starts, what does not is cared for.

        Only the first that does not fit, among jobs that compete for the same workers, gets a
        reservation or has others preempted; those behind it go by what is left.
        """
        while True:
            decision: Decision | None = self._fulfil(now)
            if decision is not None:
                return decision
            beside, before = self.reservations.backfill(now)
            before &= ~self._in_vain
            fitting = (self.fleet.open & ~self._stuck) | (beside & ~self._in_vain)
            found = self.tenants.pick(fitting | self._unexamined, before)
            if found is None:
                return None
            line, level = found
            job = self.backlog.waiting[line.turn[1]].job
            fitting |= before
            if self._care_for_passed_over(line, level, now, fitting):
                continue
            if fitting >> line.shape & 1:
                decision = self._serve(job, line.shape, level, now)
            else:
                decision = self._keep_room(job, line.shape, level, now)
            if decision is not None:
                return decision

    def _serve(self, job: PendingJob, number: int, level: int, now: float) -> Placement | None:
        """Start a job of which at least one node fits; a gang may find that not all do."""
        grants = None
        if (self.fleet.open & ~self._stuck) >> number & 1:
            grants = self.fleet.place(number, job.wants)
        if grants is None and self.fleet.shapes.of_one_node >> number & 1:
            grants = self.reservations.backfill_place(number, now)
        if grants is None:
            self._stuck |= 1 << number
            self._in_vain |= 1 << number
            return None
        self.backlog.take(job.id, now)
        self._unexamined |= self.fleet.rivals(number) & ~self.reservations.closed
        return self._start(job, grants, level, now)

    def _care_for_passed_over(self, line: Line, level: int, now: float, fitting: int) -> bool:
        """Reserve for somebody within its share before a sibling that is over its own is served.

        Who has small jobs fills every hole; those beside it who want much at once would see their
        team go over its share by that, and never come first. A few slots even stay free for them.
        """
        may_reserve = len(self.reservations) < MOST_AT_ANY_RATE
        if not may_reserve and not self._held_back.may_hold(line.shape):
            return False
        wanted = self.fleet.rivals(line.shape) & self.fleet.satisfiable & ~self.fleet.shapes.single
        found = self.tenants.passed_over(line.leaf, level, wanted)
        if found is None:
            return False
        passed, has_reservation = found
        if may_reserve and not has_reservation:
            job = self.backlog.waiting[passed.turn[1]].job
            if job.id not in self._given_back and self._reserve(
                job, passed.shape, level, now, at_any_rate=True
            ):
                return True
        return self._held_back.add(line, passed, fitting)

    def _keep_room(self, job: PendingJob, number: int, level: int, now: float) -> Preemption | None:
        """Care for the head of a line for which there is no room now."""
        other = self.reservations.below(number, level)
        outranks = other is not None and other.job.id not in self._given_back
        if other is not None and outranks and self._gains(number, level, other):
            self._given_back.add(other.job.id)
            self._release(other, now)  # and look again, with its workers back among the others
            return None
        preemption = self._preempt(job, number, level, now)
        if preemption is not None or job.id in self.reservations:
            return preemption
        if not self._reserve(job, number, level, now):
            self._unexamined &= ~self.fleet.rivals(number)
        return None

    def _gains(self, number: int, level: int, other: Reservation) -> bool:
        """Whether the head of a line is better off without the reservation of a lower level."""
        if self.reservations.fitting(other) >> number & 1:
            return True
        if self.fleet.shapes.single >> number & 1 or other.at_any_rate:
            return False  # the next slot that comes free, or another reservation, is its own anyway
        return self.reservations.may_add(number, level) and not self.reservations.may_add(number)

    def _fulfil(self, now: float) -> Placement | None:
        """Start a job whose reservation has come true, there or on any other worker."""
        open_to_all = self.fleet.open & ~self._stuck
        if not self._freed and not open_to_all & self.reservations.shapes:
            return None
        for reservation in self.reservations:
            shape, grants = reservation.shape, None
            if reservation.job.id in self._freed:
                self._freed.discard(reservation.job.id)
                grants = self.reservations.grants(reservation)
            if grants is None and open_to_all >> shape & 1:
                grants = self.fleet.place(shape, reservation.job.wants)
                if grants is None:
                    self._stuck |= 1 << shape
                    grants = self._gather(reservation, now)
                    open_to_all = self.fleet.open & ~self._stuck
            if grants is None:
                continue
            if self._is_outranked(reservation) or not self._is_allowed(reservation, now):
                self._given_back.add(reservation.job.id)
                self._release(reservation, now)
                open_to_all = self.fleet.open & ~self._stuck
                continue
            self.reservations.remove(reservation)
            self._held_back.let_in()
            self._stuck = 0
            self._unexamined |= self.fleet.rivals(shape)
            started = self._start(reservation.job, grants, reservation.level, now)
            self._promise(reservation, -1, now)
            return started
        return None

    def _gather(self, reservation: Reservation, now: float) -> tuple[Grant, ...] | None:
        """Let a gang have the workers that have room, one by one, until it is complete."""
        if reservation.is_preempting:
            return None
        self._held_back.let_in()
        for host in self.reservations.exchange(reservation, now):
            self._stuck &= ~host.group.fits(host.vector, self.fleet.shapes.known)
        return self.reservations.grants(reservation)

    def _note_arrivals(self) -> None:
        """Look at the heads of the lines among the rivals of those that came or rose.

        Where no more may be reserved nothing has to be done, unless somebody has come to a higher
        level than what is reserved.
        """
        for shape, level in self.backlog.arrived.items():
            below = self.reservations.below(shape, level)
            if below is not None and self._gains(shape, level, below):
                self.reservations.closed &= ~self.fleet.rivals(shape)
            elif self.fleet.shapes.single >> shape & 1:
                continue
            self._unexamined |= self.fleet.rivals(shape)
        self.backlog.arrived.clear()
        self._unexamined &= self.fleet.satisfiable & ~self.reservations.closed

    def _examine_all(self) -> None:
        self._unexamined = EVERYTHING
        self.reservations.closed = 0

    def _preempt(self, job: PendingJob, number: int, level: int, now: float) -> Preemption | None:
        if job.level < Level.URGENT or not job.may_preempt:
            return None
        cleared = self._clearings.cheapest(job, number, now)
        if cleared is None:
            return None
        victims = tuple(dict.fromkeys(_victims(cleared)))
        for victim in victims:
            self.held[victim].stopping = True
        hosts = tuple(clearing.host for clearing in cleared)
        start = now + self.policy.preemption_grace
        self._keep(Reservation(job, number, level, hosts, start, is_preempting=True), now)
        return Preemption(job.id, victims) if victims else None

    def _reserve(
        self, job: PendingJob, number: int, level: int, now: float, *, at_any_rate: bool = False
    ) -> bool:
        """Keep workers for a job until it fits; whether that is to be done and could be."""
        if self.fleet.shapes.known[number].total == 1:
            return False  # the next slot that comes free serves it at once
        if not at_any_rate and not self.reservations.may_add(number):
            self.reservations.closed |= self.fleet.rivals(number)
            return False
        found = self.reservations.earliest(number, now)
        if found is None:
            return False
        self._keep(Reservation(job, number, level, *found, at_any_rate=at_any_rate), now)
        return True

    def _keep(self, reservation: Reservation, now: float) -> None:
        self._promise(reservation, 1, now)
        self.backlog.take(reservation.job.id, now)
        self.reservations.add(reservation)

    def _promise(self, reservation: Reservation, sign: int, now: float) -> None:
        """Count what is reserved as if it ran, so that the next to be served is somebody else."""
        price = sum(host.capacity.price for host in reservation.hosts)
        slots = self.fleet.shapes.known[reservation.shape].slots
        leaf = self.tenants.user(reservation.job.tenant.path, now)
        self.tenants.promise(leaf, sign * price * slots, now)

    # The bookkeeping of its decisions

    def _start(
        self, job: PendingJob, grants: tuple[Grant, ...], level: int, now: float
    ) -> Placement:
        price = self.fleet.price(grants)
        running = self._hold(RunningJob(job, grants, now, price=price), now)
        running.rank = max(running.rank, level)
        return Placement(job.id, grants)

    def _hold(self, begun: RunningJob, now: float) -> Running:
        job = begun.job
        for grant in begun.grants:
            host = self.fleet.occupy(job.id, grant, begun.started + self._lasts(job))
            if host is not None and host.kept_for is not None:
                self.reservations.changed(host.kept_for)
        leaf = self.tenants.user(job.tenant.path, now)
        slots = sum(len(grant.slots) for grant in begun.grants)
        rate = slots * begun.price
        self.tenants.start(leaf, slots, rate, now)
        checkpointed = begun.checkpointed or begun.started
        waited = max(0.0, begun.started - job.waiting_since)
        rank = max(
            job.level, min(job.level + int(waited / self.policy.ageing_interval), Level.CRITICAL)
        )
        running = Running(job, begun.grants, leaf, slots, rate, begun.started, checkpointed, rank)
        self.held[job.id] = running
        return running

    def _lasts(self, job: PendingJob) -> float:
        """How long a job is expected to run: as declared or learned, or like others of late."""
        limit = job.shape.limit
        return min(limit, limit * self._used_of_limit if job.expected is None else job.expected)

    def _is_outranked(self, reservation: Reservation) -> bool:
        """Whether somebody at a higher level could start on the same workers now, or clear them."""
        if reservation.job.id in self._given_back:
            return False
        found = self.tenants.pick(self.reservations.fitting(reservation))
        if found is not None and found[1] > reservation.level:
            return True
        found = self.tenants.pick(self._urgent & self.fleet.rivals(reservation.shape))
        if found is None or found[1] <= reservation.level:
            return False
        return self.backlog.waiting[found[0].turn[1]].job.may_preempt

    @property
    def _urgent(self) -> int:
        """The shapes that somebody wants for whom others may have to yield."""
        base, _ = self.tenants.root.masks
        return (
            base[Level.URGENT] | base[Level.CRITICAL] | base[Level.FIRST]
        ) & self.fleet.satisfiable

    def _is_allowed(self, reservation: Reservation, now: float) -> bool:
        leaf = self.tenants.user(reservation.job.tenant.path, now)
        bit = 1 << reservation.shape
        return all(node.allowed(bit, self.fleet.shapes) for node in leaf.ancestry)

    def _release(self, reservation: Reservation, now: float) -> None:
        """Give up a reservation; its job stands in line again."""
        self._held_back.let_in()
        self.reservations.remove(reservation)
        self._freed.discard(reservation.job.id)
        self.backlog.add(reservation.job, reservation.shape, now)
        self._promise(reservation, -1, now)
        self._stuck = 0

    def _release_host(self, worker_id: str, now: float) -> None:
        reservation = self.reservations.of_host(worker_id)
        if reservation is not None:
            self._release(reservation, now)


def _victims(cleared: Iterable[Clearing]) -> Iterator[str]:
    for clearing in cleared:
        yield from clearing.victims
