"""The learning rate of each step: a function of the step alone, so there is no state to save."""

import math

from st_shared.spec.training import ScheduleSpec


def learning_rate(peak: float, schedule: ScheduleSpec, step: int, steps: int) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``steps``.

    It rises in a line over the warm-up, then stays, falls in a line, or falls along half a cosine
    (Loshchilov & Hutter 2017, equation 5) that would reach 0 just after the last step.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    if schedule.name == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * (1 - done) if schedule.name == "linear" else peak
