"""The learning rate of each step: a function of the step alone, so there is no state to save."""

import math
from collections.abc import Callable

from st_shared.spec.optimizer import ScheduleSpec


def learning_rate(peak: float, schedule: ScheduleSpec, step: int, steps: int) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``steps``.

    It rises in a line over the warm-up, then follows the shape of ``schedule`` from the peak to
    ``schedule.end`` times the peak, which it would reach just after the last step.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    share = SHAPES[schedule.name](done, schedule)
    if not schedule.end:
        return peak * share
    return peak * (schedule.end + (1 - schedule.end) * share)


def _cosine(done: float, _schedule: ScheduleSpec) -> float:
    """Half a cosine; Loshchilov & Hutter 2017, equation 5."""
    return (1 + math.cos(math.pi * done)) / 2


def _cosine_with_restarts(done: float, schedule: ScheduleSpec) -> float:
    """Half a cosine in each of ``cycles`` rounds."""
    return (1 + math.cos(math.pi * (done * schedule.cycles % 1))) / 2


def _sine(done: float, schedule: ScheduleSpec) -> float:
    """``cycles`` waves that begin and end at the peak."""
    return (1 + math.cos(2 * math.pi * done * schedule.cycles)) / 2


SHAPES: dict[str, Callable[[float, ScheduleSpec], float]] = {
    "constant": lambda _done, _schedule: 1.0,
    "linear": lambda done, _schedule: 1 - done,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": lambda done, schedule: (1 - done) ** schedule.power,
    "sine": _sine,
}
"""Share of the peak after the warm-up; the first argument runs from 0 to 1."""
