"""Jobs of one user, one level and one shape, in the order in which they were submitted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from st_controller.domain.scheduling.model import Level, PendingJob
from st_controller.domain.scheduling.nodes import Node

Turn = tuple[float, str]
"""Moment of submission and job id."""

LAST: Turn = (float("inf"), "")


@dataclass(slots=True, eq=False)
class Line:
    """A queue of interchangeable jobs; jobs that left are skipped when they come up."""

    leaf: Node
    level: Level
    shape: int
    turns: list[Turn] = field(default_factory=list)
    length: int = 0
    turn: Turn = LAST
    """Of the first job."""
    reached: int | None = None
    """Level above its own that the first job has reached by waiting."""

    def add(self, job: PendingJob) -> None:
        """Queue a job at its turn."""
        heappush(self.turns, (job.submitted, job.id))
        self.length += 1

    def look(self, waiting: Mapping[str, "Waiting"]) -> bool:
        """Find the first job that still waits here; whether it is another one than before."""
        before = self.turn
        while self.turns:
            place = waiting.get(self.turns[0][1])
            if place is not None and place.line is self and place.turn == self.turns[0]:
                break
            heappop(self.turns)
        self.turn = self.turns[0] if self.turns else LAST
        return self.turn != before


@dataclass(slots=True, eq=False)
class Waiting:
    """A job that waits, and the line that it stands in."""

    job: PendingJob
    line: Line

    @property
    def turn(self) -> Turn:
        """Its turn among the jobs of its user."""
        return (self.job.submitted, self.job.id)


def in_turn(heap: list[Turn]) -> Iterator[Turn]:
    """The entries of a heap in rising order, at the cost of those that are read."""
    coming = [(heap[0], 0)] if heap else []
    while coming:
        turn, at = heappop(coming)
        yield turn
        for below in (2 * at + 1, 2 * at + 2):
            if below < len(heap):
                heappush(coming, (heap[below], below))
