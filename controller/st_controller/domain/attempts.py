"""The life of an attempt: every legal transition in one table."""

from st_shared.protocol.states import AttemptState

TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.OFFERED: frozenset({AttemptState.CLAIMED, AttemptState.FINISHED}),
    AttemptState.CLAIMED: frozenset(
        {
            AttemptState.PREPARING,
            AttemptState.RUNNING,
            AttemptState.UPLOADING,
            AttemptState.FINISHED,
        }
    ),
    AttemptState.PREPARING: frozenset(
        {AttemptState.RUNNING, AttemptState.UPLOADING, AttemptState.FINISHED}
    ),
    AttemptState.RUNNING: frozenset({AttemptState.UPLOADING, AttemptState.FINISHED}),
    AttemptState.UPLOADING: frozenset({AttemptState.FINISHED}),
    AttemptState.FINISHED: frozenset(),
}
"""Which state may follow which; a worker may report several steps at once, never a step back."""

LIVE = frozenset(TRANSITIONS) - {AttemptState.FINISHED}
"""States in which an attempt is not over."""

HOLDING = LIVE - {AttemptState.UPLOADING}
"""States in which an attempt holds its slots; what only uploads leaves them to the next job."""

LEASED = LIVE - {AttemptState.OFFERED}
"""States in which a worker holds the lease."""

_ORDER = list(TRANSITIONS)


def may_move(before: AttemptState, after: AttemptState) -> bool:
    """Whether an attempt in ``before`` may become ``after``."""
    return after in TRANSITIONS[before]


def is_known(reported: AttemptState, known: AttemptState) -> bool:
    """Whether a report says what is already known or past, as a repeated call does."""
    return _ORDER.index(reported) <= _ORDER.index(known)
