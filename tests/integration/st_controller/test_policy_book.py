"""The policy in force: every process keeps it in memory, and nobody obeys an old one."""

import pytest
from sqlalchemy import select

from st_controller.services.policy import book
from st_controller.store.schema import PolicyVersion


def in_force(db):
    with db.read() as session:
        return book.current(session)


def change(db):
    with db.write() as tx:
        book.changed(tx)


def test_without_rules_there_is_an_empty_book(db):
    assert in_force(db) is book.EMPTY
    assert book.EMPTY.is_empty


def test_a_change_makes_a_new_version_and_leaves_one_row(db):
    change(db)
    first = in_force(db)
    change(db)
    assert not first.is_empty
    assert in_force(db).version not in {"", first.version}
    with db.read() as session:
        assert len(session.scalars(select(PolicyVersion)).all()) == 1


def test_a_version_is_read_once(db):
    change(db)
    assert in_force(db) is in_force(db)


def test_a_change_that_is_undone_is_never_taken_for_one_that_was_made(db):
    seen = []

    def change_and_fail():
        with db.write() as tx:
            book.changed(tx)
            seen.append(book.current(tx.session))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    change(db)
    assert in_force(db).version != seen[0].version
