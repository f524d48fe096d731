"""Keys of the controller: each configured, or made once and kept in a file of the data folder."""

import hashlib
import hmac
import os
import secrets
import shlex
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from st_controller.auth.vault import KeyCommand, LocalKey, Vault
from st_controller.domain.audit import AuditKey
from st_controller.settings import Settings


class UnsafeSecretError(PermissionError):
    """Others on this machine may read the key file."""


def load_secret_key(settings: Settings) -> bytes:
    """The key from which signing keys are derived, at least 32 bytes: ``secret.key``."""
    return _load(settings.secret_key, settings.data_dir / "secret.key")


def load_audit_key(settings: Settings) -> AuditKey:
    """The key of the audit log: ``audit.key``."""
    return AuditKey(_load(settings.audit_key, settings.data_dir / "audit.key"))


def open_vault(settings: Settings) -> Vault:
    """What seals stored secrets: ``secrets.key``, or a key service."""
    if settings.secrets_key_command:
        return Vault(KeyCommand(tuple(shlex.split(settings.secrets_key_command))))
    return Vault(LocalKey(_load(settings.secrets_key, settings.data_dir / "secrets.key")))


def _load(configured: SecretStr | None, path: Path) -> bytes:
    """The key in force; makes the file when there is none, readable by the owner alone."""
    if configured:
        return configured.get_secret_value().encode()
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
