"""Boxes that a cut keeps, such as those of faces: told by files beside samples, or a column."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

from st_trainer.data.buckets import Centring, Size
from st_trainer.data.content import Content
from st_trainer.data.medium import UnreadableSampleError

MAX_BOX_BYTES = 1 << 16
_FORM = "a box is [left, top, right, bottom], pixels or shares of the picture, or a list of such"


@dataclass(frozen=True)
class Box:
    """What a cut is to keep: pixels of the upright picture, or, where all are up to 1, shares."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, boxes: Sequence[Sequence[float]]) -> Self:
        """The smallest box around ``boxes``."""
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return cls(min(lefts), min(tops), max(rights), max(bottoms))

    def centring(self, original: Size, size: Size) -> Centring:
        """Where a picture of ``original`` size is cut to ``size`` so that the box is in the middle.

        As near as the picture's edges allow: so all of the box is kept if it fits, else its middle.
        """
        scale = max(new / old for new, old in zip(size, original, strict=True))
        is_share = max(self.right, self.bottom) <= 1
        height, width = original if is_share else (1, 1)
        rows = (self.top + self.bottom) / 2 * height * scale
        columns = (self.left + self.right) / 2 * width * scale
        top, left = (
            _share(middle - new / 2, old * scale - new)
            for middle, new, old in zip((rows, columns), size, original, strict=True)
        )
        return top, left


def _share(start: float, excess: float) -> float:
    """The share of ``excess`` pixels that is cut off before whole pixel ``start``."""
    whole = min(max(round(start), 0), round(excess))
    return min(whole / excess, 1.0) if excess >= 1 else 0.5


def box_beside(content: Content) -> Box | None:
    """The box in a JSON file; none where there is no such file, or nothing in it.

    Raises:
        UnreadableSampleError: it holds something else.
    """
    try:
        text = content.read_text(MAX_BOX_BYTES)
    except FileNotFoundError:
        return None
    return box_in(text, content.name)


def box_in(value: Any, place: str) -> Box | None:
    """The box that ``value`` is, or the JSON in it; ``place`` says where it stands.

    Raises:
        UnreadableSampleError: it is something else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None  # an empty cell
        except (ValueError, RecursionError):
            raise UnreadableSampleError(f"{place} is no JSON: {_FORM}") from None
    if isinstance(value, Mapping):
        value = value.get("bbox")
    if value is None or value == []:
        return None
    boxes = [value] if _is_box(value) else value
    if not isinstance(boxes, Sequence) or not all(map(_is_box, boxes)):
        raise UnreadableSampleError(f"{place} holds no box: {_FORM}")
    return Box.around(boxes)


def _is_box(value: Any) -> bool:
    """Four numbers, of which the latter two lie behind the former."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        return False
    if not all(isinstance(each, int | float) and isfinite(each) for each in value):
        return False
    left, top, right, bottom = value
    return bool(0 <= left < right and 0 <= top < bottom)
