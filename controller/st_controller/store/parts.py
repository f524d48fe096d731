"""Long lists of ids, in pieces that one statement takes."""

from collections.abc import Iterator, Sequence

MOST = 10_000
"""Ids in one statement; SQLite takes 32,766 values."""


def parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in order, ``MOST`` at a time; nothing where there are none."""
    for start in range(0, len(ids), MOST):
        yield ids[start : start + MOST]
