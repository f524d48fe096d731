"""What workers say of themselves, and what operators order."""

import pytest

from st_controller.domain.policy.roles import Role
from st_controller.domain.workers import Patience
from st_controller.errors import Conflict, NotSignedIn
from st_controller.services import worker_credentials, workers
from st_controller.services.joint_heartbeats import Beat, JointHeartbeats
from st_shared.protocol.states import (
    JobState,
    Outcome,
    WorkerDesired,
    WorkerState,
)
from st_shared.protocol.worker import Heartbeat, Lease, SlotUse, Usage

PATIENCE = Patience()


def test_drain_survives_heartbeats_and_registrations(steps):
    steps.submit()
    worker_id = steps.join()
    steps.order(worker_id, WorkerDesired.DRAINING)
    assert steps.beat(worker_id).desired == WorkerDesired.DRAINING
    steps.register(worker_id)
    assert steps.worker(worker_id).desired == WorkerDesired.DRAINING
    assert steps.place() == 0
    steps.order(worker_id, WorkerDesired.ACTIVE)
    assert steps.place() == 1


def test_draining_lets_a_job_finish(steps, running):
    worker_id, attempt_id, job_id = running
    steps.order(worker_id, WorkerDesired.DRAINING)
    assert steps.beat(worker_id, attempt_id).stops == []
    steps.finish(worker_id, attempt_id)
    assert steps.job(job_id).state == JobState.SUCCEEDED


def test_a_retired_worker_cannot_come_back(steps):
    worker_id = steps.join()
    steps.order(worker_id, WorkerDesired.RETIRED)
    with pytest.raises(Conflict) as refused:
        steps.order(worker_id, WorkerDesired.ACTIVE)
    assert refused.value.code == "retired"


@pytest.mark.parametrize("how", ["revoked", "retired"])
def test_a_worker_whose_credential_ended_while_it_called_is_refused(steps, how):
    worker_id = steps.join()
    if how == "revoked":
        with steps.db.write() as tx:
            worker_credentials.revoke(tx, "root", worker_id)
    else:
        steps.order(worker_id, WorkerDesired.RETIRED)
    with pytest.raises(NotSignedIn) as refused:
        steps.register(worker_id)
    assert refused.value.code == "bad_worker_credential"
    steps.submit()
    assert steps.place() == 0


def test_a_revoked_worker_is_offered_nothing_and_not_heard_whatever_its_state_says(steps):
    worker_id = steps.join()
    with steps.db.write() as tx:
        worker_credentials.revoke(tx, "root", worker_id).observed = WorkerState.ONLINE
    steps.submit()
    assert steps.place() == 0
    (answer,) = JointHeartbeats(steps.db, PATIENCE)._together([Beat(worker_id, Heartbeat())])
    assert isinstance(answer, NotSignedIn)


def test_a_retired_worker_gives_its_job_back_at_once_and_the_job_is_not_blamed(steps, running):
    worker_id, attempt_id, job_id = running
    steps.order(worker_id, WorkerDesired.RETIRED)
    job = steps.job(job_id)
    assert (job.state, job.tries_used) == (JobState.QUEUED, 0)
    assert steps.attempt(attempt_id).outcome == "preempted"


def test_what_a_heartbeat_tells_is_kept_until_the_next_that_tells_more(steps):
    worker_id = steps.join()
    told = Usage(slots=[SlotUse(index=0, utilisation=87, memory_used_gb=12)], disk_free_gb=3)
    steps.beat(worker_id, usage=told)
    steps.beat(worker_id)
    [view] = steps.worker_views()
    assert view.usage == told


def test_what_a_worker_has_cached_is_known_from_registration_and_heartbeats(steps):
    worker_id = steps.join()

    def beat(cached):
        with steps.db.write() as tx:
            worker = workers.get_worker(tx.session, worker_id, lock=True)
            workers.heartbeat(tx, worker, Heartbeat(cached=cached), steps.patience)
        [view] = steps.worker_views()
        return view.inventory.cached

    [view] = steps.worker_views()
    assert view.inventory.cached == []
    assert beat(["a" * 64, "b" * 64]) == ["a" * 64, "b" * 64]
    assert beat(None) == ["a" * 64, "b" * 64]
    assert beat([]) == []
    [view] = steps.worker_views()
    assert [slot.index for slot in view.inventory.slots] == [0]


def test_audit_names_of_users_cannot_be_those_of_the_system(steps):
    impostor = steps.user("scheduler", Role.ADMIN)
    job_id = steps.submit(actor=impostor)
    steps.cancel(job_id, impostor)
    assert {entry.actor for entry in steps.audit_of(job_id)} == {"user:scheduler"}


def test_labels_set_here_win_and_survive_registration(steps):
    worker_id = steps.join(own={"region": "us", "rack": "7"}, given={"region": "eu"})
    assert steps.worker(worker_id).labels == {"region": "eu", "rack": "7"}
    steps.register(worker_id, labels={"region": "asia", "rack": "8"})
    assert steps.worker(worker_id).labels == {"region": "eu", "rack": "8"}
    fitting = steps.submit(resources={"labels": {"region": "e*"}})
    steps.submit(resources={"labels": {"region": "asia"}})
    assert steps.place() == 1
    assert steps.job(fitting).state == JobState.ASSIGNED


def test_a_worker_that_no_longer_knows_an_attempt_loses_it(steps, running):
    worker_id, attempt_id, job_id = running
    steps.clock.advance(PATIENCE.offer_ttl + 1)
    assert steps.register(worker_id) == []
    assert steps.job(job_id).state == JobState.QUEUED
    assert steps.attempt(attempt_id).outcome == Outcome.LOST


def test_an_attempt_that_was_claimed_just_now_is_not_lost_by_a_registration(steps, running):
    worker_id, _, job_id = running
    steps.clock.advance(PATIENCE.offer_ttl)
    steps.register(worker_id)
    assert steps.job(job_id).state == JobState.RUNNING


def test_a_worker_that_comes_back_keeps_what_it_holds(steps, running):
    worker_id, attempt_id, job_id = running
    steps.clock.advance(PATIENCE.lease_ttl - 1)
    assert steps.register(worker_id, holding=[Lease(attempt_id=attempt_id, epoch=1)]) == []
    steps.wait(PATIENCE.lease_ttl - 1, alive=[worker_id])
    assert steps.job(job_id).state == JobState.RUNNING


def test_a_worker_that_comes_back_too_late_is_told_what_to_abandon(steps, running):
    worker_id, attempt_id, _ = running
    steps.wait(PATIENCE.lease_ttl)
    held = [Lease(attempt_id=attempt_id, epoch=1)]
    assert steps.register(worker_id, holding=held) == [attempt_id]


def test_a_worker_that_says_goodbye_is_offered_nothing_more(steps, running):
    worker_id, attempt_id, job_id = running
    steps.beat(worker_id, attempt_id, leaving=True)
    assert steps.worker(worker_id).observed == WorkerState.GONE
    steps.submit("waits")
    assert steps.place() == 0
    assert steps.job(job_id).state == JobState.RUNNING  # its lease ends in its own time
    steps.register(worker_id, slots=2, holding=[Lease(attempt_id=attempt_id, epoch=1)])
    assert steps.place() == 1
