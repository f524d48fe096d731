"""What attempts used, day by day."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from st_controller.domain import use
from st_controller.domain.policy.estimates import Amounts, of_time
from st_controller.domain.policy.periods import cuts
from st_controller.store.schema import Attempt


class Used(NamedTuple):
    """What was used from a moment on, until the day ended at most."""

    since: datetime
    amounts: Amounts


def used_since(attempts: Sequence[Attempt], zone: tzinfo) -> list[Used]:
    """What members of attempts used since it was written down last, day by day."""
    found = []
    by_number: dict[tuple[str, int], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_number[attempt.job_id, attempt.number].append(attempt)
    for members in by_number.values():
        for member in members:
            if not member.booked and (had := use.span(members, member)) is not None:
                found += _used(member, *had, zone)
    return found


def _used(member: Attempt, begun: datetime, until: datetime, zone: tzinfo) -> list[Used]:
    slots = len(member.slots)
    return [
        Used(
            start,
            of_time(member.rate, slots, end - begun) - of_time(member.rate, slots, start - begun),
        )
        for start, end in cuts(max(begun, member.booked_until or begun), until, zone, UTC)
    ]
