"""What is known of a sample beside its values and its caption."""

from dataclasses import dataclass
from typing import Self

from st_trainer.data.buckets import CENTRE, Centring


@dataclass(frozen=True)
class SampleFacts:
    """How the values of a sample came out of its file.

    Sizes are height and width of a picture or of a video's frames, pixels; the length of a sound.
    """

    original_size: tuple[int, ...]
    """Size in the file; pictures upright."""
    crop: tuple[int, ...]
    """Rows above and columns left of the cut, of the picture once it was resized."""
    size: tuple[int, ...]
    """Size of what the model sees."""

    @property
    def centring(self) -> Centring:
        """That by which a picture was cut to the pixel that ``crop`` tells."""
        old, new = self.original_size, self.size
        scale = max(after / before for after, before in zip(new, old, strict=True))
        excess = [before * scale - after for after, before in zip(new, old, strict=True)]
        top, left = (
            min(cut / each, 1.0) if each >= 1 else 0.5
            for cut, each in zip(self.crop, excess, strict=True)
        )
        return top, left

    @classmethod
    def whole(cls, *size: int) -> Self:
        """Those of a sample that was neither resized nor cut: what samples are drawn with."""
        return cls(size, (0,) * len(size), size)

    @classmethod
    def fitted(
        cls, original: tuple[int, int], size: tuple[int, int], centring: Centring = CENTRE
    ) -> Self:
        """Those of a picture of ``original`` size that was made to cover ``size``, and cut."""
        scale = max(new / old for new, old in zip(size, original, strict=True))
        top, left = (
            round((old * scale - new) * share)
            for old, new, share in zip(original, size, centring, strict=True)
        )
        return cls(original, (top, left), size)
