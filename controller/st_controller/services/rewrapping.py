"""Values that are stored sealed get their keys wrapped anew, after another key came into force."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import select, update

from st_controller.auth.vault import Sealed, Vault
from st_controller.store.database import Database
from st_controller.store.schema import SecondFactor, StoredSecret

PAGE = 100
"""Values in one transaction; a key service is asked twice for each."""


class _Kind(NamedTuple):
    table: type[StoredSecret] | type[SecondFactor]
    id: Any


_KINDS = (_Kind(StoredSecret, StoredSecret.id), _Kind(SecondFactor, SecondFactor.user_id))


def rewrap(db: Database, vault: Vault, actor: str, *, everything: bool = False) -> int:
    """Wrap the keys of values that another key wrapped, or of all; how many.

    Values stay as they are and can be read meanwhile. Whoever is interrupted does it again.

    Raises:
        SealError: a former key is missing, or the key service does not do its part.
    """
    count = 0
    for kind in _KINDS:
        for page in _pages(db, kind, None if everything else vault.key.id):
            done = [
                (row, vault.rewrap(Sealed(row.key_id, row.wrapped_key, row.box))) for row in page
            ]
            count += _write(db, kind, done, actor)
    return count


def _pages(db: Database, kind: _Kind, but: str | None) -> Iterator[list[Any]]:
    """Rows by their ids; those that are wrapped by the key ``but`` are left out."""
    after = ""
    while True:
        table = kind.table
        query = select(kind.id.label("id"), table.key_id, table.wrapped_key, table.box)
        if but is not None:
            query = query.where(table.key_id != but)
        with db.read() as session:
            rows = list(session.execute(query.where(kind.id > after).order_by(kind.id).limit(PAGE)))
        if not rows:
            return
        yield rows
        after = rows[-1].id


def _write(db: Database, kind: _Kind, done: list[tuple[Any, Sealed]], actor: str) -> int:
    """Store what is unchanged since it was read; the rest was sealed anew meanwhile."""
    count = 0
    with db.write() as tx:
        for row, sealed in done:
            same = (kind.id == row.id) & (kind.table.wrapped_key == row.wrapped_key)
            values = {"key_id": sealed.key_id, "wrapped_key": sealed.wrapped_key}
            written = tx.session.execute(update(kind.table).where(same).values(values))
            count += written.rowcount  # type: ignore[attr-defined]
        name = kind.table.__tablename__
        tx.audit(actor, "secrets.rewrapped", name, count=count, key=done[0][1].key_id)
    return count
