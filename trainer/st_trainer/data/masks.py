"""Masks: grey pictures beside samples that say how much each place counts in the loss."""

from typing import Literal

import torch
from torch import Tensor

from st_trainer.data.buckets import CENTRE, Centring, Size
from st_trainer.data.content import Content
from st_trainer.data.images import read_image
from st_trainer.data.medium import DamagedSampleError, Medium, Shape, UnreadableSampleError
from st_trainer.errors import BadDataError

_BLACK = 8
"""Up to here a colour is black: files that lose something have no pure one."""


def check_mask(mask: Content, medium: Medium, shape: Shape, centring: Centring = CENTRE) -> None:
    """Find out whether ``mask`` can be read to a sample of ``shape``.

    Raises:
        UnreadableSampleError: it is missing or damaged, or the sample has no places.
    """
    try:
        read_image(mask, [medium.area(shape)], 1, centring)
    except FileNotFoundError:
        raise UnreadableSampleError(f"no mask: {mask.name} is missing") from None
    except DamagedSampleError as error:  # the sample itself is not
        raise UnreadableSampleError(f"{mask.name}: {error}") from None


def read_mask(
    mask: Content | None,
    size: Size,
    centring: Centring = CENTRE,
    kind: Literal["grey", "segmentation"] = "grey",
) -> Tensor:
    """The mask ``(1, H, W)`` of ``size``, 0 to 1; 1 everywhere without one.

    Raises:
        BadDataError: it was fine when the samples were read, and is not any more.
    """
    if mask is None:
        return torch.ones(1, *size)
    try:
        if kind == "segmentation":
            colours = torch.tensor(read_image(mask, [size], 3, centring).pixels)
            return colours.amax(dim=0, keepdim=True).gt(_BLACK).float()
        return torch.tensor(read_image(mask, [size], 1, centring).pixels) / 255
    except (UnreadableSampleError, OSError) as error:
        raise BadDataError(f"{mask.name} changed during the run: {error}") from None
