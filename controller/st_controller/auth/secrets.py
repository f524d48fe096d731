"""Random secrets that tell their kind and can be checked for typos without a query.

``st_`` + 32 random characters (160 bits, Crockford base 32) + 6 characters of checksum.
Only the SHA-256 of a secret is stored: with 160 random bits no slow hash is needed.
"""

import hashlib
import hmac
import secrets
from enum import StrEnum

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM, _CHECK = 32, 6


class SecretKind(StrEnum):
    """What a secret opens; its prefix."""

    API_KEY = "st"
    """The API, for a user."""
    JOIN_TOKEN = "stj"  # noqa: S105 - a prefix
    """Registration of a worker."""
    WORKER = "stw"
    """The worker side of the API, for one worker."""
    SESSION = "sts"
    """The API, for a signed-in browser."""
    RESET = "str"
    """A new password, once."""
    SETUP = "stu"
    """Creation of the first admin."""


_PREFIXES = frozenset(kind.value for kind in SecretKind)


def new_secret(kind: SecretKind) -> str:
    """A fresh secret such as ``st_7k...``."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(_RANDOM))
    return f"{kind}_{body}{_checksum(kind, body)}"


def digest(secret: str) -> str:
    """What is stored and looked up instead of the secret: 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def kind_of(secret: str) -> SecretKind | None:
    """The kind of a secret whose checksum is right; none: mistyped, cut off or not ours."""
    prefix, _, rest = secret.partition("_")
    if prefix not in _PREFIXES or len(rest) != _RANDOM + _CHECK or not rest.isascii():
        return None
    body, check = rest[:_RANDOM], rest[_RANDOM:]
    kind = SecretKind(prefix)
    return kind if hmac.compare_digest(check, _checksum(kind, body)) else None


def shown_prefix(secret: str) -> str:
    """The beginning by which a person recognises the secret in a list."""
    return secret[: secret.index("_") + 7]


def _checksum(kind: SecretKind, body: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{kind}_{body}".encode()).digest()[:4], "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(0, 5 * _CHECK, 5))
