"""Conditioning pictures, each with its sample: edges, depth, poses."""

import torch
from torch import Tensor

from st_trainer.data.buckets import Size
from st_trainer.data.content import Content
from st_trainer.data.images import read_image
from st_trainer.data.medium import Medium, Shape, UnreadableSampleError
from st_trainer.errors import BadDataError


def check_conditioning(picture: Content, medium: Medium, shape: Shape) -> None:
    """Find out whether ``picture`` can be read to a sample of ``shape``.

    Raises:
        UnreadableSampleError: it is missing or damaged.
    """
    try:
        read_image(picture, [medium.area(shape)], 3)
    except FileNotFoundError:
        raise UnreadableSampleError(f"no conditioning picture: {picture.name} is missing") from None


def read_conditioning(picture: Content | None, size: Size) -> Tensor:
    """``picture``, cut to ``size`` as samples are, ``(3, H, W)``, 0 to 1.

    Raises:
        BadDataError: there is none, or it cannot be read.
    """
    if picture is None:
        raise BadDataError("training.datasets: a sample has no conditioning picture")
    try:
        return torch.from_numpy(read_image(picture, [size], 3).pixels).float() / 255
    except (UnreadableSampleError, OSError) as error:
        raise BadDataError(f"{picture.name} cannot be read: {error}") from None
