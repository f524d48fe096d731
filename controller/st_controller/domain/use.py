"""For how long attempts have had their slots: one answer for shares, quotas and money. Pure.

An attempt is charged from the moment at which all its members have claimed it until its programs
have ended. How long that took is measured by the worker, on its monotonic clock: from the answer
to its claim to the end of its program. So nobody is charged for a controller that was away, or for
the way of a message. What the controller sees for itself bounds what a worker tells:

- nothing is charged beyond the moment at which the end is told;
- while heartbeats say that a program runs, its time goes on: a worker whose clock is slow, or that
  lies, and has been behind by more than a lease lasts (``lease_ttl``) for so long, is believed no
  further back than that. Who is behind for a moment had heartbeats on the way while a controller
  stood still;
- an end that nobody told of (the worker vanished, or was retired) is taken to be the moment up to
  which its last heartbeat proves use. That may be one interval of heartbeats too little, and is
  never too much: nobody pays for what cannot be shown.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol


class Member(Protocol):
    """What counts of one member of an attempt."""

    @property
    def nodes(self) -> int:
        """Members in all."""

    @property
    def claimed_at(self) -> datetime | None:
        """When its worker took it."""

    @property
    def used_seconds(self) -> float:
        """Seconds since then for which use is proven."""

    @property
    def released_at(self) -> datetime | None:
        """When the slots of all members were given back."""


def is_behind(told: float | None, seen: float, lease_ttl: float) -> bool:
    """Whether a worker tells of much less time than has passed since the claim."""
    return told is not None and seen - told > lease_ttl


def proven(
    known: float, told: float | None, seen: float, lease_ttl: float, behind: float = 0.0
) -> float:
    """Seconds of use that a heartbeat proves, of a program that runs.

    ``known`` were proven before, ``told`` says the worker, none: an older one that does not;
    ``seen`` have passed for the controller since the claim; for ``behind`` seconds all its
    heartbeats have been behind.
    """
    believed = seen if told is None else told
    if is_behind(told, seen, lease_ttl) and behind >= lease_ttl:
        believed = max(believed, seen - lease_ttl)
    return max(known, min(believed, seen))


def ended(known: float, told: float, seen: float) -> float:
    """Seconds of use of a program whose worker tells that it has ended; arguments as above."""
    return max(known, min(told, seen))


def after(claimed: datetime | None, seconds: float, now: datetime) -> datetime:
    """The moment after so much use; of what was never claimed, ``now``."""
    return now if claimed is None else claimed + timedelta(seconds=seconds)


def used_until(member: Member) -> datetime | None:
    """The moment up to which a member has provably used its slots; none: it never claimed them."""
    if member.claimed_at is None:
        return None
    return member.claimed_at + timedelta(seconds=member.used_seconds)


def released(members: Sequence[Member], now: datetime) -> datetime:
    """When members that have all ended gave back their slots: when the last program ended."""
    ends = [until for member in members if (until := used_until(member)) is not None]
    return max(ends, default=now)


def begun(members: Sequence[Member]) -> datetime | None:
    """From when an attempt is charged; none: it never began, and costs nothing."""
    return begun_of([each.claimed_at for each in members], members[0].nodes)


def begun_of(claims: Iterable[datetime | None], nodes: int) -> datetime | None:
    """The same of the claims that there are."""
    made = [claim for claim in claims if claim is not None]
    return max(made) if len(made) == nodes else None


def span(members: Sequence[Member], member: Member) -> tuple[datetime, datetime] | None:
    """From when until when a member of an attempt is to be charged, as far as is proven by now."""
    since = begun(members)
    if since is None:
        return None
    until = member.released_at or used_until(member)
    return (since, max(since, until)) if until is not None else None
