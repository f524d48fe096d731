"""The first in line that does not fit: workers are kept for it, or cleared, until it does."""

from collections.abc import Iterable, Iterator

from st_controller.domain.scheduling.attention import Attention
from st_controller.domain.scheduling.backlog import Backlog
from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.held_back import HeldBack
from st_controller.domain.scheduling.lines import Line
from st_controller.domain.scheduling.model import Grant, Level, PendingJob, Policy, Preemption
from st_controller.domain.scheduling.own_limits import OwnLimits, outermost_limit
from st_controller.domain.scheduling.preemption import Clearing, Clearings
from st_controller.domain.scheduling.reservations import Reservation, Reservations
from st_controller.domain.scheduling.running import Running, RunningJobs
from st_controller.domain.scheduling.tenants import Tenants
from st_controller.domain.scheduling.yielding import Room

MOST_AT_ANY_RATE = 12
"""Reservations beyond which nobody gets one for having been passed by."""


class HeadOfLine:
    """Makes reservations, has others preempted for them, and gives them up again."""

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        tenants: Tenants,
        backlog: Backlog,
        running: RunningJobs,
        attention: Attention,
    ) -> None:
        self._policy, self._fleet, self._tenants = policy, fleet, tenants
        self._backlog, self._running, self._attention = backlog, running, attention
        self.reservations = Reservations(fleet, policy.reserved_part)
        self.held_back = HeldBack(fleet)
        self._clearings = clearings = Clearings(policy, fleet, running.held, attention.started)
        self.own_limits = OwnLimits(
            fleet, backlog, tenants.turns, self.reservations, running, clearings, attention
        )

    # Who gets one

    def care_for(self, job: PendingJob, number: int, level: int, now: float) -> Preemption | None:
        """Care for the head of a line for which there is no room now."""
        attention, reservations = self._attention, self.reservations
        other = reservations.below(number, level)
        outranks = other is not None and other.job.id not in attention.given_back
        if other is not None and outranks and self._gains(number, level, other):
            attention.given_back.add(other.job.id)
            self.release(other, now)  # and look again, with its workers back among the others
            return None
        preemption = self._preempt(job, number, level, now)
        if preemption is not None or job.id in reservations:
            return preemption
        if in_the_way := self._in_the_way(job, number, level, now):
            for kept in in_the_way:
                attention.given_back.add(kept.job.id)
                self.release(kept, now)  # and look again, as above
            return None
        if not self._reserve(job, number, level, now):
            attention.unexamined &= ~self._behind(job, number)
        return None

    def _behind(self, job: PendingJob, number: int) -> int:
        """The shapes that go by what is left once nothing can be done for the head of a line.

        Others that are urgent may preempt on workers that it cannot use.
        """
        rivals = self._fleet.reach.rivals(number)
        if job.level < Level.URGENT or not job.may_preempt:
            return rivals
        self._attention.each_urgent &= ~(1 << number)
        urgent = self._tenants.turns.asked_for(self._tenants.root, Level.URGENT)
        return rivals & ~(urgent & self._attention.each_urgent)

    def care_for_passed_over(self, line: Line, level: int, now: float, fitting: int) -> bool:
        """Reserve for somebody within its share before a sibling that is over its own is served.

        Who has small jobs fills every hole; those beside it who want much at once would see their
        team go over its share by that, and never come first. A few slots even stay free for them.
        """
        fleet = self._fleet
        may_reserve = len(self.reservations) < MOST_AT_ANY_RATE
        if not may_reserve and not self.held_back.may_hold(line.shape):
            return False
        wanted = fleet.reach.rivals(line.shape) & fleet.reach.satisfiable & ~fleet.shapes.single
        found = self._tenants.turns.passed_over(line.leaf, level, wanted)
        if found is None:
            return False
        passed, has_reservation = found
        if may_reserve and not has_reservation:
            job = self._backlog.waiting[passed.turn[1]].job
            if job.id not in self._attention.given_back and self._reserve(
                job, passed.shape, level, now, at_any_rate=True
            ):
                return True
        return self.held_back.add(line, passed, fitting)

    def note_arrivals(self) -> None:
        """Look at the heads of the lines among the rivals of those that came or rose.

        Where no more may be reserved nothing has to be done, unless somebody has come to a higher
        level than what is reserved. Who may preempt is looked at in any case: not even a job of one
        slot, for which nothing is reserved, waits until somebody ends.
        """
        attention, reservations, fleet = self._attention, self.reservations, self._fleet
        for shape, level in self._backlog.arrived.items():
            below = reservations.below(shape, level)
            if below is not None and self._gains(shape, level, below):
                reservations.closed &= ~fleet.reach.rivals(shape)
            elif fleet.shapes.single >> shape & 1:
                continue
            attention.unexamined |= fleet.reach.rivals(shape)
        reservations.closed &= ~self._backlog.urgent
        attention.unexamined |= self._backlog.urgent
        attention.each_urgent |= self._backlog.urgent
        self._backlog.arrived.clear()
        self._backlog.urgent = 0
        attention.unexamined &= fleet.reach.satisfiable & ~reservations.closed

    # Who is held up by its own limits

    def make_room(self, above: int, now: float) -> tuple[bool, Preemption | None]:
        """Let lower jobs yield to an urgent one, above a level, that only limits hold up.

        Whether workers are kept for one now, and who is to yield.
        """
        found = self.own_limits.make_room(above, now)
        if found is None:
            return False, None
        job, line, level, room = found
        for outranked in room.outranked:
            self._attention.given_back.add(outranked)
            if kept := self.reservations.find(outranked):
                self.release(kept, now)
        return True, self._clear(job, line.shape, level, room, now)

    def note_end(self, running: Running) -> None:
        """A job ended below a limit: those that wait for that may start, or lack others now."""
        self._look_at_awaiting(outermost_limit(running.leaf).kept)
        self.own_limits.note_end(running)

    def note_everything(self) -> None:
        """Limits, workers, or what is known of running jobs may be others."""
        self.own_limits.note_everything()
        self._look_at_awaiting(self.reservations)

    def _look_at_awaiting(self, kept: Iterable[Reservation]) -> None:
        self._attention.freed |= {each.job.id for each in kept if each.awaited}

    def _is_held_up(self, reservation: Reservation, now: float) -> bool:
        """Whether limits do not let a job start yet; it is given up where nobody stops any more."""
        held, shapes = self._running.held, self._fleet.shapes
        leaf, bit = self._tenants.user(reservation.job.tenant.path, now), 1 << reservation.shape
        fits = all(node.allowed(bit, shapes) for node in leaf.ancestry)
        if not any(each in held and held[each].stopping for each in reservation.awaited):
            if not fits:  # somebody of a higher level was faster
                self.release(reservation, now)
            return not fits
        if fits and self._is_allowed(reservation, now):
            return False
        self._attention.freed.discard(reservation.job.id)
        return True

    # Who starts on what was kept

    def fulfilled(self, now: float) -> tuple[Reservation, tuple[Grant, ...]] | None:
        """A reservation that has come true, there or on any other worker, and is kept no more."""
        attention, fleet = self._attention, self._fleet
        open_to_all = fleet.openings.mask & ~attention.stuck
        if not attention.freed and not open_to_all & self.reservations.shapes:
            return None
        for reservation in self.reservations:
            shape, grants = reservation.shape, None
            if reservation.awaited and self._is_held_up(reservation, now):
                continue
            if reservation.job.id in attention.freed:
                attention.freed.discard(reservation.job.id)
                grants = self.reservations.grants(reservation)
            if grants is None and open_to_all >> shape & 1:
                grants = fleet.openings.place(shape, reservation.job.wants)
                if grants is None:
                    attention.stuck |= 1 << shape
                    grants = self._gather(reservation, now)
                    open_to_all = fleet.openings.mask & ~attention.stuck
            if grants is None:
                continue
            if self._is_outranked(reservation) or not self._is_allowed(reservation, now):
                attention.given_back.add(reservation.job.id)
                self.release(reservation, now)
                return self.fulfilled(now)  # perhaps one of a higher level, on those workers
            self.reservations.remove(reservation)
            self.held_back.let_in()
            attention.stuck = 0
            attention.unexamined |= fleet.reach.rivals(shape)
            return reservation, grants
        return None

    def _gather(self, reservation: Reservation, now: float) -> tuple[Grant, ...] | None:
        """Let a gang have the workers that have room, one by one, until it is complete."""
        if reservation.is_preempting:
            return None
        self.held_back.let_in()
        for host in self.reservations.exchange(reservation, now):
            self._attention.stuck &= ~host.group.fits(host.vector, self._fleet.shapes.known)
        return self.reservations.grants(reservation)

    # Who gives it up

    def release(self, reservation: Reservation, now: float) -> None:
        """Give up a reservation; its job stands in line again."""
        self.held_back.let_in()
        self.reservations.remove(reservation)
        self._attention.freed.discard(reservation.job.id)
        self._backlog.add(reservation.job, reservation.shape, now)
        self.promise(reservation, -1, now)
        leaf = self._tenants.user(reservation.job.tenant.path, now)
        if leaf.is_limited_anywhere:
            self._look_at_awaiting(outermost_limit(leaf).kept)
            self.own_limits.note_opened(leaf)
        self._attention.stuck = 0

    def release_host(self, worker_id: str, now: float) -> None:
        """Give up the reservations that keep a worker."""
        while reservation := self.reservations.of_host(worker_id):
            self.release(reservation, now)

    def promise(self, reservation: Reservation, sign: int, now: float) -> None:
        """Count what is reserved as if it ran, so that the next to be served is somebody else.

        As much is taken back as was promised, whatever the workers of a gang were exchanged for.
        """
        leaf = self._tenants.user(reservation.job.tenant.path, now)
        if sign < 0:
            self._tenants.take_back(leaf, reservation, reservation.rate, now)
            return
        price = sum(host.capacity.price for host in reservation.hosts)
        reservation.rate = price * self._fleet.shapes.known[reservation.shape].slots
        self._tenants.promise(leaf, reservation, reservation.rate, now)

    def _gains(self, number: int, level: int, other: Reservation) -> bool:
        """Whether the head of a line is better off without the reservation of a lower level."""
        if self.reservations.fitting(other) >> number & 1:
            return True
        if self._fleet.shapes.single >> number & 1 or other.at_any_rate:
            return False  # the next slot that comes free, or another reservation, is its own anyway
        return self.reservations.may_add(number, level) and not self.reservations.may_add(number)

    def _is_outranked(self, reservation: Reservation) -> bool:
        """Whether somebody at a higher level could start on the same workers now, or clear them."""
        if reservation.job.id in self._attention.given_back:
            return False
        fitting = self.reservations.fitting(reservation)
        if self.reservations.above(reservation.level, fitting & self._fleet.shapes.of_one_node):
            return True  # it waits until others yield elsewhere, and need not
        turns = self._tenants.turns
        found = turns.pick(fitting)
        if found is not None and found.level > reservation.level:
            return True
        urgent = turns.asked_for(self._tenants.root, Level.URGENT) & self._fleet.reach.satisfiable
        found = turns.pick(urgent & self._fleet.reach.rivals(reservation.shape))
        if found is None or found.level <= reservation.level:
            return False
        return self._backlog.waiting[found.line.turn[1]].job.may_preempt

    def _is_allowed(self, reservation: Reservation, now: float) -> bool:
        """Whether the limits let it start, those of a higher level before it."""
        leaf = self._tenants.user(reservation.job.tenant.path, now)
        if not leaf.is_limited_anywhere:
            return True
        later = self._later(reservation)
        self.promise(reservation, -1, now)  # which its own slots are no longer kept beside
        kept = [node.kept for node in leaf.ancestry]
        if later:
            for node in leaf.ancestry:
                node.kept = [each for each in node.kept if each.job.id not in later]
            leaf.look_anew()
        allowed = self._tenants.turns.permits(leaf, reservation.level, reservation.shape)
        for node, before in zip(leaf.ancestry, kept, strict=True):
            node.kept = before
        self.promise(reservation, 1, now)
        return allowed

    def _later(self, reservation: Reservation) -> set[str]:
        """Those of its level that came after it, and wait for others to make room under limits."""
        kept = list(self.reservations)
        after = kept[kept.index(reservation) + 1 :]
        level = reservation.level
        return {each.job.id for each in after if each.awaited and each.level == level}

    # How workers are kept

    def _preempt(self, job: PendingJob, number: int, level: int, now: float) -> Preemption | None:
        if job.level < Level.URGENT or not job.may_preempt:
            return None
        cleared = self._clearings.cheapest(job, number, now)
        if cleared is None:
            cleared = self._clearings.beside(job, number, now, self.reservations.cleared())
        if cleared is None:
            return None
        victims = tuple(dict.fromkeys(_victims(cleared)))
        hosts = tuple(clearing.host for clearing in cleared)
        return self._clear(job, number, level, Room(hosts, victims), now)

    def _clear(
        self, job: PendingJob, number: int, level: int, room: Room, now: float
    ) -> Preemption | None:
        """Have jobs yield, and keep what they leave."""
        for victim in room.victims:
            self._running.held[victim].stopping = True
        start = now + self._policy.preemption_grace
        kept = Reservation(
            job, number, level, room.hosts, start, is_preempting=True, awaited=room.awaited
        )
        self._keep(kept, now)
        return Preemption(job.id, room.victims) if room.victims else None

    def _in_the_way(
        self, job: PendingJob, number: int, level: int, now: float
    ) -> list[Reservation]:
        """The reservations of lower levels without whose workers a job can preempt nobody."""
        if job.level < Level.URGENT or not job.may_preempt or self.reservations.lowest >= level:
            return []
        lower = {
            kept.job.id: kept
            for kept in self.reservations
            if kept.level < level and kept.job.id not in self._attention.given_back
        }
        cleared = self._clearings.cheapest(job, number, now, {None, *lower}) or []
        keepers = dict.fromkeys(clearing.host.kept_for for clearing in cleared)
        return [lower[keeper] for keeper in keepers if keeper is not None]

    def _reserve(
        self, job: PendingJob, number: int, level: int, now: float, *, at_any_rate: bool = False
    ) -> bool:
        """Keep workers for a job until it fits; whether that is to be done and could be."""
        if self._fleet.shapes.known[number].total == 1:
            return False  # the next slot that comes free serves it at once
        if not at_any_rate and not self.reservations.may_add(number):
            self.reservations.closed |= self._fleet.reach.rivals(number)
            return False
        found = self.reservations.earliest(number, now)
        if found is None:
            return False
        self._keep(Reservation(job, number, level, *found, at_any_rate=at_any_rate), now)
        return True

    def _keep(self, reservation: Reservation, now: float) -> None:
        self.promise(reservation, 1, now)
        self._backlog.take(reservation.job.id, now)
        self.reservations.add(reservation)


def _victims(cleared: Iterable[Clearing]) -> Iterator[str]:
    for clearing in cleared:
        yield from (victim.job_id for victim in clearing.victims)
