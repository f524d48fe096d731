"""Secrets of jobs: who may name which, what a worker is given, and where a value never is."""

import pytest
from sqlalchemy import func, inspect, select, text

from st_controller.auth.vault import LocalKey, Vault
from st_controller.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    NotPermitted,
    StaleLease,
    Unavailable,
)
from st_controller.services import stored_secrets
from st_controller.store.schema import AuditEntry

VAULT = Vault(lambda: [LocalKey(b"k" * 32)])
VALUE = "hf_never_to_be_seen"


def keep(steps, actor, name, value=VALUE, *, shared=False, vault=VAULT):
    sealed = stored_secrets.seal(vault, actor, name, value, shared=shared)
    with steps.db.write() as tx:
        return stored_secrets.put(tx, actor, name, sealed, shared=shared)


def remove(steps, actor, name, *, shared=False) -> None:
    with steps.db.write() as tx:
        stored_secrets.remove(tx, actor, name, shared=shared)


def names(steps, actor) -> list[tuple[str, bool]]:
    with steps.db.read() as session:
        return [(item.name, item.shared) for item in stored_secrets.usable(session, actor)]


def deliver(steps, worker_id, attempt_id, *, epoch=1, vault=VAULT):
    return stored_secrets.deliver(steps.db, vault, worker_id, attempt_id, epoch)


@pytest.fixture
def anna(steps):
    return steps.user("anna", "researcher")


@pytest.fixture
def attempt(steps, anna):
    """A claimed attempt of anna's job that names a secret: ``(worker, attempt)``."""
    keep(steps, anna, "hub")
    steps.submit(actor=anna, secrets={"HF_TOKEN": "hub"})
    worker_id = steps.join()
    return worker_id, steps.claimed(worker_id)


def test_secrets_are_replaced_and_removed_by_name(steps, anna):
    first = keep(steps, anna, "hub")
    steps.clock.advance(5)
    again = keep(steps, anna, "hub", "another value")
    assert again.created_at == first.created_at
    assert again.changed_at > first.changed_at
    keep(steps, anna, "hub", shared=True)
    assert names(steps, anna) == [("hub", True), ("hub", False)]
    remove(steps, anna, "hub")
    assert names(steps, anna) == [("hub", True)]
    with pytest.raises(NotFound, match="'hub'"):
        remove(steps, anna, "hub")


def test_only_ones_own_and_those_of_ones_organisation_can_be_named(steps, anna):
    ben, other = steps.user("ben", "researcher"), steps.user("otto", "researcher", "other")
    keep(steps, ben, "bens")
    keep(steps, anna, "shared", shared=True)
    steps.submit(actor=ben, secrets={"A": "bens", "B": "shared"})
    for actor, name in ((anna, "bens"), (other, "shared"), (other, "bens"), (anna, "none")):
        with pytest.raises(InvalidRequest) as refused:
            steps.submit(actor=actor, secrets={"TOKEN": name})
        assert refused.value.errors[0].field == "secrets.TOKEN"
    assert names(steps, other) == []


def test_who_may_not_keep_secrets_may_not_use_them(steps):
    viewer = steps.user("vera", "viewer", allow=["job.submit"])
    keep(steps, steps.admin, "shared", shared=True)
    with pytest.raises(NotPermitted) as refused:
        steps.submit(actor=viewer, secrets={"TOKEN": "shared"})
    assert refused.value.errors[0].field == "secrets"


def test_managing_shared_ones_takes_the_reach_of_an_organisation(steps):
    stored_secrets.must_manage(steps.admin)
    lead = steps.user("lea", "lead", allow=["secret.manage"])
    with pytest.raises(NotPermitted):
        stored_secrets.must_manage(lead)


def test_a_worker_is_given_what_its_lease_covers(steps, attempt):
    worker_id, attempt_id = attempt
    assert deliver(steps, worker_id, attempt_id) == {"HF_TOKEN": VALUE}
    assert deliver(steps, worker_id, attempt_id) == {"HF_TOKEN": VALUE}
    with pytest.raises(StaleLease):
        deliver(steps, worker_id, attempt_id, epoch=2)
    with pytest.raises(StaleLease):
        deliver(steps, steps.join("other"), attempt_id)
    with steps.db.read() as session:
        told = session.scalars(
            select(AuditEntry).where(AuditEntry.action == "secret.delivered")
        ).all()
    assert [(entry.actor, entry.target) for entry in told] == [
        (f"worker:{worker_id}", attempt_id)
    ] * 2


def test_ones_own_wins_over_the_organisations(steps, anna, attempt):
    keep(steps, anna, "hub", "of the organisation", shared=True)
    assert deliver(steps, *attempt) == {"HF_TOKEN": VALUE}
    remove(steps, anna, "hub")
    assert deliver(steps, *attempt) == {"HF_TOKEN": "of the organisation"}


def test_a_secret_that_is_gone_is_said_to_be(steps, anna, attempt):
    remove(steps, anna, "hub")
    with pytest.raises(Conflict, match="hub") as refused:
        deliver(steps, *attempt)
    assert refused.value.code == "secret_missing"


def test_another_key_opens_nothing(steps, attempt):
    with pytest.raises(Unavailable):
        deliver(steps, *attempt, vault=Vault(lambda: [LocalKey(b"o" * 32)]))


def test_a_row_that_was_put_in_anothers_place_does_not_open(steps, anna, attempt):
    ben = steps.user("ben", "researcher")
    keep(steps, ben, "hub", "the secret of ben")
    with steps.db.write() as tx:
        tx.session.execute(
            text(
                "UPDATE secrets SET box = (SELECT box FROM secrets WHERE owner = :b), wrapped_key ="
                " (SELECT wrapped_key FROM secrets WHERE owner = :b) WHERE owner = :a"
            ),
            {"a": anna.user_id, "b": ben.user_id},
        )
    with pytest.raises(Unavailable):
        deliver(steps, *attempt)


def test_the_database_holds_the_value_nowhere(steps, attempt):
    """Not in the job, its events, the outbox, the audit log, or any other column of any table."""
    deliver(steps, *attempt)
    steps.relay()
    with steps.db.read() as session:
        for table in inspect(session.connection()).get_table_names():
            for row in session.execute(text(f'SELECT * FROM "{table}"')):
                assert VALUE not in repr(tuple(row)), table
        assert session.scalar(select(func.count()).select_from(AuditEntry)) > 3


def test_there_is_an_end_to_secrets(steps, anna, monkeypatch):
    monkeypatch.setattr(stored_secrets, "MOST", 2)
    for name in ("a", "b", "a"):
        keep(steps, anna, name)
    with pytest.raises(Conflict):
        keep(steps, anna, "c")
    keep(steps, anna, "c", shared=True)


def test_no_environment_holds_a_nul_character(anna):
    with pytest.raises(InvalidRequest):
        stored_secrets.seal(VAULT, anna, "x", "with \x00 inside", shared=False)
