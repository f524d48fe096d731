"""Claims of many workers in one transaction: what one of them meets harms no other."""

import pytest
from sqlalchemy import select

from st_controller.errors import NotFound
from st_controller.services import worker_orders
from st_controller.services.joint_claims import JointClaims, Wanted
from st_controller.store.schema import Attempt, Job
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState, JobState


@pytest.fixture
def claims(steps):
    return JointClaims(steps.db, steps.objects, steps.patience)


def test_a_worker_that_was_deleted_is_refused_alone(steps, claims):
    gone = steps.join("gone", one_job=True)
    strange = Wanted(steps.caller(gone), (new_id("att"),))
    with steps.db.write() as tx:
        worker_orders.delete(tx, "root", gone, force=True)
    worker_id, _ = steps.join("there"), steps.submit()
    steps.place()
    wanted = Wanted(steps.caller(worker_id), (steps.offered(worker_id),))
    refused, claimed = claims._combining._answer([strange, wanted])
    assert isinstance(refused, NotFound)
    assert [each.attempt_id for each in claimed.claims] == list(wanted.attempt_ids)


def test_claims_of_one_offer_that_come_together_are_one(steps, claims):
    steps.submit()
    worker_id = steps.join()
    steps.place()
    wanted = Wanted(steps.caller(worker_id), (steps.offered(worker_id),))
    other = Wanted(steps.caller(steps.join("other")), wanted.attempt_ids)
    first, refused, again = claims._combining._answer([wanted, other, wanted])
    assert first.claims[0].epoch == again.claims[0].epoch == 1
    assert list(refused.refused) == list(wanted.attempt_ids)
    actions = [entry.action for entry in steps.audit_of(wanted.attempt_ids[0])]
    assert actions.count("attempt.claimed") == 1


def test_a_claim_whose_answer_was_lost_changes_nothing_the_second_time(steps, claims):
    steps.submit()
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.ship(worker_id, attempt_id, state=AttemptState.PREPARING)
    before = steps.attempt(attempt_id)
    steps.clock.advance(5)
    claimed = claims._alone(Wanted(steps.caller(worker_id), (attempt_id,)))
    after = steps.attempt(attempt_id)
    assert [each.attempt_id for each in claimed.claims] == [attempt_id]
    for name in ("state", "claimed_at", "lease_expires_at"):
        assert getattr(after, name) == getattr(before, name)


def test_what_is_taken_back_of_a_worker_for_one_job_is_locked_with_what_it_claims(
    steps, claims, meanwhile
):
    if steps.db.is_sqlite:
        pytest.skip("SQLite locks no rows")
    worker_id = steps.join(slots=2, one_job=True)
    first, second = sorted([steps.submit("a"), steps.submit("b")])
    assert steps.place() == 2
    with steps.db.read() as session:
        offer = session.scalar(select(Attempt.id).where(Attempt.job_id == second))
    one = select(Job.id).with_for_update()
    with steps.db.write() as tx:  # as the end of an array that both belong to
        tx.session.execute(one.where(Job.id == first)).all()
        claimed = meanwhile(claims._alone, Wanted(steps.caller(worker_id), (offer,)))
        tx.session.execute(one.where(Job.id == second)).all()
    assert [each.attempt_id for each in claimed.result(120).claims] == [offer]
    assert steps.job(first).state == JobState.QUEUED
