"""Keys of the controller: each configured, or made once and kept in a file of the data folder."""

import hashlib
import hmac
import os
import secrets
import shlex
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from st_controller.auth.vault import KeyCommand, KeyWrap, LocalKey, Vault
from st_controller.domain.audit import AuditKey, AuditKeys
from st_controller.settings import Settings

_KEY_BYTES = 32


class UnsafeSecretError(PermissionError):
    """Others on this machine may read the key file."""


def load_secret_key(settings: Settings) -> bytes:
    """The key from which signing keys are derived, at least 32 bytes: ``secret.key``."""
    return _load(settings.secret_key, settings.data_dir / "secret.key")


def load_audit_keys(settings: Settings) -> AuditKeys:
    """The keys of the audit log: ``audit.key`` and those that took over, ``audit.*.key``."""
    first = AuditKey(_load(settings.audit_key, settings.data_dir / "audit.key"))
    given = [AuditKey(key.get_secret_value().encode()) for key in settings.audit_former_keys]
    if not settings.audit_key:
        given += [AuditKey(_read(path)) for path in sorted(settings.data_dir.glob("audit.*.key"))]
    return AuditKeys.of(first, *given)


def next_audit_key(settings: Settings) -> AuditKey:
    """The key that is to take over: ``ST_AUDIT_KEY``, or a new one in a file of its own."""
    if settings.audit_key:
        return AuditKey(settings.audit_key.get_secret_value().encode())
    fresh = AuditKey(secrets.token_bytes(_KEY_BYTES))
    _make(settings.data_dir / f"audit.{fresh.id}.key", fresh.secret)
    return fresh


def open_vault(settings: Settings) -> Vault:
    """What seals stored secrets: ``secrets.key`` or a key service, and those that did before."""
    return Vault(lambda: _sealing_keys(settings))


def new_sealing_key(settings: Settings) -> None:
    """Put another key into the file ``secrets.key``; the former one is kept beside it.

    Raises:
        ValueError: the key does not come from that file.
    """
    if settings.secrets_key or settings.secrets_key_command:
        raise ValueError("the key does not come from a file: set another ST_SECRETS_KEY instead")
    path = settings.data_dir / "secrets.key"
    former = LocalKey(_load(None, path))
    aside = settings.data_dir / "secrets.next.key"
    aside.unlink(missing_ok=True)  # of one who was interrupted here
    _make(aside, secrets.token_bytes(_KEY_BYTES))
    with suppress(FileExistsError):
        os.link(path, settings.data_dir / f"secrets.{former.id}.key")
    aside.replace(path)


def _sealing_keys(settings: Settings) -> list[KeyWrap]:
    """The key in force, then the former ones."""
    found: list[KeyWrap] = []
    if settings.secrets_key_command:
        found.append(KeyCommand(tuple(shlex.split(settings.secrets_key_command))))
    path = settings.data_dir / "secrets.key"
    if settings.secrets_key or path.exists() or not found:
        found.append(LocalKey(_load(settings.secrets_key, path)))
    found += [LocalKey(key.get_secret_value().encode()) for key in settings.secrets_former_keys]
    return found + [
        LocalKey(_read(file)) for file in sorted(settings.data_dir.glob("secrets.*.key"))
    ]


def _load(configured: SecretStr | None, path: Path) -> bytes:
    """The key in force; makes the file when there is none, readable by the owner alone."""
    if configured:
        return configured.get_secret_value().encode()
    if not path.exists():
        _make(path, secrets.token_bytes(_KEY_BYTES))
    return _read(path)


def _read(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise UnsafeSecretError(f"others may read {path}; run `chmod 600 {path}`")
    return bytes.fromhex(path.read_text().strip())


def derive(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, which tells nothing of the others (HMAC-SHA256)."""
    return hmac.new(key, purpose.encode(), hashlib.sha256).digest()


def _make(path: Path, key: bytes) -> None:
    """Write a key; when two processes try at once, one key wins and both read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # where the other process was faster, its key is the one
        os.link(aside, path)
    aside.unlink()
