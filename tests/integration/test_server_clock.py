"""All controllers of a database on PostgreSQL go by its clock, however wrong their own are."""

from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest

from st_controller.store.database import Database
from st_controller.store.server_clock import ASKED_AFTER_SECONDS, STEADY, ServerClock
from st_shared.clock import ManualClock, utc_now

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Server:
    """A server that is asked, and takes its time to answer."""

    def __init__(self, *answers: datetime) -> None:
        self.answers, self.asked, self.ended, self.passed = list(answers), 0, 0, 0.0
        self.takes = 0.0

    def execute(self, query: str) -> "Server":
        assert query == "SELECT clock_timestamp()"
        self.asked, self.passed = self.asked + 1, self.passed + self.takes
        return self

    def fetchone(self) -> tuple[datetime]:
        return (self.answers.pop(0),)

    def rollback(self) -> None:
        self.ended += 1


@pytest.fixture
def own() -> ManualClock:
    """The clock of the process, which is wrong."""
    return ManualClock(NOON + timedelta(hours=7))


def clock_of(server: Server, own: ManualClock) -> ServerClock:
    return ServerClock(own, lambda: server.passed)


def test_until_it_was_asked_the_own_clock_counts(own):
    assert clock_of(Server(), own)() == own()


def test_what_the_server_said_goes_on(own):
    server = Server(NOON.astimezone(timezone(timedelta(hours=2))))
    clock = clock_of(server, own)
    clock.ask(server)
    server.passed += 2.5
    own.advance(-900)  # whoever sets it changes nothing
    assert (clock(), clock().tzinfo) == (NOON + timedelta(seconds=2.5), UTC)
    assert server.ended == 1


def test_it_answered_half_way(own):
    server = Server(NOON)
    server.takes = 0.5
    clock = clock_of(server, own)
    clock.ask(server)
    assert clock() == NOON + timedelta(seconds=0.25)


def test_it_is_asked_now_and_then(own):
    server = Server(NOON, NOON + timedelta(hours=1))
    clock = clock_of(server, own)
    clock.ask(server)
    server.passed = ASKED_AFTER_SECONDS - 0.001
    clock.ask(server)
    assert server.asked == 1
    server.passed = ASKED_AFTER_SECONDS
    clock.ask(server)
    assert clock() == NOON + timedelta(hours=1)


@pytest.mark.parametrize("back", [STEADY - timedelta(microseconds=1), STEADY])
def test_small_corrections_let_it_stand_still(own, back):
    due = NOON + timedelta(seconds=ASKED_AFTER_SECONDS)
    server = Server(NOON, due - back)
    clock = clock_of(server, own)
    clock.ask(server)
    server.passed = ASKED_AFTER_SECONDS
    before = clock()
    clock.ask(server)
    assert before == due
    assert clock() == (due if back < STEADY else due - back)
    server.passed += 1
    assert clock() == due - back + timedelta(seconds=1)


def test_an_answer_that_failed_is_asked_for_again(own):
    server = Server()
    clock = clock_of(server, own)
    for _ in range(2):
        with pytest.raises(IndexError):
            clock.ask(server)
    assert (server.asked, clock()) == (2, own())


def wrong_by(error: timedelta) -> datetime:
    return utc_now() + error


def test_controllers_whose_clocks_differ_agree(postgres_url, monkeypatch):
    """Each would take for lost what the others keep alive."""
    made = []
    for hours in (-1, 1):
        own = partial(wrong_by, timedelta(hours=hours))
        monkeypatch.setattr("st_controller.store.database.ServerClock", partial(ServerClock, own))
        made.append(Database(postgres_url))
    for database in made:
        assert abs(database.clock() - utc_now()) > timedelta(minutes=30)
        with database.read():
            pass
        assert abs(database.clock() - utc_now()) < timedelta(minutes=30)
        with database.write() as tx:
            assert abs(tx.now - utc_now()) < timedelta(minutes=30)
        database.close()
