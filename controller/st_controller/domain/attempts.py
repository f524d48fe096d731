"""The life of an attempt: every legal transition in one table."""

from st_shared.protocol.states import AttemptState

TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.OFFERED: frozenset({AttemptState.CLAIMED, AttemptState.FINISHED}),
    AttemptState.CLAIMED: frozenset({AttemptState.PREPARING, AttemptState.FINISHED}),
    AttemptState.PREPARING: frozenset({AttemptState.RUNNING, AttemptState.FINISHED}),
    AttemptState.RUNNING: frozenset({AttemptState.UPLOADING, AttemptState.FINISHED}),
    AttemptState.UPLOADING: frozenset({AttemptState.FINISHED}),
    AttemptState.FINISHED: frozenset(),
}
"""Which state may follow which; all writes go through this table."""

_ORDER = list(TRANSITIONS)


def may_move(before: AttemptState, after: AttemptState) -> bool:
    """Whether an attempt in ``before`` may become ``after``."""
    return after in TRANSITIONS[before]


def is_behind(reported: AttemptState, known: AttemptState) -> bool:
    """Whether a report says what is already known or past, as a repeated call does."""
    return _ORDER.index(reported) <= _ORDER.index(known)
