"""How an attempt of several members ends: the end of one of them is that of all. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from st_shared.protocol.states import FailureKind, Outcome

Others = Literal["go on", "yield", "drop"]
"""What the other members do: yield at a checkpoint, or end at once."""


@dataclass(frozen=True)
class MemberEnd:
    """How one member ended."""

    node: int
    """Its rank; 0 leads: it alone writes checkpoints and results."""
    outcome: Outcome
    failure: FailureKind | None = None


def deciding(ends: Sequence[MemberEnd]) -> MemberEnd:
    """The end that counts, once all have ended.

    The leader's success is everybody's. Otherwise a cause that was recognised says more than a
    member that vanished, that more than a crash, and all of them more than members that only
    missed another. What a stop made members miss is excused before (``is_excused``): where one
    still counts as a failure, those that stopped at a checkpoint did so because of it.
    """
    return min(ends, key=lambda end: (_rank(end), end.node))


def _rank(end: MemberEnd) -> int:
    if end.outcome is Outcome.FAILED and end.failure in _RANK_OF_FAILURE:
        return _RANK_OF_FAILURE[end.failure]
    if end.outcome is Outcome.SUCCEEDED and end.node == 0:
        return 0
    return _RANK_OF_OUTCOME[end.outcome]


_RANK_OF_OUTCOME = {
    Outcome.CANCELLED: 1,
    Outcome.FAILED: 2,
    Outcome.LOST: 3,
    Outcome.PREEMPTED: 6,
    Outcome.EXPIRED: 7,
    Outcome.SUCCEEDED: 8,
}
_RANK_OF_FAILURE = {
    FailureKind.CRASHED: 4,
    FailureKind.KILLED: 4,
    None: 4,
    FailureKind.PEER_LOST: 5,
}


def is_excused(ended: MemberEnd, *, being_stopped: bool) -> bool:
    """Whether a member only missed one that had left on purpose: it counts as preempted.

    Members of a gang that stops do not leave at the same instant, and whoever is seen to go first
    looks lost to the others.

    ``being_stopped``: before it ended, some member was told to stop, or its worker to leave.
    """
    only_missed = ended.outcome is Outcome.FAILED and ended.failure is FailureKind.PEER_LOST
    return being_stopped and only_missed


def after_member(ended: MemberEnd, *, leader_succeeded: bool) -> Others:
    """What the others do when one member has ended.

    Without a member that vanished or never came no step can be made, and no checkpoint either.
    """
    if leader_succeeded or ended.outcome is Outcome.SUCCEEDED:
        return "go on"
    return "drop" if ended.outcome in {Outcome.LOST, Outcome.EXPIRED} else "yield"
