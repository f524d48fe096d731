"""Credentials in memory: believed for moments, and never after somebody said that one ended."""

from datetime import timedelta
from threading import Event, Thread

import pytest

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import Role
from st_controller.services.caller import Caller, WorkerCaller
from st_controller.services.known_credentials import BELIEVED, MOST, KnownCredentials

WORKER = WorkerCaller("wrk_1", "w", "0" * 64)


@pytest.fixture
def known():
    return KnownCredentials()


class Counted:
    def __init__(self, holder):
        self.holder, self.calls = holder, 0

    def __call__(self):
        self.calls += 1
        return self.holder


def caller(expires_at):
    return Caller(
        user_id="usr_1",
        username="root",
        permissions=frozenset(),
        org="default",
        team="default",
        teams=frozenset({"default"}),
        role=Role.ADMIN,
        rank=100,
        widest=Reach.SYSTEM,
        via="api_key",
        credential_id="key_1",
        expires_at=expires_at,
    )


def test_it_is_looked_up_once_in_a_while(known, clock):
    look_up = Counted(WORKER)
    for _ in range(5):
        assert known.find("d", clock(), look_up) == WORKER
    assert look_up.calls == 1
    clock.advance(BELIEVED.total_seconds())
    assert known.find("d", clock(), look_up) == WORKER
    assert look_up.calls == 2


def test_other_credentials_are_others(known, clock):
    known.find("d", clock(), Counted(WORKER))
    assert known.recall("e", clock()) is None


def test_a_refusal_is_not_kept(known, clock):
    nobody = Counted(None)
    assert known.find("d", clock(), nobody) is None
    assert known.find("d", clock(), nobody) is None
    assert nobody.calls == 2


def test_the_end_of_a_credential_is_kept_to_the_moment(known, clock):
    holder = caller(clock() + timedelta(seconds=1))
    known.find("d", clock(), Counted(holder))
    assert known.recall("d", clock()) == holder
    clock.advance(1)
    assert known.recall("d", clock()) is None


def test_a_clock_that_was_set_back_prolongs_nothing(known, clock):
    known.find("d", clock(), Counted(WORKER))
    assert known.recall("d", clock() - timedelta(hours=1)) is None


def test_forgetting_is_at_once(known, clock):
    known.find("d", clock(), Counted(WORKER))
    known.forget()
    assert known.recall("d", clock()) is None


def test_what_was_looked_up_before_the_end_was_told_is_not_kept(known, clock):
    """The look-up saw the credential in force; it ended and was forgotten before it was kept."""
    begun, go = Event(), Event()

    def slow():
        begun.set()
        assert go.wait(120)
        return WORKER

    asking = Thread(target=known.find, args=("d", clock(), slow))
    asking.start()
    assert begun.wait(120)
    known.forget()
    go.set()
    asking.join(120)
    assert known.recall("d", clock()) is None


def test_memory_is_bounded(known, clock):
    for number in range(MOST + 1):
        known.find(str(number), clock(), Counted(WORKER))
    assert known.recall("0", clock()) is None
    assert known.recall(str(MOST), clock()) == WORKER
