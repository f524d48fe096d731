"""What tells one content from all others."""

import hashlib
from typing import BinaryIO

CONTENT_BYTES = 16


def content_digest(*parts: bytes | memoryview) -> bytes:
    """The first 16 bytes of SHA-256 over ``parts``, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        digest.update(size.to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()[:CONTENT_BYTES]


def digest_of(file: BinaryIO) -> bytes:
    """SHA-256 of all of ``file``."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
