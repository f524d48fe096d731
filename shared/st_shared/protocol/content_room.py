"""How much room the datasets of a job need, and a worker has, in steps: few sizes to tell apart."""

from math import ceil, floor, frexp, ldexp

STEPS = 8
"""Steps a doubling."""
LEAST_GB = 1 / 16
"""What needs no more than that fits wherever a job does."""


def needed(gb: float) -> float:
    """GiB rounded up to a step; 0 for what is small."""
    if gb <= LEAST_GB:
        return 0.0
    part, power = frexp(gb)
    return ldexp(ceil(part * 2 * STEPS) / (2 * STEPS), power)


def had(gb: float) -> float:
    """GiB rounded down to a step."""
    part, power = frexp(gb)
    return ldexp(floor(part * 2 * STEPS) / (2 * STEPS), power)
