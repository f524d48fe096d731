"""Masks: grey pictures beside images that say how much each place counts in the loss."""

from pathlib import Path

import torch
from torch import Tensor

from st_trainer.data.buckets import Size
from st_trainer.data.images import UnreadableSampleError, read_image
from st_trainer.errors import BadDataError


def find_mask(path: Path, suffix: str | None, size: Size) -> Path | None:
    """The mask beside the image at ``path``; None where the dataset has none.

    Raises:
        UnreadableSampleError: it is missing or damaged.
    """
    if suffix is None:
        return None
    mask = path.with_name(path.stem + suffix)
    if not mask.exists():
        raise UnreadableSampleError(f"no mask: {mask.name} is missing")
    read_image(mask, [size], 1)
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
