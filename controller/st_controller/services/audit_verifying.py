"""Whether the audit log is what was written, from its first entry to its last."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.audit import (
    BEGINNING,
    AuditKey,
    AuditKeys,
    Fault,
    FaultKind,
    Head,
    SignedHead,
    verify,
)
from st_controller.services import audit_chain
from st_controller.services.audit_rows import chained
from st_controller.store.schema import AuditArchive


@dataclass(frozen=True)
class Verdict:
    """What a look at the whole log found."""

    first: int
    """Place of the first entry that is in the database."""
    last: int
    """Place of the last entry that is right."""
    archived: int
    """Entries before ``first``, in the object store."""
    waiting: int
    """Entries that are not chained yet."""
    heads: int
    """Signed heads that the log was held against."""
    fault: Fault | None


def verify_log(session: Session, keys: AuditKeys, heads: Iterable[SignedHead]) -> Verdict:
    """Check the log in this session's state; read ``heads`` before the session begins.

    Raises:
        WrongAuditKeyError: the key in force is not among these.
    """
    audit_chain.key_in_force(session, keys)
    signed = list(heads)
    start, fault = archives_end(session, keys)
    last = start
    if fault is None:
        last, fault = verify(keys, chained(session, start.place), signed, start)
    end = audit_chain.current_head(session)
    if fault is None and (end.place, end.code) != (last.place, last.code):
        fault = _against_end(end, last)
    if fault is None and last.key_id not in {"", end.key_id}:
        what = (
            f"the key {last.key_id} is in force after entry {last.place}, and {end.key_id} is used"
        )
        fault = Fault(last.place, FaultKind.CHANGED, what)
    waiting = audit_chain.waiting(session)
    return Verdict(start.place + 1, last.place, start.place, waiting, len(signed), fault)


def archives_end(session: Session, keys: AuditKeys) -> tuple[Head, Fault | None]:
    """The last entry that was archived, where the records of all archives are right."""
    end = BEGINNING
    for record in session.scalars(select(AuditArchive).order_by(AuditArchive.first_place)):
        if record.signature not in [signature_of(record, key) for key in keys.keys]:
            what = f"the record of entries {record.first_place} to {record.last_place} is forged"
            return end, Fault(record.first_place, FaultKind.HEAD_FORGED, what)
        if (record.first_place, record.code_before) != (end.place + 1, end.code):
            first = end.place + 1
            what = f"the record of the archive that holds entry {first} is gone"
            return end, Fault(first, FaultKind.MISSING, what)
        end = Head(record.last_place, record.last_code)
    return end, None


def signature_of(record: AuditArchive, key: AuditKey) -> str:
    """What a holder of the key signs of an archive."""
    return key.code(
        "archive",
        {
            "first": record.first_place,
            "last": record.last_place,
            "before": record.code_before,
            "code": record.last_code,
            "key": record.key,
            "sha256": record.sha256,
            "at": record.archived_at.isoformat(),
        },
    )


def _against_end(end: Head, last: Head) -> Fault:
    if end.place > last.place:
        first = last.place + 1
        what = f"entries {first} to {end.place} are gone: the chain went on to there"
        return Fault(first, FaultKind.TRUNCATED, what)
    place = min(end.place + 1, last.place)
    what = f"the chain ended with entry {end.place}, and goes on to {last.place}"
    return Fault(place, FaultKind.CHANGED, what)
