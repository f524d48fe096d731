"""Columns written past the unit of work: in the database, on the row, and only if."""

import pytest

from st_controller.store import direct
from st_controller.store.schema import LeaderLease


@pytest.fixture
def lease(db, clock):
    with db.write() as tx:
        tx.session.add(LeaderLease(name="n", holder="h", epoch=1, expires_at=clock()))


def stored(db):
    with db.read() as session:
        found = session.get_one(LeaderLease, "n")
        return found.holder, found.epoch


def test_it_is_written_and_shown(db, lease):
    with db.write() as tx:
        row = tx.session.get_one(LeaderLease, "n")
        assert direct.write(tx.session, row, {"epoch": 2}, only_if={"epoch": 1})
        assert row.epoch == 2
        assert row not in tx.session.dirty
    assert stored(db) == ("h", 2)


def test_a_row_that_is_not_so_any_more_is_left_alone(db, lease):
    with db.write() as tx:
        row = tx.session.get_one(LeaderLease, "n")
        assert not direct.write(tx.session, row, {"holder": "x"}, only_if={"epoch": 7})
        assert row.holder == "h"
    assert stored(db) == ("h", 1)


def test_what_was_assigned_beside_it_is_written_as_well(db, lease):
    with db.write() as tx:
        row = tx.session.get_one(LeaderLease, "n")
        row.holder = "other"
        direct.write(tx.session, row, {"epoch": 2})
    assert stored(db) == ("other", 2)


def test_it_is_undone_with_its_transaction(db, lease):
    def write_and_fail():
        with db.write() as tx:
            direct.write(tx.session, tx.session.get_one(LeaderLease, "n"), {"epoch": 2})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert stored(db) == ("h", 1)


def test_moments_and_json_are_written_as_the_columns_have_them(db, lease, clock):
    clock.advance(5)
    with db.write() as tx:
        row = tx.session.get_one(LeaderLease, "n")
        direct.write(tx.session, row, {"expires_at": tx.now})
    with db.read() as session:
        assert session.get_one(LeaderLease, "n").expires_at == clock()
