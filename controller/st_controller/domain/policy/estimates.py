"""What a job is expected to cost before it runs. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from st_controller.domain.policy import money
from st_controller.domain.policy.prices import PriceList
from st_controller.domain.policy.quotas import Meter
from st_shared.spec.job import JobSpec

MARGIN = timedelta(seconds=60)
"""A hold is renewed while it still pays for so long: that is for the last checkpoint."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Money and time of slots: held, used or asked for."""

    micros: int = 0
    slot_ms: int = 0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(self.micros + other.micros, self.slot_ms + other.slot_ms)

    def __sub__(self, other: "Amounts") -> "Amounts":
        return Amounts(self.micros - other.micros, self.slot_ms - other.slot_ms)

    def __bool__(self) -> bool:
        return bool(self.micros or self.slot_ms)

    def of(self, meter: Meter) -> int:
        """The part that a meter counts."""
        if meter is Meter.COST:
            return self.micros
        return self.slot_ms if meter is Meter.SLOT_TIME else 0

    def at_least_nothing(self) -> "Amounts":
        """The same, no part of it below zero."""
        return Amounts(max(0, self.micros), max(0, self.slot_ms))

    def up_to(self, other: "Amounts") -> "Amounts":
        """The lesser of each part."""
        return Amounts(min(self.micros, other.micros), min(self.slot_ms, other.slot_ms))

    def most(self, other: "Amounts") -> "Amounts":
        """The greater of each part."""
        return Amounts(max(self.micros, other.micros), max(self.slot_ms, other.slot_ms))


NOTHING = Amounts()


class Asked(NamedTuple):
    """What a job asks for, as far as it decides what it costs."""

    slots: int
    """On all its nodes together."""
    accelerator: str
    provider: str
    limit: float
    """Its time limit, seconds."""
    expected: float | None
    """The duration that it declares, seconds."""

    @classmethod
    def by(cls, spec: JobSpec) -> "Asked":
        """The same of a job file."""
        wanted = spec.resources
        return cls(
            wanted.slots * wanted.nodes,
            wanted.accelerator,
            wanted.provider,
            spec.time_limit,
            spec.expected_seconds,
        )


def estimate(asked: Asked, prices: PriceList, learned: float | None) -> Amounts:
    """What a job will use in all.

    Its duration is the one that it declares, else what such jobs took before (``learned``,
    seconds), else its time limit, and never more than that; each slot costs what the dearest does
    that it may get.
    """
    return of_slots(asked, prices, min(asked.expected or learned or asked.limit, asked.limit))


def to_hold(asked: Asked, prices: PriceList, estimated: Amounts) -> Amounts:
    """What is held for a job: what it is estimated to use, and enough to be stopped in any case."""
    return estimated.most(of_slots(asked, prices, MARGIN.total_seconds()))


def of_slots(asked: Asked, prices: PriceList, seconds: float) -> Amounts:
    """What the slots of a job use in a time, each as dear as the dearest that it may get."""
    rate = asked.slots * prices.dearest(asked.accelerator, asked.provider)
    return of_time(rate, asked.slots, timedelta(seconds=seconds))


def of_time(rate: int, slots: int, elapsed: timedelta) -> Amounts:
    """What so many slots use in a time at ``rate`` micro-units an hour, all of them together."""
    return Amounts(money.cost(rate, elapsed), money.slot_milliseconds(slots, elapsed))
