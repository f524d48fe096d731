"""The key from which all signing keys are derived: configured, or made once and kept in a file."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from st_controller.settings import Settings

FILE_NAME = "secret.key"


class UnsafeSecretError(PermissionError):
    """Others on this machine may read the key file."""


def load_secret_key(settings: Settings) -> bytes:
    """The key in force, at least 32 bytes; makes ``data_dir/secret.key`` when there is none."""
    if settings.secret_key:
        return settings.secret_key.get_secret_value().encode()
    path = settings.data_dir / FILE_NAME
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise UnsafeSecretError(f"others may read {path}; run `chmod 600 {path}`")
    return bytes.fromhex(path.read_text().strip())


def derive(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, which tells nothing of the others (HMAC-SHA256)."""
    return hmac.new(key, purpose.encode(), hashlib.sha256).digest()


def _make(path: Path) -> None:
    """Write a random key; when two processes try at once, one key wins and both read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # where the other process was faster, its key is the one
        os.link(aside, path)
    aside.unlink()
