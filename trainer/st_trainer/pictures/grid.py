"""Sample grids: pictures enlarged, with gaps between them and their captions below."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from st_trainer.pictures.ink import INK, MUTED, PAPER, RULE, font, wrapped

_GOAL = 128
"""A picture is enlarged by whole steps to about this many pixels."""

_GAP, _MARGIN, _TITLE, _CAPTION = 20, 24, 17, 14
_LINES = 3
_NARROWEST = 96
"""Captions get at least this width, however small the pictures are."""


def sample_grid(
    images: NDArray[np.uint8],
    captions: Sequence[str],
    *,
    title: str,
    columns: int | None = None,
    scale: int | None = None,
) -> Image.Image:
    """``images`` ``(B, C, H, W)``, row by row, each over its caption; ``title`` stands above.

    Enlarging smooths: a shape of a few pixels is far easier to read than its blocks.
    """
    scale = scale or max(1, round(_GOAL / images.shape[-1]))
    columns = min(columns or near_square(len(images)), len(images))
    rows = math.ceil(len(images) / columns)
    height, width = (side * scale for side in images.shape[-2:])
    cell = max(width, _NARROWEST)
    letters = font(_CAPTION)
    texts = [wrapped(caption, letters, cell + _GAP - 6, _LINES) for caption in captions]
    below = 8 + (_CAPTION + 4) * max(map(len, texts))
    heading = wrapped(title, font(_TITLE), columns * (cell + _GAP) - _GAP, 3)
    top = _MARGIN + len(heading) * (_TITLE + 6) + 12
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + columns * (cell + _GAP) - _GAP,
            top + rows * (height + below + _GAP) - _GAP + _MARGIN,
        ),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    for index, line in enumerate(heading):
        pen.text((_MARGIN, _MARGIN + index * (_TITLE + 6)), line, INK, font(_TITLE))
    for index, image in enumerate(images):
        left = _MARGIN + (index % columns) * (cell + _GAP)
        upper = top + (index // columns) * (height + below + _GAP)
        _paste(sheet, image, (left + (cell - width) // 2, upper), scale)
        for row, line in enumerate(texts[index]):
            place = (left + cell / 2, upper + height + 8 + row * (_CAPTION + 4))
            pen.text(place, line, MUTED, letters, anchor="ma")
    return sheet


def near_square(count: int) -> int:
    """Columns of a grid that is about as wide as high and leaves few cells empty."""
    wide = math.ceil(math.sqrt(count))
    return min(range(wide, 2 * wide + 1), key=lambda columns: (-count % columns, columns))


def _paste(
    sheet: Image.Image, image: NDArray[np.uint8], place: tuple[int, int], scale: int
) -> None:
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    picture = Image.fromarray(pixels).convert("RGB")
    size = (picture.width * scale, picture.height * scale)
    sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), place)
    frame = (place[0] - 1, place[1] - 1, place[0] + size[0], place[1] + size[1])
    ImageDraw.Draw(sheet).rectangle(frame, outline=RULE)
