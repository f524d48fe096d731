"""Masks: grey pictures beside samples that say how much each place counts in the loss."""

from pathlib import Path

import torch
from torch import Tensor

from st_trainer.data.images import read_image
from st_trainer.data.medium import Medium, UnreadableSampleError
from st_trainer.errors import BadDataError


def find_mask(path: Path, suffix: str | None, medium: Medium) -> Path | None:
    """The mask beside the sample at ``path``; None where the dataset has none.

    Raises:
        UnreadableSampleError: it is missing or damaged, or the sample has no places.
    """
    if suffix is None:
        return None
    mask = path.with_name(path.stem + suffix)
    if not mask.exists():
        raise UnreadableSampleError(f"no mask: {mask.name} is missing")
    read_image(mask, medium.area, 1)
    return mask


def read_mask(path: Path | None, area: tuple[int, int]) -> Tensor:
    """The mask ``(1, H, W)`` of height and width ``area``, 0 to 1; 1 everywhere without one.

    Raises:
        BadDataError: it was fine when the samples were read, and is not any more.
    """
    if path is None:
        return torch.ones(1, *area)
    try:
        return torch.tensor(read_image(path, area, 1).pixels) / 255
    except UnreadableSampleError as error:
        raise BadDataError(f"{path.name} changed during the run: {error}") from None
