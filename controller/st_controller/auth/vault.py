"""Values that are read back later, kept so that the database alone tells nothing of them.

Envelope encryption: every value has a random key of its own (AES-256-GCM, NIST SP 800-38D), which
is wrapped by a key that lies outside of the database: in a file, in the environment, or in a key
service that a command asks. What a value belongs to is bound to it (associated data), so a row
that was put in another's place does not open.
"""

import base64
import hmac
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_KEY_BYTES = 32
_COMMAND_SECONDS = 20.0
_MOST_WRAPPED_BYTES = 4096


class SealError(RuntimeError):
    """A value cannot be opened, or the key service does not do its part."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as it is stored."""

    key_id: str
    """Of the key that wraps the value's own."""
    wrapped_key: bytes
    box: bytes
    """Nonce and ciphertext."""


class KeyWrap(Protocol):
    """What wraps the keys of values."""

    @property
    def id(self) -> str:
        """Tells keys apart, in 40 characters at most."""

    def wrap(self, key: bytes) -> bytes:
        """The key of a value, as it may be stored; ``SealError`` where that fails."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key of a value again; ``SealError`` where that fails."""


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A key in this process."""

    secret: bytes = field(repr=False)
    """At least 32 bytes; hashed to the length of a key."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that tell nothing of the key."""
        return hmac.digest(self.secret, b"secrets key id", "sha256").hex()[:16]

    def wrap(self, key: bytes) -> bytes:
        """AES-256-GCM under the key."""
        return _seal(self._key(), key, b"wrapped key")

    def unwrap(self, wrapped: bytes) -> bytes:
        """The reverse."""
        return _open(self._key(), wrapped, b"wrapped key")

    def _key(self) -> bytes:
        return hmac.digest(self.secret, b"secrets key", "sha256")


@dataclass(frozen=True, slots=True)
class KeyCommand:
    """A key service, asked by a command: ``COMMAND wrap`` and ``COMMAND unwrap``.

    Base64 on its standard input, base64 on its standard output, exit code 0.
    """

    command: Sequence[str]

    @property
    def id(self) -> str:
        """The same for every command: the service knows which of its keys it used."""
        return "command"

    def wrap(self, key: bytes) -> bytes:
        """Ask the service."""
        return self._ask("wrap", key)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Ask the service."""
        return self._ask("unwrap", wrapped)

    def _ask(self, verb: str, given: bytes) -> bytes:
        try:
            done = subprocess.run(
                [*self.command, verb],
                input=base64.b64encode(given),
                capture_output=True,
                timeout=_COMMAND_SECONDS,
                check=True,
            )
            answer = base64.b64decode(done.stdout, validate=False)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()[-300:]
            raise SealError(f"the key command failed ({error.returncode}): {said}") from None
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            raise SealError(f"the key command failed: {type(error).__name__}") from None
        if not 0 < len(answer) <= _MOST_WRAPPED_BYTES:
            raise SealError(f"the key command gave {len(answer)} bytes")
        return answer


class Vault:
    """Seals values with one key, and opens what it or a former one has sealed.

    ``load`` gives the keys anew, the one in force first; it is asked again where a value needs a
    key that was not there before.
    """

    def __init__(self, load: Callable[[], Sequence[KeyWrap]]) -> None:
        self._load = load
        self.key, *self._former = load()

    def seal(self, value: bytes, belongs_to: str) -> Sealed:
        """The value as it may be stored; ``belongs_to`` is needed to open it."""
        own = secrets.token_bytes(_KEY_BYTES)
        box = _seal(own, value, belongs_to.encode())
        return Sealed(self.key.id, self.key.wrap(own), box)

    def open(self, sealed: Sealed, belongs_to: str) -> bytes:
        """The value.

        Raises:
            SealError: it was sealed with another key, belongs elsewhere, or is damaged.
        """
        return _open(self._own_key(sealed), sealed.box, belongs_to.encode())

    def rewrap(self, sealed: Sealed) -> Sealed:
        """The same value, its own key wrapped by the key in force; errors as of ``open``."""
        return Sealed(self.key.id, self.key.wrap(self._own_key(sealed)), sealed.box)

    def _own_key(self, sealed: Sealed) -> bytes:
        key = self._find(sealed.key_id)
        if key is None:
            self.key, *self._former = self._load()
            key = self._find(sealed.key_id)
        if key is None:
            raise SealError(
                f"sealed with the key {sealed.key_id}, and this controller has {self.key.id}: give"
                " every controller of this database the same ST_SECRETS_KEY, and those before it"
                " in ST_SECRETS_FORMER_KEYS until `st-controller secrets rewrap` is done"
            )
        return key.unwrap(sealed.wrapped_key)

    def _find(self, key_id: str) -> KeyWrap | None:
        return next((key for key in (self.key, *self._former) if key.id == key_id), None)


def _seal(key: bytes, value: bytes, belongs_to: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, value, belongs_to)


def _open(key: bytes, box: bytes, belongs_to: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], belongs_to)
    except (InvalidTag, ValueError):
        raise SealError("the value is damaged, or is another's") from None
