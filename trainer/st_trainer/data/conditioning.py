"""Conditioning pictures, each with its sample: edges, depth, poses, or what is to be edited.

A ControlNet's is as large as its sample. A model that edits has *references*. A strict one shows
the same place as its sample and is cut as it is. A loose one keeps its own aspect: it gets the
nearest of sizes of its own, and that size is part of its sample's bucket, so that a batch can stack
samples and references alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_trainer.data.buckets import CENTRE, Centring, Size
from st_trainer.data.content import Content
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import found_image, read_image
from st_trainer.data.medium import DamagedSampleError, UnreadableSampleError
from st_trainer.errors import BadDataError, DamagedLaterError


@dataclass(frozen=True)
class FoundPicture:
    """What an index keeps of a conditioning picture."""

    facts: SampleFacts
    identity: bytes
    """Its bytes; of a large remote one, of which only the header was read, what stands for them."""


def check_conditioning(
    picture: Content, sizes: Sequence[Size], centring: Centring = CENTRE
) -> FoundPicture:
    """Find out whether ``picture`` can be read, from what size, and which of ``sizes`` it gets.

    Raises:
        UnreadableSampleError: it is missing or damaged.
    """
    try:
        if remote := picture.remote():
            found = found_image(remote, sizes, 3, centring)
            return FoundPicture(found.facts, found.identity)
        facts = read_image(picture, sizes, 3, centring).facts
        return FoundPicture(facts, picture.read_bytes())
    except FileNotFoundError:
        raise UnreadableSampleError(f"no conditioning picture: {picture.name} is missing") from None
    except DamagedSampleError as error:  # the sample itself is not
        raise UnreadableSampleError(f"conditioning picture {picture.name}: {error}") from None


def check_same_aspect(picture: SampleFacts, sample: SampleFacts) -> None:
    """Find out whether both show the same part of the same scene, once they are cut.

    Raises:
        UnreadableSampleError: their aspects differ by more than a pixel's rounding.
    """
    (height, width), (ours, across) = picture.original_size, sample.original_size[-2:]
    if abs(height / width - ours / across) * across > 1 + ours / width:
        raise UnreadableSampleError(
            f"the conditioning picture has {width}x{height}, which is not the aspect of "
            f"{across}x{ours}"
        )


def size_read(picture: Content, sizes: Sequence[Size]) -> Size:
    """The one of ``sizes`` that ``picture`` gets.

    Raises:
        BadDataError: it cannot be read.
    """
    try:
        height, width = read_image(picture, sizes, 3).facts.size
    except (UnreadableSampleError, OSError) as error:
        raise BadDataError(f"{picture.name} cannot be read: {error}") from None
    return height, width


def read_conditioning(picture: Content | None, size: Size, centring: Centring = CENTRE) -> Tensor:
    """``picture``, cut to ``size`` as samples are, ``(3, H, W)``, 0 to 1.

    Raises:
        DamagedLaterError: it is damaged behind its header.
        BadDataError: there is none, or it cannot be read.
    """
    if picture is None:
        raise BadDataError("training.datasets: a sample has no conditioning picture")
    try:
        return torch.from_numpy(read_image(picture, [size], 3, centring).pixels).float() / 255
    except DamagedSampleError as error:
        if picture.remote():
            raise DamagedLaterError(picture.name, str(error)) from None
        raise BadDataError(f"{picture.name} cannot be read: {error}") from None
    except (UnreadableSampleError, OSError) as error:
        raise BadDataError(f"{picture.name} cannot be read: {error}") from None
