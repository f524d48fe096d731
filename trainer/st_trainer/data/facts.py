"""What is known of a sample beside its pixels and its caption."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class SampleFacts:
    """How the pixels of a sample came out of its file."""

    original_size: tuple[int, int]
    """Height and width of the picture in the file, upright, pixels."""
    crop: tuple[int, int]
    """Rows above and columns left of the cut, pixels of the picture once it was resized."""
    size: tuple[int, int]
    """Height and width of what the model sees, pixels."""

    @classmethod
    def whole(cls, height: int, width: int) -> Self:
        """Those of a picture that was neither resized nor cut: what samples are drawn with."""
        return cls((height, width), (0, 0), (height, width))

    @classmethod
    def fitted(cls, original: tuple[int, int], size: tuple[int, int]) -> Self:
        """Those of a picture of ``original`` size that was made to cover ``size``, and centred."""
        scale = max(new / old for new, old in zip(size, original, strict=True))
        top, left = (
            round((old * scale - new) / 2) for old, new in zip(original, size, strict=True)
        )
        return cls(original, (top, left), size)
