"""Processes that freeze within a transaction: PostgreSQL ends their sessions, others go on."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from st_controller.dispatch.leadership import seek
from st_controller.store import migrate
from st_controller.store.database import Database, DatabaseError

BOUNDS = ("idle_in_transaction_session_timeout", "lock_timeout")


@pytest.fixture
def frozen(postgres_url, clock):
    """The database of a process that is about to freeze."""
    database = Database(postgres_url, clock=clock)
    yield database
    database.close()


@pytest.fixture
def living(postgres_url, clock):
    database = Database(postgres_url, clock=clock)
    yield database
    database.close()


@contextmanager
def freezing(database):
    """A transaction of a process that does nothing more in it; it does not come to its commit."""
    with pytest.raises(DatabaseError), database.write() as tx:
        yield tx


def freeze(tx):
    """It holds what it holds; from here on its bound is short, so that nobody waits for long."""
    tx.session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 200"))


def lead(database, holder):
    with database.write() as tx:
        return seek(tx, holder, alone=False)


def test_who_freezes_with_the_lease_in_hand_is_succeeded(frozen, living, clock):
    old = lead(frozen, "ctl_frozen")
    clock.advance(60)
    with ThreadPoolExecutor(1) as pool, freezing(frozen) as tx:
        old.prove(tx.session)
        freeze(tx)
        heir = pool.submit(lead, living, "ctl_heir").result(120)
        assert (heir.holder, heir.epoch) == ("ctl_heir", old.epoch + 1)


def test_who_freezes_while_counting_events_does_not_keep_others_from_telling(frozen, living):
    def tell(database):
        with database.write(places_events=True) as tx:
            tx.emit("jobs", "job", {})

    tell(living)
    with ThreadPoolExecutor(1) as pool, freezing(frozen) as tx:
        tx.session.execute(text("SELECT last_position FROM event_order FOR UPDATE"))
        freeze(tx)
        pool.submit(tell, living).result(120)


def shown(session, name: str) -> str:
    return session.scalar(text(f"SHOW {name}"))


def test_what_bounds_a_session(postgres_url, living):
    with living.read() as session:
        assert [shown(session, name) for name in BOUNDS] == ["10s", "30s"]
    own = Database(
        f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-c%20lock_timeout=7s"
    )
    with own.read() as session:
        assert [shown(session, name) for name in BOUNDS] == ["10s", "7s"]
    own.close()


def test_a_migration_takes_what_it_takes(empty_postgres_url, monkeypatch):
    seen = []
    real = migrate.command.upgrade

    def upgrade(config, revision):
        connection = config.attributes["connection"]
        seen.extend(shown(connection, name) for name in BOUNDS)
        real(config, revision)

    monkeypatch.setattr(migrate.command, "upgrade", upgrade)
    database = Database(empty_postgres_url)
    migrate.upgrade(database)
    assert seen == ["0", "0"]
    database.close()
