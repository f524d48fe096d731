"""Kinds of samples, and the files that hold them."""

from typing import Literal

Media = Literal["image", "video", "audio"]

SUFFIXES: dict[Media, frozenset[str]] = {
    "image": frozenset({".png", ".jpg", ".jpeg", ".webp"}),
    "video": frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}),
    "audio": frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"}),
}
"""Ends of the names of files that the trainer reads, in lower case."""
