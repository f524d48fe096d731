"""Families whose videos go on from a picture: what they are told of it.

The picture is the first frame of a sample, or one that a dataset gives beside it. Two encoders see
it, each with a cache of its own: an image encoder, and the autoencoder.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from st_trainer.families.family import Assets, Condition, Denoiser, Encoding, FamilyCode

IMAGE = "image"
"""Name in a condition: what the image encoder makes of the picture, ``(B, T, D)``."""
FIRST_FRAME = "first_frame"
"""The same: latents ``(B, C, F, h, w)`` of a video of the picture and grey frames after it."""


class Beginning(NamedTuple):
    """What videos of one size and length begin with."""

    pictures: Tensor
    """``(B, 3, H, W)``, 0 to 1."""
    frames: int
    """Frames of each video."""


class FromPicture(ABC):
    """What such a family answers beside what all do."""

    image_parts: ClassVar[tuple[str, ...]] = ("image_encoder", "image_processor")
    """Parts of the model on which the answer of the image encoder depends."""

    @abstractmethod
    def embedded(self, assets: Assets, pictures: Tensor) -> Encoding:
        """What the image encoder makes of pictures ``(B, 3, H, W)``, 0 to 1."""

    @abstractmethod
    def begun(self, assets: Assets, beginning: Beginning) -> Encoding:
        """What the autoencoder makes of videos that show the picture, and then nothing."""

    @abstractmethod
    def begins(self, assets: Assets, image: Encoding, first_frame: Encoding) -> Condition:
        """Both as the model is told of them, by the names ``IMAGE`` and ``FIRST_FRAME``."""


def from_picture(family: FamilyCode[Any]) -> FromPicture:
    """``family``, which goes on from a picture; ``TypeError`` where it does not."""
    if not isinstance(family, FromPicture):
        raise TypeError(f"{family.name} goes on from no picture")
    return family


@torch.no_grad()
def told_of(denoiser: Denoiser, beginning: Beginning) -> Condition:
    """What the model of a family that goes on from pictures is told of them.

    Remembered where the model has what remembers, encoded now where it has not.
    """
    if denoiser.begun:
        return denoiser.begun(*beginning)
    family, assets = from_picture(denoiser.family), denoiser.assets
    image = family.embedded(assets, beginning.pictures)
    return family.begins(assets, image, family.begun(assets, beginning))
