"""Reads one image file into pixels of the wanted size, and refuses what is dangerous."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from st_trainer.data.facts import SampleFacts

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_PIXELS = 64_000_000
"""Largest image that is decoded; what claims to be larger is taken for a decompression bomb."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_LOSSLESS_MODES = {1: {"L", "1"}, 3: {"RGB"}}


class UnreadableSampleError(Exception):
    """The image or its caption cannot be used; the message says why."""


@dataclass(frozen=True)
class ReadImage:
    """An image as the model wants it."""

    pixels: NDArray[np.uint8]
    """``(C, H, W)``, 0 to 255."""
    changes: tuple[str, ...]
    """What was done to make it fit, such as ``resized from 16x16``."""
    facts: SampleFacts


def read_image(path: Path, size: int, channels: int) -> ReadImage:
    """The image at ``path``, upright, cropped to a centred square of ``size`` pixels.

    Raises:
        UnreadableSampleError: it is no PNG, JPEG or WebP, is damaged, or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _check_pixels(image)
                return _fit(ImageOps.exif_transpose(image), size, channels)
    except UnidentifiedImageError:
        raise UnreadableSampleError("not a PNG, JPEG or WebP image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableSampleError(f"more than {MAX_PIXELS:,} pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnreadableSampleError(f"damaged image: {error}") from None


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _fit(image: Image.Image, size: int, channels: int) -> ReadImage:
    changes = []
    if image.mode not in _LOSSLESS_MODES[channels]:
        changes.append(f"converted from {image.mode} to {'grey' if channels == 1 else 'RGB'}")
    flat = _flattened(image, "L" if channels == 1 else "RGB")
    facts = SampleFacts.fitted((flat.height, flat.width), (size, size))
    if flat.size != (size, size):
        changes.append(f"resized from {flat.width}x{flat.height}")
        flat = ImageOps.fit(flat, (size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(flat, dtype=np.uint8).reshape(size, size, channels)
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
