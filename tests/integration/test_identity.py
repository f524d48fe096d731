"""Set-up, log-in and keys on both databases, several at once."""

import threading
from datetime import timedelta

import pytest

from st_controller.errors import Conflict, NotPermitted, NotSignedIn, Refusal
from st_controller.services import identity, setup
from st_controller.services.join_tokens import create_token, token_in_force
from st_controller.store.schema import AuditEntry, SetupToken, User
from st_shared.protocol.resources import JoinTokenRequest

PASSWORD = "correct horse battery"


@pytest.fixture
def setup_token(db):
    with db.write() as transaction:
        return setup.ensure_setup_token(transaction)


@pytest.fixture
def admin(db, setup_token):
    with db.write() as transaction:
        return setup.create_first_admin(transaction, setup_token, "root", PASSWORD)


def at_once(count, act):
    """Run ``act`` in so many threads; what each returned or was refused with."""
    results, gate = [], threading.Barrier(count)

    def one():
        gate.wait()
        try:
            results.append(act())
        except Refusal as refusal:
            results.append(refusal)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_many_who_hold_the_setup_token_one_becomes_admin(db, setup_token):
    names = iter(f"root{n}" for n in range(6))

    def act():
        with db.write() as transaction:
            return setup.create_first_admin(transaction, setup_token, next(names), PASSWORD)

    results = at_once(6, act)
    refused = [result for result in results if isinstance(result, Refusal)]
    assert len(refused) == 5
    assert {type(result) for result in refused} <= {Conflict, NotPermitted}
    with db.read() as session:
        assert session.query(User).count() == 1
        assert session.query(SetupToken).count() == 0


def test_a_new_setup_token_replaces_the_old_one(db, setup_token):
    with db.write() as transaction:
        assert setup.ensure_setup_token(transaction) != setup_token
    with pytest.raises(NotPermitted), db.write() as transaction:
        setup.create_first_admin(transaction, setup_token, "root", PASSWORD)


def test_after_set_up_there_is_no_token(db, admin):
    with db.write() as transaction:
        assert setup.ensure_setup_token(transaction) is None


def test_set_up_is_audited_without_the_password(db, admin):
    with db.read() as session:
        (entry,) = session.query(AuditEntry).all()
    assert (entry.actor, entry.action) == ("setup", "user.created")
    assert PASSWORD not in str(entry.details)


def test_a_session_opens_and_ends(db, admin, clock):
    opened = identity.sign_in(db, "root", PASSWORD, timedelta(hours=1))
    with db.read() as session:
        caller = identity.caller_by_session(session, opened.token, clock())
    assert (caller.username, caller.via) == ("root", "session")
    with db.write() as transaction:
        identity.revoke_session(transaction, caller)
    with db.read() as session:
        assert identity.caller_by_session(session, opened.token, clock()) is None


def test_a_disabled_user_cannot_sign_in(db, admin, clock):
    with db.write() as transaction:
        transaction.session.query(User).update({"disabled_at": clock()})
    with pytest.raises(NotSignedIn):
        identity.sign_in(db, "root", PASSWORD, timedelta(hours=1))


def test_a_join_token_serves_no_more_workers_than_it_says(db, admin):
    with db.write() as transaction:
        made = create_token(
            transaction, JoinTokenRequest(uses=2), user_id=admin.user_id, actor="test"
        )

    def act():
        with db.write() as transaction:
            token_in_force(transaction, made.token).uses_left -= 1

    results = at_once(6, act)
    assert sum(result is None for result in results) == 2
    assert sum(isinstance(result, NotSignedIn) for result in results) == 4
