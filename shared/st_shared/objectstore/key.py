"""Object keys: relative paths that mean the same on disk, in S3 and in a URL."""

import re

MAX_KEY_LENGTH = 900
"""Most characters of a key; S3 allows 1024 bytes, and a store may put a prefix before it."""

MAX_PART_LENGTH = 255
"""Most characters between two slashes, as file systems have it."""

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class InvalidKeyError(ValueError):
    """A key that no store accepts."""


def check_key(key: str) -> str:
    """Give ``key`` back when it is one; parts are letters, digits, ``_``, ``-`` and inner dots.

    Raises:
        InvalidKeyError: it is empty, too long, absolute, or has a part that begins with a dot.
    """
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidKeyError(f"an object key has 1 to {MAX_KEY_LENGTH} characters, not {len(key)}")
    for part in key.split("/"):
        if len(part) > MAX_PART_LENGTH or not _PART.fullmatch(part):
            raise InvalidKeyError(
                f"object key {key!r}: a part is 1 to {MAX_PART_LENGTH} letters, digits, "
                f"'_', '-' or '.', and does not begin with a dot; found {part!r}"
            )
    return key
