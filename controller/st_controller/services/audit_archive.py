"""Old audit entries move to the object store, and the chain stays whole.

A stretch is verified, written as an object, recorded with a signature, and only then removed from
the database, all of it or nothing. Whoever dies in between writes the same object again.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import delete, select

from st_controller.domain.audit import AuditKeys, Chain, Entry, Fault, FaultKind, Head
from st_controller.services.audit_chain import key_in_force
from st_controller.services.audit_rows import chained
from st_controller.services.audit_verifying import archives_end, signature_of
from st_controller.store.database import Database, ReadSession
from st_controller.store.schema import AuditArchive, AuditEntry, AuditHead
from st_controller.store.transaction import Transaction
from st_shared.objectstore import ObjectMissingError, ObjectStore

SEGMENT = 20_000
"""Most entries of an object."""
RETENTION = "audit retention"
"""Who acts, in the log."""


class BrokenLogError(RuntimeError):
    """The log is not what was written; nothing is removed from it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"place {fault.place}: {fault.said}; nothing was archived")
        self.fault = fault


def move(db: Database, objects: ObjectStore, keys: AuditKeys, age: timedelta) -> int:
    """Move the oldest entries that are older than ``age``, a segment at most; how many.

    Raises:
        BrokenLogError: what would be moved is not what was written.
        StoreUnreachableError: the object store does not take it; all stays as it was.
    """
    with db.read() as session:
        start, fault = archives_end(session, keys)
        if fault:
            raise BrokenLogError(fault)
        entries = list(_due(session, start, db.clock() - age))
    if not entries:
        return 0
    end = _verified(keys, entries, start)
    body = gzip.compress(b"".join(_line(entry) for entry in entries), 6, mtime=0)
    digest = hashlib.sha256(body).hexdigest()
    name = f"audit/archive/{start.place + 1:020d}-{digest}.ndjson.gz"
    objects.put(name, io.BytesIO(body), sha256=digest)
    with db.write() as tx:
        return _replace(tx, keys, AuditArchive(**_columns(start, end, name, digest, tx.now)))


def archived(session: ReadSession, objects: ObjectStore, keys: AuditKeys) -> Iterator[Entry]:
    """Every archived entry, read from the object store and verified.

    Raises:
        BrokenLogError: an object is missing, or does not hold what was archived.
    """
    _, fault = archives_end(session, keys)
    if fault:
        raise BrokenLogError(fault)
    for record in session.scalars(select(AuditArchive).order_by(AuditArchive.first_place)):
        yield from _read(objects, keys, record)


def _due(session: ReadSession, start: Head, before: datetime) -> Iterator[Entry]:
    """Entries from the beginning of what is left on, while they are older than ``before``."""
    newest = select(AuditEntry.place).where(AuditEntry.at >= before, AuditEntry.place.is_not(None))
    first_young = session.scalar(newest.order_by(AuditEntry.place).limit(1))
    last = None if first_young is None else first_young - 1
    return islice(chained(session, start.place, last), SEGMENT)


def _verified(keys: AuditKeys, entries: list[Entry], start: Head) -> Head:
    chain = Chain(keys, start)
    for entry in entries:
        if fault := chain.check(entry):
            raise BrokenLogError(fault)
    return chain.head


def _columns(start: Head, end: Head, name: str, digest: str, now: datetime) -> dict[str, Any]:
    return {
        "first_place": start.place + 1,
        "last_place": end.place,
        "code_before": start.code,
        "last_code": end.code,
        "key": name,
        "sha256": digest,
        "archived_at": now,
    }


def _replace(tx: Transaction, keys: AuditKeys, record: AuditArchive) -> int:
    """Exchange rows for the record of their archive; 0 where another process has done so."""
    tx.session.get(AuditHead, 1, with_for_update=True)  # one archives at a time
    if tx.session.get(AuditArchive, record.first_place):
        return 0
    record.signature = signature_of(record, key_in_force(tx.session, keys))
    tx.session.add(record)
    count = record.last_place - record.first_place + 1
    tx.session.execute(
        delete(AuditEntry).where(AuditEntry.place.between(record.first_place, record.last_place))
    )
    tx.audit(
        RETENTION,
        "audit.archived",
        record.key,
        first=record.first_place,
        last=record.last_place,
        sha256=record.sha256,
    )
    return count


def _line(entry: Entry) -> bytes:
    return json.dumps({**entry.fields(), "code": entry.code}).encode() + b"\n"


def _read(objects: ObjectStore, keys: AuditKeys, record: AuditArchive) -> Iterator[Entry]:
    try:
        body = b"".join(objects.open(record.key))
    except ObjectMissingError:
        what = f"the object {record.key} is gone"
        raise BrokenLogError(Fault(record.first_place, FaultKind.MISSING, what)) from None
    if hashlib.sha256(body).hexdigest() != record.sha256:
        what = f"the object {record.key} is not the one that was written"
        raise BrokenLogError(Fault(record.first_place, FaultKind.CHANGED, what))
    chain = Chain(keys, Head(record.first_place - 1, record.code_before))
    for line in gzip.decompress(body).splitlines():
        entry = Entry(**json.loads(line))
        if fault := chain.check(entry):
            raise BrokenLogError(fault)
        yield entry
