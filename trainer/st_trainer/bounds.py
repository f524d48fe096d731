"""Bounds that a machine sets, beside those of a specification."""

from collections.abc import Mapping
from math import isfinite

from st_trainer.errors import BadSpecError


def bound_of(environment: Mapping[str, str], variable: str, wanted: float) -> float:
    """``wanted``, or what ``variable`` says where that is less.

    Raises:
        BadSpecError: the variable holds no positive number.
    """
    given = environment.get(variable)
    if not given:
        return wanted
    try:
        bound = float(given)
    except ValueError:
        bound = 0.0
    if not (isfinite(bound) and bound > 0):
        raise BadSpecError(f"{variable}: {given!r} is no size: give it in GB, such as 100")
    return min(bound, wanted)
