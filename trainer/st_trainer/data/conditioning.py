"""Conditioning pictures: edges, depth, poses, by the same name in a folder of their own."""

from pathlib import Path

import torch
from torch import Tensor

from st_trainer.data.buckets import Size
from st_trainer.data.images import read_image
from st_trainer.data.medium import Medium, Shape, UnreadableSampleError
from st_trainer.errors import BadDataError


def find_conditioning(name: str, folder: Path | None, medium: Medium, shape: Shape) -> Path | None:
    """The picture for the sample ``name`` of ``shape``; None where the dataset has no such.

    Raises:
        UnreadableSampleError: it is missing or damaged.
    """
    if folder is None:
        return None
    path = folder / name
    if not path.exists():
        raise UnreadableSampleError(f"no conditioning picture: {path} is missing")
    read_image(path, [medium.area(shape)], 3)
    return path


def read_conditioning(path: Path | None, size: Size) -> Tensor:
    """The picture at ``path``, cut to ``size`` as samples are, ``(3, H, W)``, 0 to 1.

    Raises:
        BadDataError: there is none, or it cannot be read.
    """
    if path is None:
        raise BadDataError("training.datasets: a sample has no conditioning picture")
    try:
        return torch.from_numpy(read_image(path, [size], 3).pixels).float() / 255
    except UnreadableSampleError as error:
        raise BadDataError(f"{path} cannot be read: {error}") from None
