"""Lyrics beside sounds: a caption is one line, the lines after it are what is sung."""

from pathlib import Path

from st_trainer.data.medium import UnreadableSampleError

LYRICS_SUFFIX = ".lyrics.txt"
MAX_LYRICS_BYTES = 65_536


def with_lyrics(caption: str, path: Path) -> str:
    """``caption``, and below it the lyrics beside the sound at ``path``, where there are any.

    Raises:
        UnreadableSampleError: the lyrics are too long or not UTF-8.
    """
    file = path.with_suffix(LYRICS_SUFFIX)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_LYRICS_BYTES + 1)
    except FileNotFoundError:
        return caption
    except OSError as error:
        raise UnreadableSampleError(f"lyrics cannot be read: {error.strerror}") from None
    if len(raw) > MAX_LYRICS_BYTES:
        raise UnreadableSampleError(f"{file.name} is longer than {MAX_LYRICS_BYTES} bytes")
    try:
        lines = raw.decode("utf-8-sig").strip().splitlines()
    except UnicodeDecodeError:
        raise UnreadableSampleError(f"{file.name} is not UTF-8 text") from None
    return "\n".join([caption, *map(str.rstrip, lines)])


def caption_and_lyrics(text: str) -> tuple[str, str]:
    """The first line of ``text``, and the others."""
    caption, _, lyrics = text.partition("\n")
    return caption.strip(), lyrics.strip()
