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

from st_controller.domain.audit import BEGINNING, ROTATED, AuditKey, AuditKeys, Chain, Head
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
    """The log is kept with another key; with these its chain would break."""


def extend(tx: Transaction, keys: AuditKeys) -> bool:
    """Chain committed entries that have no place yet; whether there may be more.

    Raises:
        WrongAuditKeyError: the key in force is not among these.
    """
    if not is_behind(tx.session):
        return False
    head = _locked_head(tx, keys)
    chain = Chain(keys, _head(head))
    rows = []
    # Asked under the lock: whoever held it before may have chained them.
    for row in tx.session.execute(_NEXT):
        entry = entry_of(row, chain.head.place + 1)
        rows.append((entry.id, entry.place, chain.append(entry)))
        if chain.head.key_id != head.key_id:  # whoever goes on needs the next key
            break
    _write(tx.session, rows)
    is_rotated = chain.head.key_id != head.key_id
    head.place, head.code, head.key_id = chain.head.place, chain.head.code, chain.head.key_id
    return is_rotated or len(rows) == BATCH


def rotate(tx: Transaction, keys: AuditKeys, to: AuditKey, actor: str) -> str:
    """Let ``to`` take over once what is written up to now is chained; gives the former key's id.

    Raises:
        WrongAuditKeyError: the key in force is not among these.
        ValueError: ``to`` is in force already.
    """
    former = keys.find(_locked_head(tx, keys).key_id)
    assert former is not None  # noqa: S101 - or the head would have been refused
    if former.id == to.id:
        raise ValueError(f"the key {to.id} is in force already")
    tx.audit(actor, ROTATED, to.id, **former.rotation(to))
    return former.id


def is_behind(session: Session) -> bool:
    """Whether an entry is not chained yet."""
    return session.scalar(_ANY) is not None


def current_head(session: Session) -> Head:
    """The end of the chain."""
    found = session.get(AuditHead, 1)
    return _head(found) if found else BEGINNING


def waiting(session: Session) -> int:
    """Entries that are not chained yet."""
    query = select(func.count()).where(AuditEntry.place.is_(None))
    return session.scalar(query) or 0


def key_in_force(session: Session, keys: AuditKeys) -> AuditKey:
    """The key that makes the codes now; a log that was not begun takes the first.

    Raises:
        WrongAuditKeyError: it is not among these.
    """
    found = session.get(AuditHead, 1)
    return _key_of(found, keys) if found is not None else keys.keys[0]


def _locked_head(tx: Transaction, keys: AuditKeys) -> AuditHead:
    """The end of the chain; nobody else chains until the transaction ends."""
    head = tx.session.scalar(_LOCK)
    if head is None:
        begun_with = keys.keys[0].id
        values = {"id": 1, "place": 0, "code": BEGINNING.code, "key_id": begun_with}
        with suppress(IntegrityError), tx.session.begin_nested():  # another process was faster
            tx.session.execute(insert(AuditHead).values(values))
        head = tx.session.scalars(_LOCK).one()
    _key_of(head, keys)
    return head


def _head(row: AuditHead) -> Head:
    return Head(row.place, row.code, row.key_id)


def _key_of(head: AuditHead, keys: AuditKeys) -> AuditKey:
    key = keys.find(head.key_id)
    if key is None:
        raise WrongAuditKeyError(
            f"the audit log is kept with another key, {head.key_id}: give every controller of this"
            " database the same ST_AUDIT_KEY and ST_AUDIT_FORMER_KEYS, or the same files"
            " audit.key and audit.*.key in its data folder"
        )
    return key


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
