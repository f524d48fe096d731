"""BucketSpec: the sizes and lengths among which samples are divided; a batch never mixes them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.families import Family
from st_shared.spec.section import Section

SIZES = ("measure", "megapixels", "step", "aspects", "crop")
"""Keys that are for pictures and videos."""
LENGTHS = ("frames", "seconds", "part")
"""Keys that are for videos or sounds."""


class BucketSpec(Section):
    """How samples of other aspects and lengths are read."""

    enabled: bool = Field(
        True,
        description="Read each picture or video at the nearest of several aspects; a batch never "
        "mixes them. Off: cut to the size of `model.config`.",
    )
    measure: Literal["pixel_area", "pixel", "area"] = Field(
        "pixel_area",
        description="What the sizes have in common: pixel_area: about the area of `resolution` "
        "squared; pixel: the shorter side, `resolution`; area: about `megapixels`.",
    )
    megapixels: float | None = Field(
        None, gt=0, le=64, description="Area of every size, 1,000,000 pixels; for measure area."
    )
    max_aspect: float = Field(
        2.0, ge=1, le=4, description="Longer side over shorter; what is longer is cut to it."
    )
    step: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Pixels between the sides of two buckets, a multiple of what the family "
        "needs; none: a sixteenth of `resolution`.",
    )
    aspects: list[float] = Field(
        default_factory=list,
        max_length=64,
        description="Width over height of the buckets: of all sizes only the nearest to one of "
        "these; none: all.",
    )
    crop: Literal["center", "corner", "random", "face"] = Field(
        "center",
        description="What is kept of a sample of another aspect; corner: top and left; random: a "
        "place that follows from the name of its file, always the same; face: the box that a "
        "dataset tells, with `box_suffix` or `columns.box`.",
    )
    frames: Literal["fixed", "shorter"] = Field(
        "fixed",
        description="Videos with fewer frames than `config.frames`: fixed leaves them out, shorter "
        "cuts them to the most frames that the family can take.",
    )
    seconds: float | None = Field(
        None,
        gt=0,
        le=600,
        description="Sounds shorter than `config.seconds` are cut to a multiple of so many; none: "
        "they are left out.",
    )
    part: Literal["beginning", "end", "random"] = Field(
        "beginning",
        description="What is kept of a sound that is longer; random: a place that follows from "
        "the name of its file, always the same.",
    )

    def unused(self, family: Family) -> list[str]:
        """Keys that differ from their default, but mean nothing for ``family``."""
        usual = BucketSpec()
        meant = {
            **dict.fromkeys(SIZES, family.alignment is not None),
            "frames": family.frame_step is not None,
            "seconds": family.any_length,
            "part": family.media == "audio",
        }
        return [
            name
            for name, is_meant in meant.items()
            if not is_meant and getattr(self, name) != getattr(usual, name)
        ]

    @model_validator(mode="after")
    def _area_goes_with_megapixels(self) -> Self:
        if (self.measure == "area") != (self.megapixels is not None):
            raise ValueError("give megapixels with measure area, and only with it")
        if any(not 0.1 <= aspect <= 10 for aspect in self.aspects):
            raise ValueError("aspects are width over height, from 0.1 to 10")
        return self
