"""Reads one image file into pixels of the wanted size, and refuses what is dangerous."""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from st_shared.media import SUFFIXES
from st_trainer.data.buckets import CENTRE, Centring, Size, centring_by, nearest
from st_trainer.data.content import Content
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import (
    DamagedSampleError,
    Medium,
    ReadSample,
    Shape,
    UnreadableSampleError,
)

MAX_PIXELS = 64_000_000
"""Largest image that is decoded; what claims to be larger is taken for a decompression bomb."""

warnings.simplefilter("error", Image.DecompressionBombWarning)  # in every thread that reads

_FORMATS = ("PNG", "JPEG", "WEBP")
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error)
"""What Pillow raises at a damaged file, as its own ``Image.open`` has it."""
_LOSSLESS_MODES = {1: {"L", "1"}, 3: {"RGB"}}


@dataclass(frozen=True)
class ReadImage:
    """An image as the model wants it."""

    pixels: NDArray[np.uint8]
    """``(C, H, W)``, 0 to 255."""
    changes: tuple[str, ...]
    """What was done to make it fit, such as ``resized from 16x16``."""
    facts: SampleFacts


@dataclass(frozen=True)
class Images(Medium):
    """Pictures of ``height`` and ``width`` pixels, in grey (1 channel) or RGB (3).

    With ``buckets`` each gets the one of these sizes whose aspect is nearest to its own.
    """

    kind = "image"
    noun = "image"
    formats = "PNG, JPEG or WebP image"

    channels: int
    height: int
    width: int
    buckets: tuple[Size, ...] = ()
    crop: Literal["center", "corner", "random"] = "center"
    references: tuple[Size, ...] = ()
    """Sizes of pictures beside them that keep their own aspect; none: they are cut alike."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Those of pictures."""
        return SUFFIXES["image"]

    def area(self, shape: Shape) -> Size:
        """Height and width of a picture of ``shape``."""
        return shape[-2], shape[-1]

    def sizes_beside(self, shape: Shape, *, strict: bool) -> Sequence[Size]:
        """Those of ``references``, unless the picture is to be cut as its sample is."""
        return (self.area(shape),) if strict or not self.references else self.references

    def centring(self, name: str) -> Centring:
        """As ``crop`` says."""
        return centring_by(self.crop, name)

    def read(self, content: Content) -> ReadSample:
        """The picture, ``(C, H, W)`` bytes."""
        sizes = self.buckets or [(self.height, self.width)]
        image = read_image(content, sizes, self.channels, self.centring(content.name))
        identity = image.pixels.tobytes() + repr(image.facts).encode()
        return ReadSample(image.pixels, identity, image.changes, image.facts)


def read_image(
    content: Content, sizes: Sequence[Size], channels: int, centring: Centring = CENTRE
) -> ReadImage:
    """An image, upright, scaled and cropped, usually about its centre.

    Its size is the one of ``sizes`` whose aspect is nearest.

    Raises:
        UnreadableSampleError: it is no PNG, JPEG or WebP, is damaged, or is too large.
        OSError: it cannot be opened.
    """
    with content.open() as file:
        return _decoded(file, sizes, channels, centring)


def _decoded(file: BinaryIO, sizes: Sequence[Size], channels: int, centring: Centring) -> ReadImage:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _check_pixels(image)
            return _fit(ImageOps.exif_transpose(image), sizes, channels, centring)
    except UnidentifiedImageError:
        raise DamagedSampleError("not a PNG, JPEG or WebP image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableSampleError(f"more than {MAX_PIXELS:,} pixels") from None
    except _DAMAGED as error:
        raise DamagedSampleError(f"damaged image: {error}") from None


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _fit(image: Image.Image, sizes: Sequence[Size], channels: int, centring: Centring) -> ReadImage:
    changes = []
    if image.mode not in _LOSSLESS_MODES[channels]:
        changes.append(f"converted from {image.mode} to {'grey' if channels == 1 else 'RGB'}")
    flat = _flattened(image, "L" if channels == 1 else "RGB")
    height, width = nearest(sizes, flat.height, flat.width)
    facts = SampleFacts.fitted((flat.height, flat.width), (height, width), centring)
    if flat.size != (width, height):
        changes.append(f"resized from {flat.width}x{flat.height}")
        where = (centring[1], centring[0])
        flat = ImageOps.fit(flat, (width, height), Image.Resampling.LANCZOS, centering=where)
    pixels = np.asarray(flat, dtype=np.uint8).reshape(height, width, channels)
    return ReadImage(np.ascontiguousarray(pixels.transpose(2, 0, 1)), tuple(changes), facts)


def _flattened(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in ``mode``; transparency is laid on white, 16-bit grey is scaled to 8."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.uint32).clip(0, 65_535) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    if image.has_transparency_data:
        upright = image.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        image = Image.alpha_composite(white, upright)
    return image.convert(mode)
