"""Signed heads of the audit chain in the object store, so that what is cut off shows.

An object an hour, written anew as the chain grows: ``audit/heads/2026-11-26T14.json``. A bucket
with versions, or with locked objects, keeps all of them.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from itertools import islice

from st_controller.domain.audit import AuditKey, Head, SignedHead, sign_head
from st_shared.objectstore import ObjectMissingError, ObjectStore

PREFIX = "audit/heads/"
_MOST_BYTES = 4096


def publish(objects: ObjectStore, key: AuditKey, head: Head, at: datetime) -> SignedHead:
    """Write the head of this hour.

    Raises:
        StoreUnreachableError: the object store does not take it.
    """
    signed = sign_head(key, head, at.isoformat())
    body = json.dumps(asdict(signed)).encode()
    objects.put(f"{PREFIX}{at:%Y-%m-%dT%H}.json", io.BytesIO(body))
    return signed


def published(objects: ObjectStore) -> Iterator[SignedHead]:
    """All heads that are stored; what is none of ours counts as one that is not genuine."""
    for stat in objects.list(PREFIX):
        yield _read(objects, stat.key)


def _read(objects: ObjectStore, name: str) -> SignedHead:
    try:
        body = b"".join(islice(objects.open(name), 2))[: _MOST_BYTES + 1]
        told = json.loads(body)
        return SignedHead(
            int(told["place"]), *(str(told[name]) for name in ("code", "at", "key", "signature"))
        )
    except (ObjectMissingError, ValueError, KeyError, TypeError):
        return SignedHead(0, "", name, "", "")
