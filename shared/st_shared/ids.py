"""Identifiers: a prefix that names the kind, then 26 characters that sort by time of making.

The body is a UUIDv7 (RFC 9562, section 5.7) in Crockford base 32, as in ``job_01k9...``.
"""

import os
import time
from collections.abc import Callable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _uuid7(milliseconds: int, random: bytes) -> int:
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return value & ~(0x3 << 62) | 0x2 << 62


def new_id(
    prefix: str,
    *,
    milliseconds: int | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> str:
    """A fresh identifier such as ``job_01k9z...``; ids of later milliseconds sort later."""
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    value = _uuid7(now, random(10))
    body = "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
    return f"{prefix}_{body}"
