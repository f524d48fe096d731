"""Money as whole micro-units of the one currency of the system; never a float."""

from datetime import timedelta
from decimal import Decimal

MICROS = 1_000_000
"""Micro-units of one unit of the currency."""
LARGEST = 10**15
"""Micro-units; the most that any price or quota may say. Sums of many still fit 63 bits."""
_MICROSECOND = timedelta(microseconds=1)
_HOUR = timedelta(hours=1) // _MICROSECOND


def micros(amount: Decimal) -> int:
    """An amount as micro-units.

    Raises:
        ValueError: it is negative, too large, or finer than a micro-unit.
    """
    scaled = amount * MICROS
    if not amount.is_finite() or scaled != scaled.to_integral_value():
        raise ValueError("give a number with at most 6 decimals")
    if not 0 <= scaled <= LARGEST:
        raise ValueError(f"give a number from 0 to {LARGEST // MICROS}")
    return int(scaled)


def decimal(amount: int) -> Decimal:
    """Micro-units as an amount, without needless zeros."""
    found = (Decimal(amount) / MICROS).normalize()
    return found if int(found.as_tuple().exponent) <= 0 else found.quantize(Decimal(1))


def cost(rate: int, elapsed: timedelta) -> int:
    """Micro-units of some time at ``rate`` micro-units an hour, rounded down.

    What parts of a time cost is the difference of such values counted from its beginning, so that
    parts add up to the whole exactly.
    """
    return rate * (elapsed // _MICROSECOND) // _HOUR


def slot_milliseconds(slots: int, elapsed: timedelta) -> int:
    """Milliseconds of so many slots together, rounded down; parts add up likewise."""
    return slots * (elapsed // _MICROSECOND) // 1000
