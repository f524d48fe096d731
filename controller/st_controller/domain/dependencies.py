"""Jobs that wait for others: whether they may start, why not, and which graphs cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState


@dataclass(frozen=True, slots=True)
class Parent:
    """A job that must succeed before another may start."""

    id: str
    name: str
    state: JobState

    @property
    def is_lost(self) -> bool:
        """Whether it ended without success; a retry alone changes that."""
        return self.state.is_final and self.state is not JobState.SUCCEEDED


def why_waiting(parents: Sequence[Parent]) -> Reason | None:
    """The reason that these parents hold a job back; none: they all succeeded."""
    still_open = [parent for parent in parents if parent.state is not JobState.SUCCEEDED]
    if not still_open:
        return None
    lost = next((parent for parent in still_open if parent.is_lost), None)
    if lost:
        return Reason(
            code="parent_failed",
            message=f"{_called(lost)} had to succeed first, but {_end(lost)}.",
            hint=f"`st retry {lost.id}` lets this job go on, `st cancel` ends it",
        )
    more = f" and {len(still_open) - 1} more" if len(still_open) > 1 else ""
    return Reason(
        code="dependency", message=f"Waits until {_called(still_open[0])}{more} succeeded."
    )


def why_cancelled(parent: Parent) -> Reason:
    """What is told of a job that ends because its parent did not succeed."""
    return Reason(
        code="parent_failed",
        message=f"Cancelled, because {_called(parent)} had to succeed first, but {_end(parent)}.",
        hint=f"`st retry {parent.id}`, then `st retry` this job",
    )


def in_order(parents: Mapping[int, Sequence[int]]) -> list[int]:
    """The keys of ``parents``, each after all that it names, otherwise lowest first.

    Raises:
        Cycle: some of them wait for each other.
    """
    sorter = TopologicalSorter(parents)
    try:
        sorter.prepare()
    except CycleError as error:
        raise Cycle(list(reversed(error.args[1]))) from None
    found: list[int] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found += ready
        sorter.done(*ready)
    return found


class Cycle(ValueError):
    """Jobs that wait for each other: each for the next; the first is also the last."""

    def __init__(self, path: list[int]) -> None:
        super().__init__(" -> ".join(map(str, path)))
        self.path = path


def _called(parent: Parent) -> str:
    return f"{parent.name} ({parent.id})"


def _end(parent: Parent) -> str:
    return parent.state.value if parent.state is JobState.FAILED else f"was {parent.state.value}"
