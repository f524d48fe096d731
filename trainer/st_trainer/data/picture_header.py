"""Size, mode and orientation of a picture out of its first bytes, without its pixels.

As Pillow would have them of the whole file, which it cannot tell of every format without reading
it: WebP is read by its chunks, and of PNG the chunks behind the pixels are looked at too, since
Exif and XMP may stand there.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import ExifTags, Image

TAIL_BYTES = 16 << 10
"""Of the end of a PNG, where chunks behind the pixels are looked for."""
_TURNED = frozenset({5, 6, 7, 8})
"""Orientations of Exif by which width and height change places."""
_WEBP_ALPHA, _WEBP_TEXT = 0x10, 0x0C
"""Flags of VP8X: there is transparency; Exif or XMP."""
_WEBP_TEXTS = {b"EXIF": "exif", b"XMP ": "xmp"}
_TELLING = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")
"""Chunks of PNG that may tell an orientation."""
Info = dict[str | tuple[int, int], Any]
"""As Pillow's images have it."""


def _pixel() -> bytes:
    """A PNG of one pixel without its end."""
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "PNG")
    return file.getvalue()[:-12]


_PIXEL = _pixel()


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture before it is decoded."""

    height: int
    width: int
    """Pixels, upright."""
    mode: str
    """As Pillow calls it."""


def picture_header(file: BinaryIO, formats: tuple[str, ...]) -> PictureHeader:
    """The header of the picture in ``file``, which is read only where it must be.

    Raises:
        UnidentifiedImageError: it is of none of ``formats``.
        OSError, ValueError, SyntaxError, struct.error: the header is damaged.
        Image.DecompressionBombWarning: it claims to be far too large.
    """
    beginning = file.read(16)
    file.seek(0)
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP" and "WEBP" in formats:
        return _webp(file)
    with Image.open(file, formats=formats) as image:  # ends before the pixels
        info: Info = dict(image.info)
        if image.format == "PNG" and "exif" not in info:
            info |= _behind_the_pixels(file)
        return _upright(image.width, image.height, image.mode, info)


def _upright(width: int, height: int, mode: str, info: Info) -> PictureHeader:
    """Turned as its Exif or XMP says."""
    blank = Image.new("1", (1, 1))
    blank.info = info
    if blank.getexif().get(ExifTags.Base.Orientation) in _TURNED:
        width, height = height, width
    return PictureHeader(height, width, mode)


def _behind_the_pixels(file: BinaryIO) -> Info:
    """What Pillow finds in the last chunks of a PNG: those that lead to its end without a gap."""
    file.seek(max(file.seek(0, io.SEEK_END) - TAIL_BYTES, 0))
    tail = file.read(TAIL_BYTES)
    for name in _TELLING:
        at = tail.find(name)
        while at >= 0:
            chunks = _png_chunks(tail, at - 4) if at >= 4 else []
            if chunks and chunks[-1][4:8] == b"IEND":
                with Image.open(io.BytesIO(_PIXEL + b"".join(chunks)), formats=["PNG"]) as one:
                    one.load()
                    return dict(one.info)
            at = tail.find(name, at + 1)
    return {}


def _png_chunks(content: bytes, at: int) -> list[bytes]:
    """Whole chunks from ``at`` on, up to one whose checksum is wrong."""
    found = []
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunk = content[at : at + 12 + length]
        checksum = zlib.crc32(chunk[4:-4]).to_bytes(4, "big")
        if len(chunk) < 12 + length or checksum != chunk[-4:]:
            break
        found.append(chunk)
        at += 12 + length
    return found


def _webp(file: BinaryIO) -> PictureHeader:
    """The header of a WebP: Exif and XMP are looked for where its first chunk says that they are.

    Source: RFC 9649, section 2.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    beginning = file.read(30)
    (told,) = struct.unpack_from("<I", beginning, 4)
    if told + 8 > end:
        raise OSError("it ends early")
    name, content = beginning[12:16], beginning[20:]
    if name == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<2H", content, 6)
        return PictureHeader(height & 0x3FFF, width & 0x3FFF, "RGB")
    if name == b"VP8L" and content[:1] == b"\x2f":
        (bits,) = struct.unpack_from("<I", content, 1)
        mode = "RGBA" if bits >> 28 & 1 else "RGB"
        return PictureHeader((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, mode)
    if name != b"VP8X":
        raise OSError("its first chunk tells no size")
    width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (4, 7))
    texts = _webp_texts(file, end) if content[0] & _WEBP_TEXT else {}
    return _upright(width, height, "RGBA" if content[0] & _WEBP_ALPHA else "RGB", texts)


def _webp_texts(file: BinaryIO, end: int) -> Info:
    """Exif and XMP of a WebP, by the names that Pillow has for them."""
    found: Info = {}
    at = 12
    while at + 8 <= end and len(found) < len(_WEBP_TEXTS):
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name in _WEBP_TEXTS:
            found.setdefault(_WEBP_TEXTS[name], file.read(length))
        at += 8 + length + length % 2
    return found
