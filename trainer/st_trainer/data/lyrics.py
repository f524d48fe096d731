"""Lyrics beside sounds: a caption is one line, the lines after it are what is sung."""

from st_trainer.data.content import Content

LYRICS_SUFFIX = ".lyrics.txt"
MAX_LYRICS_BYTES = 65_536


def with_lyrics(caption: str, lyrics: Content | None) -> str:
    """``caption``, and below it the lyrics, where there are any.

    Raises:
        UnreadableSampleError: the lyrics are too long or not UTF-8.
    """
    if lyrics is None:
        return caption
    try:
        lines = lyrics.read_text(MAX_LYRICS_BYTES).strip().splitlines()
    except FileNotFoundError:
        return caption
    return "\n".join([caption, *map(str.rstrip, lines)])


def caption_and_lyrics(text: str) -> tuple[str, str]:
    """The first line of ``text``, and the others."""
    caption, _, lyrics = text.partition("\n")
    return caption.strip(), lyrics.strip()
