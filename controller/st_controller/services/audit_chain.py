"""Gives audit entries their places and codes, after the commit of whoever wrote them.

The same as the outbox does with events (decision 0003), and for the same reason: numbers that are
given at insertion have gaps and become visible out of order, and a writer that had to know the
entry before its own would wait for every other writer.
"""

from contextlib import suppress

from pydantic_core import to_json
from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.domain.audit import BEGINNING, AuditKey, Chain, Head
from st_controller.services.audit_rows import entry_of, unchained
from st_controller.store.schema import AuditEntry, AuditHead
from st_controller.store.transaction import Transaction

BATCH = 500

_ANY = select(AuditEntry.seq).where(AuditEntry.place.is_(None)).limit(1)
_NEXT = unchained(BATCH)
_LOCK = select(AuditHead).where(AuditHead.id == 1).with_for_update()
_PLACE = (
    update(AuditEntry.__table__)  # type: ignore[arg-type]
    .where(AuditEntry.seq == bindparam("row"))
    .values(place=bindparam("new_place"), code=bindparam("new_code"))
)
_PLACE_AT_ONCE = text(
    "UPDATE audit_entries SET place = new.place, code = new.code"
    " FROM json_to_recordset(:rows) AS new (row bigint, place bigint, code text)"
    " WHERE audit_entries.seq = new.row"
)


class WrongAuditKeyError(RuntimeError):
    """The log was begun with another key; with this one its chain would break."""


def extend(tx: Transaction, key: AuditKey) -> bool:
    """Chain committed entries that have no place yet; whether there may be more.

    Raises:
        WrongAuditKeyError: the log was begun with another key.
    """
    if not is_behind(tx.session):
        return False
    head = _locked_head(tx, key)
    chain = Chain(key, Head(head.place, head.code))
    rows = []
    # Asked under the lock: whoever held it before may have chained them.
    for row in tx.session.execute(_NEXT):
        entry = entry_of(row, chain.head.place + 1)
        rows.append((entry.id, entry.place, chain.append(entry)))
    _write(tx.session, rows)
    head.place, head.code = chain.head.place, chain.head.code
    return len(rows) == BATCH


def is_behind(session: Session) -> bool:
    """Whether an entry is not chained yet."""
    return session.scalar(_ANY) is not None


def current_head(session: Session) -> Head:
    """The end of the chain."""
    found = session.get(AuditHead, 1)
    return Head(found.place, found.code) if found else BEGINNING


def waiting(session: Session) -> int:
    """Entries that are not chained yet."""
    query = select(func.count()).where(AuditEntry.place.is_(None))
    return session.scalar(query) or 0


def must_be_key_of(session: Session, key: AuditKey) -> None:
    """Refuse a key that is not the log's; one that was not begun takes any.

    Raises:
        WrongAuditKeyError: the log was begun with another key.
    """
    found = session.get(AuditHead, 1)
    if found is not None:
        _check(found, key)


def _locked_head(tx: Transaction, key: AuditKey) -> AuditHead:
    """The end of the chain; nobody else chains until the transaction ends."""
    head = tx.session.scalar(_LOCK)
    if head is None:
        values = {"id": 1, "place": 0, "code": BEGINNING.code, "key_id": key.id}
        with suppress(IntegrityError), tx.session.begin_nested():  # another process was faster
            tx.session.execute(insert(AuditHead).values(values))
        head = tx.session.scalars(_LOCK).one()
    _check(head, key)
    return head


def _check(head: AuditHead, key: AuditKey) -> None:
    if head.key_id != key.id:
        raise WrongAuditKeyError(
            "the audit log was begun with another key: give every controller of this database the"
            " same ST_AUDIT_KEY, or the same file audit.key in its data folder"
        )


def _write(session: Session, rows: list[tuple[int, int, str]]) -> None:
    if not rows:
        return
    if session.get_bind().dialect.name == "postgresql":
        new = [{"row": row, "place": place, "code": code} for row, place, code in rows]
        session.execute(_PLACE_AT_ONCE, {"rows": to_json(new).decode()})
        return
    session.connection().execute(
        _PLACE, [{"row": row, "new_place": place, "new_code": code} for row, place, code in rows]
    )
