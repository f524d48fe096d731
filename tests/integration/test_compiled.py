"""Statements that are said once: the same answers as the library gives, on both databases."""

from sqlalchemy import bindparam, insert, select, text

from st_controller.store.compiled import Compiled
from st_controller.store.schema import QueuePolicy

LATER = select(QueuePolicy.id).where(QueuePolicy.changed_at > bindparam("since"))


def test_moments_limits_and_repeated_names(db):
    some = Compiled(LATER.order_by(QueuePolicy.id).limit(bindparam("most")))
    twice = Compiled(text("SELECT :word || '-' || :word AS found"))
    with db.write() as tx:
        rows = [{"id": number, "rules": {}, "changed_at": tx.now} for number in (1, 2, 3)]
        tx.session.execute(insert(QueuePolicy), rows)
        connection = tx.session.connection()
        before = {"since": tx.now.replace(year=2000), "most": 2, "unknown": "left out"}
        assert some.run(connection, before).scalars().all() == [1, 2]
        assert some.run(connection, before | {"most": 1}).scalars().all() == [1]
        assert some.run(connection, before | {"since": tx.now}).scalars().all() == []
        assert twice.run(connection, {"word": "a"}).scalar_one() == "a-a"
