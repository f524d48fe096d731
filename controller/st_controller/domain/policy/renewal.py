"""Whether a running job may go on: its hold is renewed before it is used up. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from st_controller.domain.policy.estimates import MARGIN, NOTHING, Amounts, of_time
from st_controller.domain.policy.quotas import HELD, Counter, Meter, Place

STRIDE = timedelta(minutes=10)
"""How much time a renewal is for; less where less is left."""


@dataclass(frozen=True, slots=True)
class Running:
    """A job that holds slots."""

    held: Amounts
    """What is left of its hold, below zero where it has used more."""
    rate: int
    """Micro-units that all its slots cost in an hour."""
    slots: int
    bypasses: bool = False
    """Whether ceilings do not hold it."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is to become of its hold."""

    more: Amounts = NOTHING
    """To be held in addition."""
    exhausted: Place | None = None
    """The counter that has nothing left for it: it must stop."""


def renew(job: Running, places: Sequence[Place], counters: Mapping[Place, Counter]) -> Renewal:
    """Decide for one job, with the counters as they stand; a counter of ``places`` may be missing.

    Only meters that some of the places count are looked at.
    """
    meters = {place.meter for place in places} & HELD
    margin = of_time(job.rate, job.slots, MARGIN)
    wanted = of_time(job.rate, job.slots, MARGIN + STRIDE)
    more = NOTHING
    for meter in sorted(meters):
        left = job.held.of(meter)
        if left >= margin.of(meter):
            continue
        least, most = margin.of(meter) - left, wanted.of(meter) - left
        room, narrowest = most, None
        for place in () if job.bypasses else places:
            ceiling = place.ceiling
            if place.meter is not meter or ceiling is None or place not in counters:
                continue
            free = ceiling.amount - counters[place].total
            if free < room:
                room, narrowest = free, place
        if room < least:
            return Renewal(exhausted=narrowest)
        more += _amounts(meter, room)
    return Renewal(more)


def _amounts(meter: Meter, value: int) -> Amounts:
    return Amounts(micros=value) if meter is Meter.COST else Amounts(slot_ms=value)
