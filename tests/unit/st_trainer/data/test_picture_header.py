"""A header tells what decoding the whole picture would, and little is fetched for it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from st_trainer.data.picture_header import PictureHeader, picture_header
from st_trainer.data.ranged_file import BLOCK_BYTES, FIRST_BYTES, Remote

FORMATS = ("PNG", "JPEG", "WEBP")
NOISE = np.random.default_rng(0).integers(0, 256, (330, 240, 4), np.uint8)


def picture(form, mode="RGB", **options):
    channels = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    values = NOISE[..., :channels] if channels > 1 else NOISE[..., 0]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, form, **options)
    return file.getvalue()


def turned(orientation, **more):
    exif = Image.Exif()
    exif[0x112] = orientation
    for tag, value in more.items():
        exif[int(tag[1:], 16)] = value
    return exif


def chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def at_the_end(*chunks):
    whole = picture("PNG")
    return whole[:-12] + b"".join(chunks) + whole[-12:]


def header(content):
    """It, and how many bytes were fetched."""
    pieces = []

    def fetch(start, count):
        pieces.append(content[start : start + count])
        assert len(pieces[-1]) == count
        return pieces[-1]

    with Remote(len(content), b"", fetch).opened() as file:
        return picture_header(file, FORMATS), sum(map(len, pieces))


def decoded(content):
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
        return PictureHeader(upright.height, upright.width, image.mode)


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "L", {}),
        ("JPEG", "RGB", {"quality": 98}), ("JPEG", "L", {"quality": 99}),
        ("WEBP", "RGB", {"quality": 99}), ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"quality": 99}), ("WEBP", "RGBA", {"lossless": True}),
    ],
)  # fmt: skip
def test_it_tells_what_decoding_would(form, mode, options, orientation):
    exif = {} if orientation is None else {"exif": turned(orientation)}
    options = options | ({"method": 0} if form == "WEBP" else {})
    content = picture(form, mode, **options, **exif)
    found, fetched = header(content)
    assert found == decoded(content)
    assert (found.width > found.height) == (orientation in {6, 8})
    assert fetched <= FIRST_BYTES + 2 * BLOCK_BYTES


XMP = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>')
EXIF = chunk(b"eXIf", turned(6).tobytes()[6:])


@pytest.mark.parametrize(
    "last", [[EXIF], [XMP], [chunk(b"tEXt", b"a\0b"), EXIF], [EXIF, chunk(b"tEXt", b"a\0b")]]
)
def test_a_png_may_be_turned_by_what_stands_behind_its_pixels(last):
    content = at_the_end(*last)
    found, fetched = header(content)
    assert found == decoded(content) == PictureHeader(240, 330, "RGB")
    assert fetched <= FIRST_BYTES + 2 * BLOCK_BYTES < len(content)


def test_bytes_of_pixels_are_taken_for_no_chunk():
    torn = EXIF[:-1] + bytes([EXIF[-1] ^ 1])
    assert header(at_the_end(torn))[0] == PictureHeader(330, 240, "RGB")
    whole = at_the_end(EXIF)
    assert header(whole[:-12] + b"more")[0] == PictureHeader(330, 240, "RGB")


def test_a_header_that_is_longer_is_read_to_its_end():
    exif = turned(6, x10e="x" * 60_000)
    content = picture("JPEG", quality=98, exif=exif, icc_profile=b"i" * 150_000)
    found, fetched = header(content + bytes(2_000_000))
    assert found == decoded(content) == PictureHeader(240, 330, "RGB")
    assert 200_000 < fetched < 500_000


@pytest.mark.parametrize(
    "content",
    [b"no picture" * 9_999, b"RIFF\1\0\0\0WEBPVP9 " + bytes(99), b"RIFF\xff\xff\0\0WEBPVP8 "],
)
def test_what_is_no_picture_is_refused(content):
    with pytest.raises((UnidentifiedImageError, OSError)):
        header(content)
