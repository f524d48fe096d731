"""Lengths of time as people write them: ``90s``, ``45m``, ``6h``, ``2d``, ``1h30m``."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds_of(text: object) -> object:
    """Turn ``"1h30m"`` into ``5400.0``; numbers pass through as seconds.

    Raises:
        ValueError: the text is not a sequence of numbers, each followed by s, m, h or d.
    """
    if not isinstance(text, str):
        return text
    compact = text.replace(" ", "")
    if not _WHOLE.fullmatch(compact):
        raise ValueError('write a duration such as "90s", "45m", "6h", "2d" or "1h30m"')
    return sum(float(count) * _UNIT_SECONDS[unit] for count, unit in _PART.findall(compact))


Duration = Annotated[float, BeforeValidator(seconds_of), Field(gt=0, le=366 * 86_400)]
"""Seconds, greater than 0 and at most 366 days; ``"6h"`` and the like are read as well."""
