"""Passwords, kept as argon2id (RFC 9106)."""

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# OWASP's second choice: 19 MiB and two passes, so that many log-ins at once fit into memory.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_at_once = threading.BoundedSemaphore(4)

UNUSABLE = "!"
"""In place of a hash: no password opens this account."""


@cache
def _nobody() -> str:
    return _hasher.hash("the password of nobody")


def hash_password(password: str) -> str:
    """What is stored instead of ``password``; salted, so two calls differ."""
    with _at_once:
        return _hasher.hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Whether ``password`` is the stored one.

    ``None`` stands for an unknown user and costs the same time, so that an answer's delay does
    not tell which names exist.
    """
    known = stored is not None and stored != UNUSABLE
    with _at_once:
        dummy = _nobody()
        try:
            matches = _hasher.verify(stored if known and stored else dummy, password)
        except (VerificationError, InvalidHashError):
            return False
    return matches and known


def needs_rehash(stored: str) -> bool:
    """Whether ``stored`` was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)
