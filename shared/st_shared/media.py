"""Kinds of samples, and the files that hold them."""

from pathlib import PurePosixPath
from typing import Literal

Media = Literal["image", "video", "audio"]

SUFFIXES: dict[Media, frozenset[str]] = {
    "image": frozenset({".png", ".jpg", ".jpeg", ".webp"}),
    "video": frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}),
    "audio": frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"}),
}
"""Ends of the names of files that the trainer reads, in lower case."""

_CONTENT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".json": "application/json",
}
"""Only what a browser cannot run."""


def content_type_of(path: str) -> str | None:
    """What a browser is told that the file ``path`` holds; None: it is to be downloaded."""
    return _CONTENT_TYPES.get(PurePosixPath(path).suffix.lower())
