"""The scheduler: told of workers, jobs and time, it decides who is served next, and where."""

from collections.abc import Iterable, Mapping

from st_controller.domain.scheduling.attention import EVERYTHING, Attention
from st_controller.domain.scheduling.backlog import Backlog
from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.head_of_line import HeadOfLine
from st_controller.domain.scheduling.lines import Line
from st_controller.domain.scheduling.model import (
    Decision,
    Grant,
    PendingJob,
    Placement,
    Policy,
    RunningJob,
    Share,
    WorkerCapacity,
)
from st_controller.domain.scheduling.nodes import Node
from st_controller.domain.scheduling.running import RunningJobs
from st_controller.domain.scheduling.tenants import Tenants


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
        self._attention = Attention()
        self._running = RunningJobs(self.policy, self.fleet, self.tenants)
        self.tenants.limits.ends = self._running.ends
        self.held = self._running.held
        """Jobs that hold slots."""
        self._head = HeadOfLine(
            self.policy, self.fleet, self.tenants, self.backlog, self._running, self._attention
        )
        self.reservations = self._head.reservations
        self._settled_at = float("-inf")

    # What it is told

    def set_share(self, path: str, share: Share) -> None:
        """Weight and limits of ``org``, ``org/team`` or ``org/team/user``; empty: everything."""
        self.tenants.set_share(path, share)
        self._head.note_everything()
        self._attention.unexamined = EVERYTHING

    def set_array_cap(self, array: str, most: int | None, now: float) -> None:
        """Most jobs of a job array that are served at one time; none: as many as fit."""
        if self.backlog.cap_of(array) == most:
            return
        for reservation in self.reservations:
            if reservation.job.array == array:
                self._head.release(reservation, now)
        self.backlog.cap(array, most, (running.job for running in self.held.values()), now)

    def put_worker(self, worker: WorkerCapacity, now: float) -> None:
        """A worker joined, or changed what it has; what it runs stays.

        What is kept there stays kept unless jobs fit now that did not, or the other way round.
        """
        if self.fleet.refresh(worker):
            return
        self._head.release_host(worker.id, now)
        self.fleet.put(worker)
        self._examine_all()
        self._attention.stuck = 0
        self.tenants.fleet_rate = self.fleet.rate

    def drop_worker(self, worker_id: str, now: float) -> None:
        """A worker takes no more jobs; what it runs goes on until ``finish``."""
        self._head.release_host(worker_id, now)
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
            self._head.release(reservation, now)
        self.backlog.remove(job_id, now)

    def adopt(self, running: RunningJob, now: float) -> None:
        """A job holds slots that an earlier decision gave it; it is charged from now on."""
        self.withdraw(running.job.id, now)
        self.backlog.array_runs(running.job, now)
        self.reservations.taken(self._running.adopt(running, now))

    def finish(
        self,
        job_id: str,
        now: float,
        *,
        charge: bool = True,
        used: tuple[float, float] | None = None,
    ) -> None:
        """A job gives its slots back; without ``charge`` as if it had never had them.

        ``used`` is from when until when it is charged; none: from when it started until now.
        """
        running = self.held.pop(job_id, None)
        if running is None:
            return
        attention = self._attention
        freed = self._running.end(running, now, charge=charge, used=used)
        if running.leaf.is_limited_anywhere:
            self._head.note_end(running)
        if not charge:
            attention.unexamined = EVERYTHING
        else:
            for node in reversed(running.leaf.ancestry):
                if node.is_limited:  # its limit lets others start
                    attention.unexamined |= self.tenants.turns.asked_for(node)
                    break
        for host in freed:
            if host.kept_for is not None:
                attention.freed.update(host.keepers)
                self.reservations.taken((host,))
            else:
                attention.stuck &= ~host.group.fits(host.vector, self.fleet.shapes.known)
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
        self._attention.unexamined = EVERYTHING

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
        self.tenants.limits.now = now
        self.tenants.turns.note_satisfiable(self.fleet.reach.satisfiable)
        self._attention.begin()
        self._head.own_limits.begin()
        self._head.note_arrivals()
        self._head.held_back.let_in()
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
        attention, head = self._attention, self._head
        while True:
            kept = head.fulfilled(now)
            if kept is not None:
                reservation, grants = kept
                leaf = self.tenants.user(reservation.job.tenant.path, now)
                started = self._start(reservation.job, leaf, grants, reservation.level, now)
                head.promise(reservation, -1, now)
                return started
            beside, before = self.reservations.backfill(now)
            before &= ~attention.in_vain
            fitting = (self.fleet.openings.mask & ~attention.stuck) | (beside & ~attention.in_vain)
            found = self.tenants.turns.pick(fitting | attention.unexamined, before)
            if head.own_limits.is_due:
                kept_now, preemption = head.make_room(found.level if found else -1, now)
                if preemption is not None:
                    return preemption
                if kept_now:
                    continue
            if found is None:
                return None
            line, level, is_within_share = found
            job = self.backlog.waiting[line.turn[1]].job
            fitting |= before
            if not is_within_share and head.care_for_passed_over(line, level, now, fitting):
                continue
            decision: Decision | None
            if fitting >> line.shape & 1:
                decision = self._serve(job, line, level, now)
            else:
                decision = head.care_for(job, line.shape, level, now)
            if decision is not None:
                return decision

    def _serve(self, job: PendingJob, line: Line, level: int, now: float) -> Placement | None:
        """Start a job of which at least one node fits; a gang may find that not all do."""
        attention, number, grants = self._attention, line.shape, None
        if (self.fleet.openings.mask & ~attention.stuck) >> number & 1:
            grants = self.fleet.openings.place(number, job.wants)
        if grants is None and self.fleet.shapes.of_one_node >> number & 1:
            grants = self.reservations.backfill_place(number, now)
        if grants is None:
            attention.stuck |= 1 << number
            attention.in_vain |= 1 << number
            attention.unexamined |= 1 << number & ~self.reservations.closed  # before lower ones
            return None
        self.tenants.turns.note_served(line, level)
        self.backlog.take(job.id, now)
        attention.unexamined |= self.fleet.reach.rivals(number) & ~self.reservations.closed
        return self._start(job, line.leaf, grants, level, now)

    def _start(
        self, job: PendingJob, leaf: Node, grants: tuple[Grant, ...], level: int, now: float
    ) -> Placement:
        self.reservations.taken(self._running.start(job, leaf, grants, level, now))
        self._attention.started.add(job.id)
        if leaf.is_limited_anywhere:
            self._head.own_limits.note_start(leaf)
        return Placement(job.id, grants)

    def _examine_all(self) -> None:
        self._head.note_everything()
        self._attention.unexamined = self._attention.each_urgent = EVERYTHING
        self.reservations.closed = 0
