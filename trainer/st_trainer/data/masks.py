"""Masks: grey pictures beside samples that say how much each place counts in the loss."""

from pathlib import Path

import torch
from torch import Tensor

from st_trainer.data.buckets import Size
from st_trainer.data.images import read_image
from st_trainer.data.medium import Medium, Shape, UnreadableSampleError
from st_trainer.errors import BadDataError


def find_mask(path: Path, suffix: str | None, medium: Medium, shape: Shape) -> Path | None:
    """The mask beside the sample at ``path``, read to ``shape``; None where there are no masks.

    Raises:
        UnreadableSampleError: it is missing or damaged, or the sample has no places.
    """
    if suffix is None:
        return None
    mask = path.with_name(path.stem + suffix)
    if not mask.exists():
        raise UnreadableSampleError(f"no mask: {mask.name} is missing")
    read_image(mask, [medium.area(shape)], 1)
    return mask


def read_mask(path: Path | None, size: Size) -> Tensor:
    """The mask ``(1, H, W)`` of ``size``, 0 to 1; 1 everywhere without one.

    Raises:
        BadDataError: it was fine when the samples were read, and is not any more.
    """
    if path is None:
        return torch.ones(1, *size)
    try:
        return torch.tensor(read_image(path, [size], 1).pixels) / 255
    except UnreadableSampleError as error:
        raise BadDataError(f"{path.name} changed during the run: {error}") from None
