"""A job array of which only so many jobs may hold slots at one time."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush

from st_controller.domain.scheduling.model import PendingJob

ArrayTurn = tuple[int, float, str]
"""Level, negative, so that the highest comes first; moment of submission; job id."""


def array_turn(job: PendingJob) -> ArrayTurn:
    """The order in which jobs of an array are let in."""
    return -job.level, job.submitted, job.id


@dataclass(slots=True)
class Array:
    """A job array with a cap.

    Of every shape as many jobs stand in line as could still start, so that one which fits nowhere
    does not keep the others from running; when one starts, those too many are sent out of line.
    """

    most: int
    holders: set[str] = field(default_factory=set)
    """Jobs that hold slots, or for which some are kept."""
    in_line: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By shape the jobs that stand in a line."""
    turns: dict[int, list[ArrayTurn]] = field(default_factory=lambda: defaultdict(list))
    """By shape the jobs that wait to be let in, those of the highest level first."""

    def room(self, shape: int) -> int:
        """How many more jobs of a shape may stand in line; negative: so many have to leave it."""
        return self.most - len(self.holders) - len(self.in_line[shape])

    def crowded(self) -> Iterator[int]:
        """The shapes of which too many stand in line, each as often as one has to leave."""
        for shape, jobs in list(self.in_line.items()):
            while jobs and self.room(shape) < 0:
                yield shape

    def wait(self, job: PendingJob, shape: int) -> None:
        """A job is to be let in later."""
        heappush(self.turns[shape], array_turn(job))
