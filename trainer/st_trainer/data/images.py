"""Reads one image file into pixels of the wanted size, and refuses what is dangerous."""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from st_shared.media import SUFFIXES
from st_trainer.data.boxes import Box
from st_trainer.data.buckets import CENTRE, Centring, Crop, Size, centring_by, nearest
from st_trainer.data.content import Content
from st_trainer.data.digests import content_digest
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import (
    DamagedSampleError,
    FoundSample,
    Medium,
    ReadSample,
    Shape,
    UnreadableSampleError,
)
from st_trainer.data.picture_header import picture_header
from st_trainer.data.ranged_file import FIRST_BYTES, Remote

MAX_PIXELS = 64_000_000
"""Largest image that is decoded; what claims to be larger is taken for a decompression bomb."""

warnings.simplefilter("error", Image.DecompressionBombWarning)  # in every thread that reads

_FORMATS = ("PNG", "JPEG", "WEBP")
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error)
"""What Pillow raises at a damaged file, as its own ``Image.open`` has it."""
_WAY = (1, PIL.__version__)
"""How pixels come out of a file: what is kept of an image is another once this is."""
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
    crop: Crop = "center"
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

    def centring(self, name: str, facts: SampleFacts) -> Centring:
        """As ``crop`` says."""
        return facts.centring if self.crop == "face" else centring_by(self.crop, name)

    def read(self, content: Content) -> ReadSample:
        """The picture, ``(C, H, W)`` bytes."""
        sizes = self.buckets or [(self.height, self.width)]
        place = place_of(self.crop, content)
        image = read_image(content, sizes, self.channels, place)
        identity = image.pixels.tobytes() + repr(image.facts).encode()
        changes = image.changes + told_of(self.crop, place)
        return ReadSample(image.pixels, identity, changes, image.facts)

    def found(self, content: Content) -> FoundSample:
        """The header of a large remote picture, which tells all but its pixels."""
        remote = content.remote()
        if remote is None:
            return super().found(content)
        sizes = self.buckets or [(self.height, self.width)]
        place = place_of(self.crop, content)
        image = found_image(remote, sizes, self.channels, place)
        return replace(image, changes=image.changes + told_of(self.crop, place))


Place = Centring | Box
"""Where a picture is cut, or what is kept of it."""


def place_of(crop: Crop, content: Content) -> Place:
    """As ``crop`` says of the picture in a file; about its centre where it has no box to keep.

    Raises:
        UnreadableSampleError: what should be a box is none.
    """
    box = content.box() if crop == "face" else None
    return box or centring_by(crop, content.name)


def told_of(crop: Crop, place: Place) -> tuple[str, ...]:
    """What is told of a picture that has no box."""
    is_lacking = crop == "face" and not isinstance(place, Box)
    return ("centred, as it has no box",) if is_lacking else ()


def centring_at(place: Place, original: Size, size: Size) -> Centring:
    """Where a picture of ``original`` size is cut to ``size``."""
    return place.centring(original, size) if isinstance(place, Box) else place


def read_image(
    content: Content, sizes: Sequence[Size], channels: int, place: Place = CENTRE
) -> ReadImage:
    """An image, upright, scaled and cropped, usually about its centre.

    Its size is the one of ``sizes`` whose aspect is nearest.

    Raises:
        UnreadableSampleError: it is no PNG, JPEG or WebP, is damaged, or is too large.
        OSError: it cannot be opened.
    """
    with content.open() as file:
        return _decoded(file, sizes, channels, place)


def found_image(
    remote: Remote, sizes: Sequence[Size], channels: int, place: Place = CENTRE
) -> FoundSample:
    """What ``read_image`` would say of a remote image, out of its header.

    In place of the pixels, which nobody has seen, stand the version of the object, its first bytes,
    all that decides what becomes of them, and the library that will decode them.

    Raises:
        UnreadableSampleError: it is no PNG, JPEG or WebP, is too large, or its header is damaged.
        OSError: it cannot be read.
    """
    with remote.opened() as file, _refusals():
        beginning = file.read(FIRST_BYTES)
        file.seek(0)
        header = picture_header(file, _FORMATS)
        _check_pixels(header.width, header.height)
    size = nearest(sizes, header.height, header.width)
    centring = centring_at(place, (header.height, header.width), size)
    facts = SampleFacts.fitted((header.height, header.width), size, centring)
    changes = _changes(header.mode, (header.height, header.width), size, channels)
    identity = content_digest(remote.version, beginning)
    decided = repr((channels, centring, facts, _WAY)).encode()
    return FoundSample(
        (channels, *size),
        channels * size[0] * size[1],
        identity + repr(facts).encode(),
        content_digest(b"header", identity, decided),
        changes,
        facts,
    )


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what Pillow raises into what is told of a sample."""
    try:
        yield
    except UnidentifiedImageError:
        raise DamagedSampleError("not a PNG, JPEG or WebP image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableSampleError(f"more than {MAX_PIXELS:,} pixels") from None
    except _DAMAGED as error:
        raise DamagedSampleError(f"damaged image: {error}") from None


def _decoded(file: BinaryIO, sizes: Sequence[Size], channels: int, place: Place) -> ReadImage:
    with _refusals(), Image.open(file, formats=_FORMATS) as image:
        _check_pixels(image.width, image.height)
        return _fit(ImageOps.exif_transpose(image), sizes, channels, place)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _changes(mode: str, original: Size, size: Size, channels: int) -> tuple[str, ...]:
    """What is done to an image of ``mode`` so that it fits."""
    changes = []
    if mode not in _LOSSLESS_MODES[channels]:
        changes.append(f"converted from {mode} to {'grey' if channels == 1 else 'RGB'}")
    if original != size:
        changes.append(f"resized from {original[1]}x{original[0]}")
    return tuple(changes)


def _fit(image: Image.Image, sizes: Sequence[Size], channels: int, place: Place) -> ReadImage:
    flat = _flattened(image, "L" if channels == 1 else "RGB")
    height, width = nearest(sizes, flat.height, flat.width)
    original = flat.height, flat.width
    centring = centring_at(place, original, (height, width))
    facts = SampleFacts.fitted(original, (height, width), centring)
    changes = _changes(image.mode, original, (height, width), channels)
    if flat.size != (width, height):
        where = (centring[1], centring[0])
        flat = ImageOps.fit(flat, (width, height), Image.Resampling.LANCZOS, centering=where)
    pixels = np.asarray(flat, dtype=np.uint8).reshape(height, width, channels)
    return ReadImage(np.ascontiguousarray(pixels.transpose(2, 0, 1)), changes, facts)


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
