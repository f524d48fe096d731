"""Writers of SQLite that share a commit: each alone, all or none of its own, in one order."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, OperationalError

from st_controller.events.feed import EventFeed
from st_controller.services import outbox
from st_controller.store import group_commit
from st_controller.store.database import Database
from st_controller.store.group_commit import MOST, NotCommittedError
from st_controller.store.schema import AuditEntry, LeaderLease, OutboxEvent
from st_shared.clock import utc_now

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def lite(sqlite_template, tmp_path, clock, monkeypatch):
    # How many share a commit shall not depend on how fast this machine is.
    monkeypatch.setattr(group_commit, "LONGEST_SECONDS", 60.0)
    path = tmp_path / "controller.db"
    shutil.copy(sqlite_template, path)
    made = Database(f"sqlite:///{path}", clock=clock)
    yield made
    made.close()


@pytest.fixture
def crowd(lite):
    """Starts functions as writers, all of which stand in line behind one that has the turn."""

    @contextmanager
    def gathered(*functions):
        with ThreadPoolExecutor(len(functions)) as pool:
            with lite.write() as first:
                first.audit("a", "first", "t")
                futures = []
                for number, function in enumerate(functions, start=1):
                    futures.append(pool.submit(function))
                    while len(lite._together._line) < number:
                        assert not futures[-1].done()
            yield futures

    return gathered


def writer(db, name, *, fail=None):
    def work():
        with db.write() as tx:
            tx.session.add(lease(name))
            tx.audit("a", name, "t")
            tx.emit("t", "k", {"name": name})
            if fail:
                fail(tx)

    return work


def lease(name):
    return LeaderLease(name=name, holder="h", epoch=1, expires_at=utc_now())


def names(db):
    with db.read() as session:
        return set(session.scalars(select(LeaderLease.name)))


def test_those_who_wait_are_committed_together_and_none_before_that(lite, crowd):
    announced = []
    lite.notify = lambda topics: announced.append(names(lite))
    with crowd(*(writer(lite, f"w{n}") for n in range(8))) as futures:
        for future in futures:
            future.result(120)
    assert names(lite) == {f"w{n}" for n in range(8)}
    # Announced once for all of them, when all were there to be seen.
    assert announced == [names(lite)]


def test_one_that_fails_takes_nobody_with_it(lite, crowd):
    def by_itself(_tx):
        raise ZeroDivisionError

    def by_the_database(tx):
        tx.session.add(lease("w0"))  # is there already
        tx.session.flush()

    def at_the_end(tx):
        tx.emit("t", "k", {"not": object()})

    with crowd(
        writer(lite, "w0"),
        writer(lite, "bad1", fail=by_itself),
        writer(lite, "w1"),
        writer(lite, "bad2", fail=by_the_database),
        writer(lite, "bad3", fail=at_the_end),
        writer(lite, "w2"),
    ) as futures:
        pass
    refused = [type(future.exception(120)) for future in futures]
    ok = type(None)
    assert refused[4] is not ok
    assert refused == [ok, ZeroDivisionError, ok, IntegrityError, refused[4], ok]
    assert names(lite) == {"w0", "w1", "w2"}
    with lite.read() as session:
        assert set(session.scalars(select(AuditEntry.action))) == {"first", "w0", "w1", "w2"}
        places = session.execute(
            select(OutboxEvent.position, OutboxEvent.body).order_by(OutboxEvent.position)
        ).all()
    assert [(place, body["name"]) for place, body in places] == [(1, "w0"), (2, "w1"), (3, "w2")]


def test_the_last_of_a_group_may_fail_and_the_others_are_still_committed(lite, crowd):
    def fail(_tx):
        raise ZeroDivisionError

    with crowd(writer(lite, "w0"), writer(lite, "bad", fail=fail)) as futures:
        futures[0].result(120)
        assert isinstance(futures[1].exception(120), ZeroDivisionError)
    assert names(lite) == {"w0"}


def test_when_the_commit_fails_everybody_is_told(lite, crowd):
    def lose_all(tx):
        """As SQLite does by itself when the disk is full."""
        tx.session.connection().connection.driver_connection.execute("ROLLBACK")
        raise OperationalError("INSERT", None, sqlite3.OperationalError("disk is full"))

    def second(answer):
        with pytest.raises(OperationalError):
            writer(lite, "w1", fail=lose_all)()
        answer.append("told")

    told = []
    with (
        pytest.raises(NotCommittedError),
        crowd(writer(lite, "w0"), lambda: second(told)),
    ):
        pass
    assert told == ["told"]
    assert names(lite) == set()
    writer(lite, "later")()
    assert names(lite) == {"later"}


def test_a_writer_that_cannot_begin_does_not_block_the_next(lite):
    with lite.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA busy_timeout = 0")
    blocker = sqlite3.connect(lite.engine.url.database, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="locked"):
        writer(lite, "refused")()
    blocker.execute("ROLLBACK")
    blocker.close()
    writer(lite, "welcome")()
    assert names(lite) == {"welcome"}


def test_what_one_does_the_next_sees_and_readers_do_not(lite):
    seen, hold, go = [], Event(), Event()

    def first():
        with lite.write() as tx:
            tx.session.add(lease("mine"))
            tx.session.flush()
            hold.set()
            go.wait(120)

    def second():
        with lite.write() as tx:
            seen.append((tx.session.get(LeaderLease, "mine") is not None, names(lite)))

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        hold.wait(120)
        two = pool.submit(second)
        while not lite._together._line:
            pass
        go.set()
        one.result(120)
        two.result(120)
    assert seen == [(True, set())]


def test_many_writers_lose_and_double_nothing(lite):
    feed = EventFeed()
    feed.begin(0)
    feed.is_tailed = True
    lite.deliver = feed.take

    def work(turn):
        for number in range(20):
            with lite.write() as tx:
                tx.emit("t", "k", {"n": [turn, number]})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    with lite.read() as session:
        stored = outbox.events_after(session, ["t"], 0, limit=1000)
    assert [event.position for event in stored] == list(range(1, 321))
    assert feed.after(["t"], 0).events == stored
    for turn in range(16):
        assert [e.body["n"][1] for e in stored if e.body["n"][0] == turn] == list(range(20))


def test_a_relay_among_writers_counts_on(lite, crowd):
    """What was left without a place gets one from the same counter."""

    def without_place():
        with lite.write() as tx:
            tx.emit("t", "k", {"name": "late"})
            tx.settle(None)

    def relay():
        with lite.write() as tx:
            outbox.assign_positions(tx)

    with crowd(writer(lite, "a"), without_place, writer(lite, "b"), relay, writer(lite, "c")) as f:
        for future in f:
            future.result(120)
    with lite.read() as session:
        told = [event.body["name"] for event in outbox.events_after(session, ["t"], 0)]
        assert outbox.current_position(session) == 4
        assert session.scalar(select(func.count()).select_from(OutboxEvent)) == 4
    assert told == ["a", "b", "late", "c"]


def test_a_group_is_bounded(lite, crowd):
    seen = []
    lite.notify = lambda _topics: seen.append(len(names(lite)))
    with crowd(*(writer(lite, f"w{n}") for n in range(MOST + 10))) as futures:
        for future in futures:
            future.result(120)
    assert seen == [MOST - 1, MOST + 10]  # the one that all waited for is of the first group
