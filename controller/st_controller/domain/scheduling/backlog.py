"""Every job that waits: in its line, for a moment to come, or for its array to let it in."""

from bisect import insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain, islice
from operator import attrgetter

from st_controller.domain.scheduling.arrays import Array, array_turn
from st_controller.domain.scheduling.lines import Line, Turn, Waiting, in_turn
from st_controller.domain.scheduling.model import Level, PendingJob, Policy
from st_controller.domain.scheduling.nodes import AGED, BASE
from st_controller.domain.scheduling.tenants import Tenants

TURN = attrgetter("turn")


class Backlog:
    """The jobs that wait, and the ageing of those that stand first."""

    def __init__(self, policy: Policy, tenants: Tenants) -> None:
        self._policy = policy
        self._tenants = tenants
        self.waiting: dict[str, Waiting] = {}
        """Jobs that stand in a line."""
        self._held: dict[str, tuple[PendingJob, int]] = {}
        """Jobs that wait for a moment or for their array, with the number of their shape."""
        self._moments: list[tuple[float, str]] = []
        self._raises: list[tuple[float, Turn, int, Line]] = []
        self._serial = 0
        self._arrays: dict[str, Array] = {}
        self.arrived: dict[int, int] = {}
        """By shape the highest level that a job came or rose to since somebody emptied this."""
        self.urgent = 0
        """The shapes of which a job came since then that may preempt others."""
        self.preemptors: dict[Line, None] = {}
        """Lines of urgent jobs of which the first may preempt others."""
        self.new_preemptors: set[Line] = set()
        """Those of which the first is another since somebody emptied this."""

    def __len__(self) -> int:
        return len(self.waiting) + len(self._held)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.waiting or job_id in self._held

    def ids(self) -> list[str]:
        """Of all jobs that wait."""
        return [*self.waiting, *self._held]

    def find(self, job_id: str) -> PendingJob | None:
        """A job that waits."""
        place = self.waiting.get(job_id)
        if place is not None:
            return place.job
        held = self._held.get(job_id)
        return held[0] if held else None

    def is_held(self, job_id: str) -> bool:
        """Whether a job stands in no line: its moment has not come, or its array is full."""
        return job_id in self._held

    def foremost(self, most: int) -> list[PendingJob]:
        """Up to ``most`` jobs: from every line the first ones, then those that are held."""
        lines = [line for node in self._tenants.nodes() for line in (node.lines or {}).values()]
        each = max(1, most // max(1, len(lines)))
        found: list[PendingJob] = []
        for line in lines:
            found += islice(self._jobs_of(line), each)
        found += [job for job, _ in islice(self._held.values(), max(0, most - len(found)))]
        return found[:most]

    def held_by_reason(self, now: float, org: str | None = None) -> dict[str, int]:
        """How many jobs stand in no line, by reason; of one organisation, or of all."""
        held = [job for job, _ in self._held.values() if org in {None, job.tenant.org}]
        later = sum(job.not_before > now for job in held)
        counts = {"not_before": later, "array_cap": len(held) - later}
        return {code: count for code, count in counts.items() if count}

    def next_moment(self) -> float | None:
        """When a job that is held may be served, or one that waits rises by a class."""
        moments = [heap[0][0] for heap in (self._moments, self._raises) if heap]
        return min(moments, default=None)

    # Arrays

    def cap(
        self, array_id: str, most: int | None, running: Iterable[PendingJob], now: float
    ) -> None:
        """Change how many jobs of an array may be served at one time."""
        if most is None:
            lifted = self._arrays.pop(array_id, None)
            for _, _, job_id in sorted(chain(*lifted.turns.values())) if lifted else ():
                self._admit_held(job_id, now)
            return
        array = self._arrays.get(array_id)
        if array is None:
            array = self._arrays[array_id] = Array(most)
            array.holders = {job.id for job in running if job.array == array_id}
            for place in self.waiting.values():
                if place.job.array == array_id:
                    array.in_line[place.line.shape].add(place.job.id)
        array.most = most
        self._send_back(array, now)
        self._let_in(array, now)

    def cap_of(self, array_id: str) -> int | None:
        """The cap of one; none: none was set."""
        array = self._arrays.get(array_id)
        return array.most if array else None

    def caps(self) -> dict[str, int]:
        """Arrays for which a cap was set, with the cap."""
        return {array_id: array.most for array_id, array in self._arrays.items()}

    def array_runs(self, job: PendingJob, now: float) -> None:
        """A job of an array holds slots, or some are kept for it."""
        array = self._array_of(job)
        if array is not None:
            array.holders.add(job.id)
            self._send_back(array, now)

    def array_left(self, job: PendingJob, now: float) -> None:
        """A job of an array neither stands in a line nor runs any more."""
        array = self._array_of(job)
        if array is not None:
            array.holders.discard(job.id)
            self._let_in(array, now)

    def _array_of(self, job: PendingJob) -> Array | None:
        return self._arrays.get(job.array) if job.array else None

    # Jobs

    def add(self, job: PendingJob, shape: int, now: float) -> None:
        """Take a job in."""
        if job.not_before > now:
            self._held[job.id] = (job, shape)
            heappush(self._moments, (job.not_before, job.id))
            return
        array = self._array_of(job)
        if array is None:
            self._join_line(job, shape, now)
            return
        held_slots = job.id in array.holders
        array.holders.discard(job.id)
        if array.room(shape) > 0 or self._displace(array, job, shape, now):
            array.in_line[shape].add(job.id)
            self._join_line(job, shape, now)
        else:
            self._held[job.id] = (job, shape)
            array.wait(job, shape)
        if held_slots:
            self._let_in(array, now)

    def remove(self, job_id: str, now: float) -> PendingJob | None:
        """Let a job go that waits; none: it does not."""
        held = self._held.pop(job_id, None)
        if held is not None:
            return held[0]
        taken = self._out_of_line(job_id, now)
        if taken is not None:
            self.array_left(taken, now)
        return taken

    def take(self, job_id: str, now: float) -> None:
        """Take a job out of its line because it is served, or slots are kept for it."""
        taken = self._out_of_line(job_id, now)
        if taken is not None:
            self.array_runs(taken, now)

    def _out_of_line(self, job_id: str, now: float) -> PendingJob | None:
        place = self.waiting.pop(job_id, None)
        if place is None:
            return None
        line = place.line
        line.length -= 1
        if (array := self._array_of(place.job)) is not None:
            array.in_line[line.shape].discard(job_id)
        if line.turn == place.turn:
            self._look(line, now)
        self._tenants.wait(line.leaf, -1, now)
        return place.job

    def advance(self, now: float) -> None:
        """Do what was to happen until this moment."""
        while self._moments and self._moments[0][0] <= now:
            moment, job_id = heappop(self._moments)
            held = self._held.get(job_id)
            if held is not None and held[0].not_before == moment:
                del self._held[job_id]
                self.add(*held, now)
        while self._raises and self._raises[0][0] <= now:
            _, turn, _, line = heappop(self._raises)
            if line.turn == turn:
                self._age(line, now)

    # Lines

    def _jobs_of(self, line: Line) -> Iterator[PendingJob]:
        """The jobs of a line in their turn."""
        seen: set[str] = set()
        for _, job_id in in_turn(line.turns):
            place = self.waiting.get(job_id)
            if place is not None and place.line is line and job_id not in seen:
                seen.add(job_id)
                yield place.job

    def _join_line(self, job: PendingJob, shape: int, now: float) -> None:
        leaf = self._tenants.user(job.tenant.path, now)
        lines = leaf.lines
        assert lines is not None  # noqa: S101 - users have lines
        line = lines.get((job.level, shape))
        if line is None:
            line = lines[job.level, shape] = Line(leaf, job.level, shape)
            self._tenants.turns.hold(leaf, BASE, job.level, shape)
        self.waiting[job.id] = place = Waiting(job, line)
        self.arrived[shape] = max(self.arrived.get(shape, 0), job.level)
        if job.level >= Level.URGENT and job.may_preempt:
            self.urgent |= 1 << shape
        line.add(job)
        if place.turn < line.turn:
            self._look(line, now)
        self._tenants.wait(leaf, 1, now)

    def _look(self, line: Line, now: float) -> None:
        """Find out who stands first in a line, and how far that job has risen."""
        if not line.look(self.waiting):
            return
        line.leaf.note_first(BASE, line.level, line.shape, line.turn[0])
        if line.level >= Level.URGENT:
            self._note_preemptor(line)
        if line.turns:
            self._age(line, now)
            return
        self._reach(line, None)
        self._tenants.turns.drop(line.leaf, BASE, line.level, line.shape)
        del (line.leaf.lines or {})[line.level, line.shape]

    def _note_preemptor(self, line: Line) -> None:
        """Note whether the first of a line of urgent jobs may preempt."""
        if line.turns and self.waiting[line.turn[1]].job.may_preempt:
            self.preemptors[line] = None
            self.new_preemptors.add(line)
        else:
            self.preemptors.pop(line, None)
            self.new_preemptors.discard(line)

    def _age(self, line: Line, now: float) -> None:
        """Raise the first job of a line by a class for each interval that it has waited."""
        if line.level >= Level.CRITICAL:
            return
        since = self.waiting[line.turn[1]].job.waiting_since
        interval = self._policy.ageing_interval
        steps = max(0, int((now - since) / interval))
        reached = min(line.level + steps, int(Level.CRITICAL))
        self._reach(line, reached if steps else None)
        if reached < Level.CRITICAL:
            self._serial += 1
            # A moment later than the interval, so that rounding never finds it too early.
            due = since + (steps + 1) * interval * (1 + 1e-12) + 1e-6
            heappush(self._raises, (due, line.turn, self._serial, line))

    def _reach(self, line: Line, reached: int | None) -> None:
        """Note how far the first job of a line has risen; it may be another job than before."""
        leaf, shape, before = line.leaf, line.shape, line.reached
        if before is not None:
            alike = leaf.aged_lines[before][shape]
            if before == reached:
                alike.sort(key=TURN)
            else:
                alike.remove(line)
            if alike:
                leaf.note_first(AGED, before, shape, alike[0].turn[0])
            else:
                del leaf.aged_lines[before][shape]
            if before == reached:
                return
            self._tenants.turns.drop(leaf, AGED, before, shape)
        line.reached = reached
        if reached is not None:
            self.arrived[shape] = max(self.arrived.get(shape, 0), reached)
            alike = leaf.aged_lines[reached].setdefault(shape, [])
            insort(alike, line, key=TURN)
            leaf.note_first(AGED, reached, shape, alike[0].turn[0])
            self._tenants.turns.hold(leaf, AGED, reached, shape)

    def _send_back(self, array: Array, now: float) -> None:
        """Let the last jobs of an array wait to be let in again, where too many stand in line."""
        for shape in array.crowded():
            self._send_out(array, self._last_in_line(array, shape), shape, now)

    def _last_in_line(self, array: Array, shape: int) -> PendingJob:
        return max((self.waiting[one].job for one in array.in_line[shape]), key=array_turn)

    def _displace(self, array: Array, job: PendingJob, shape: int, now: float) -> bool:
        """Let a job in whose turn it is before others of its array, in place of the last in line.

        It was raised above them, or has run before and yielded.
        """
        turn = array_turn(job)
        if self._highest_held(array, shape) >= 0 and array.turns[shape][0] < turn:
            return False
        if not array.in_line[shape]:
            return False
        last = self._last_in_line(array, shape)
        if array_turn(last) < turn:
            return False
        self._send_out(array, last, shape, now)
        return True

    def _highest_held(self, array: Array, shape: int) -> int:
        """The highest level of those that wait to be let in; none in line has a lower one."""
        turns = array.turns[shape]
        while turns:
            level, _, job_id = turns[0]
            held = self._held.get(job_id)
            if held is not None and held[0].level == -level:
                return held[0].level
            heappop(turns)
        return -1

    def _send_out(self, array: Array, job: PendingJob, shape: int, now: float) -> None:
        """Take a job of an array out of its line; it waits to be let in again."""
        self._out_of_line(job.id, now)
        self._held[job.id] = (job, shape)
        array.wait(job, shape)

    def _let_in(self, array: Array, now: float) -> None:
        for shape, turns in list(array.turns.items()):
            while array.room(shape) > 0 and self._highest_held(array, shape) >= 0:
                self._admit_held(heappop(turns)[-1], now)

    def _admit_held(self, job_id: str, now: float) -> None:
        held = self._held.pop(job_id, None)
        if held is not None:
            self.add(*held, now)
