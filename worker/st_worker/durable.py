"""Small files that are whole or absent: written aside, synced, renamed."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Put ``content`` at ``path``, readable by this user alone, in one step."""
    aside = path.with_name(f".{path.name}.partial")
    text = content.encode() if isinstance(content, str) else content
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
