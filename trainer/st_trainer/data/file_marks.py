"""Bytes at a place by which files of pictures, videos and sounds are known."""

Mark = tuple[int, bytes]
"""Where it stands, counted from the beginning, and what stands there."""

PICTURES: dict[str, Mark] = {
    ".png": (0, b"\x89PNG"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".webp": (8, b"WEBP"),
}
"""By the usual end of the name."""
_OTHERS: tuple[Mark, ...] = (
    (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "),
    (8, b"WAVE"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (0, b"FORM"),
)  # fmt: skip
_ALL = (*PICTURES.values(), *_OTHERS)
LONGEST = max(at + len(mark) for at, mark in _ALL)
"""Bytes of a file's beginning that tell its kind."""


def is_marked(beginning: bytes) -> bool:
    """Whether a file begins as pictures, videos or sounds do."""
    return any(beginning.startswith(mark, at) for at, mark in _ALL)


def picture_suffix(content: bytes) -> str:
    """The usual end of the name of a picture; empty where ``content`` is none."""
    found = (end for end, (at, mark) in PICTURES.items() if content.startswith(mark, at))
    return next(found, "")
