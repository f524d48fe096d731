"""What operators order of workers: cordon, drain, labels, deletion; no heartbeat undoes them."""

from datetime import timedelta

import pytest

from st_controller.auth import secrets
from st_controller.errors import Conflict, NotFound, NotSignedIn
from st_controller.services import (
    identity,
    joint_heartbeats,
    views,
    worker_credentials,
    worker_orders,
    workers,
)
from st_controller.services.joint_heartbeats import Beat
from st_shared.protocol.resources import LabelChange
from st_shared.protocol.states import JobState, Outcome, WorkerDesired, WorkerState
from st_shared.protocol.worker import GarbageReport, Heartbeat

AT_ONCE = timedelta()


def change(steps, function, *arguments, **options):
    with steps.db.write() as tx:
        return function(tx, *arguments, **options)


def view_of(steps, worker_id):
    with steps.db.read() as session:
        (view,) = views.worker_views(session, steps.admin, [workers.get_worker(session, worker_id)])
    return view


def kinds_told(steps, worker_id):
    return [event.kind for event in steps.events(f"worker:{worker_id}")]


@pytest.mark.parametrize("desired", [WorkerDesired.CORDONED, WorkerDesired.DRAINING])
def test_no_heartbeat_and_no_registration_undoes_an_order(steps, desired):
    steps.submit()
    worker_id = steps.join()
    steps.order(worker_id, desired)
    assert steps.beat(worker_id).desired == desired
    steps.register(worker_id)
    steps.beat(worker_id, leaving=True)
    steps.register(worker_id)
    assert steps.worker(worker_id).desired == desired
    assert steps.place() == 0
    steps.order(worker_id, WorkerDesired.ACTIVE)
    assert steps.place() == 1


def test_a_cordoned_worker_keeps_what_it_runs_and_gives_open_offers_back(steps):
    worker_id = steps.join(slots=2)
    first = steps.submit("first")
    attempt_id = steps.claimed(worker_id)
    second = steps.submit("second")
    assert steps.place() == 1
    steps.order(worker_id, WorkerDesired.CORDONED, why="new disks")
    assert steps.job(second).state == JobState.QUEUED
    assert steps.beat(worker_id, attempt_id).stops == []
    said = view_of(steps, worker_id).reason
    assert said.code == "cordoned"
    assert "by root" in said.message
    assert "(new disks): nothing new is offered; 1 job goes on" in said.message
    steps.finish(worker_id, attempt_id)
    assert steps.job(first).state == JobState.SUCCEEDED


def test_a_drain_without_a_deadline_waits_for_what_runs(steps, running):
    worker_id, attempt_id, _ = running
    steps.order(worker_id, WorkerDesired.DRAINING)
    steps.clock.advance(20)
    assert steps.beat(worker_id, attempt_id).stops == []
    steps.sweep()
    assert steps.attempt(attempt_id).stop is None
    assert "1 job goes on, to their ends" in view_of(steps, worker_id).reason.message
    steps.finish(worker_id, attempt_id)
    assert view_of(steps, worker_id).reason.code == "drained"


def test_a_drain_stops_what_is_preemptible_at_its_deadline_and_the_job_is_queued_again(
    steps, running
):
    worker_id, attempt_id, job_id = running
    steps.order(worker_id, WorkerDesired.DRAINING, grace=timedelta(seconds=30))
    for _ in range(2):
        steps.clock.advance(15)
        stops = steps.beat(worker_id, attempt_id).stops
        steps.sweep()
    assert stops == []
    (stop,) = steps.beat(worker_id, attempt_id).stops
    assert (stop.attempt_id, stop.reason) == (attempt_id, "preempt")
    steps.sweep()
    assert kinds_told(steps, worker_id).count("stop") == 1
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    job = steps.job(job_id)
    assert (job.state, job.tries_used, job.preemptions) == (JobState.QUEUED, 0, 0)


def test_a_drain_at_once_still_waits_for_what_is_not_preemptible(steps):
    worker_id = steps.join(slots=2)
    for name, preemptible in (("stays", False), ("yields", True)):
        steps.submit(name, preemptible=preemptible)
    assert steps.place() == 2
    with steps.db.read() as session:
        offers = workers.sync(session, workers.get_worker(session, worker_id)).offers
    for offer in offers:
        steps.claim(worker_id, offer.attempt_id)
    steps.order(worker_id, WorkerDesired.DRAINING, grace=AT_ONCE)
    stops = {
        steps.job(steps.attempt(offer.attempt_id).job_id).name: steps.attempt(offer.attempt_id).stop
        for offer in offers
    }
    assert stops == {"stays": None, "yields": "preempt"}


@pytest.mark.parametrize(
    ("ordered", "wished", "due"),
    [(None, None, None), (None, 30, 30), (60, None, 60), (60, 30, 30), (60, 90, 60)],
)
def test_a_drain_that_the_host_wishes_makes_no_operators_deadline_later(
    steps, running, ordered, wished, due
):
    worker_id, attempt_id, _ = running
    if ordered:
        steps.order(worker_id, WorkerDesired.DRAINING, grace=timedelta(seconds=ordered))
    grace = None if wished is None else timedelta(seconds=wished)
    change(steps, worker_orders.drain_as_wished, worker_id, grace)
    worker = steps.worker(worker_id)
    assert (worker.desired, worker.desired_by) == ("draining", f"worker:{worker_id}")
    until = worker.drain_until
    assert due == (until and (until - steps.clock()).total_seconds())
    assert steps.beat(worker_id, attempt_id).desired == "draining"
    assert "(asked for on its host)" in view_of(steps, worker_id).reason.message
    steps.order(worker_id, WorkerDesired.ACTIVE)
    assert steps.beat(worker_id, attempt_id).desired == "active"


def test_labels_that_were_set_here_win_and_stay(steps):
    worker_id = steps.join(own={"region": "us", "rack": "7"}, given={"region": "eu"})
    change(steps, worker_orders.label, "root", worker_id, LabelChange(set={"rack": "9", "new": ""}))
    steps.register(worker_id, labels={"region": "us", "rack": "7"})
    assert view_of(steps, worker_id).labels == {"region": "eu", "rack": "9", "new": ""}
    change(steps, worker_orders.label, "root", worker_id, LabelChange(remove=["rack", "new"]))
    view = view_of(steps, worker_id)
    assert view.labels == {"region": "eu", "rack": "7"}
    assert view.set_labels == {"region": "eu"}
    with pytest.raises(Conflict, match="'rack' was not set on the controller"):
        change(steps, worker_orders.label, "root", worker_id, LabelChange(remove=["rack"]))


def test_a_label_decides_at_once_where_a_job_goes(steps):
    worker_id = steps.join(own={"pool": "a"})
    steps.submit(resources={"labels": {"pool": "b"}})
    assert steps.place() == 0
    change(steps, worker_orders.label, "root", worker_id, LabelChange(set={"pool": "b"}))
    assert steps.place() == 1


def test_a_deleted_worker_is_in_no_list_and_its_history_stays(steps, running):
    worker_id, attempt_id, job_id = running
    with pytest.raises(Conflict) as refused:
        change(steps, worker_orders.delete, "root", worker_id, force=False)
    assert (refused.value.code, job_id in str(refused.value)) == ("worker_busy", True)
    steps.finish(worker_id, attempt_id)
    change(steps, worker_orders.delete, "root", worker_id, force=False)
    with steps.db.read() as session:
        assert workers.list_workers(session, retired=True) == []
        (attempt,) = views.attempt_views(session, job_id)
    assert attempt.worker == "w"
    with pytest.raises(NotFound):
        change(steps, worker_orders.delete, "root", worker_id, force=False)


def test_a_worker_deleted_by_force_gives_its_job_back(steps, running):
    worker_id, attempt_id, job_id = running
    change(steps, worker_orders.delete, "root", worker_id, force=True)
    assert steps.job(job_id).state == JobState.QUEUED
    assert steps.attempt(attempt_id).outcome == Outcome.PREEMPTED


def test_a_retired_worker_is_listed_only_if_asked_for(steps):
    worker_id = steps.join()
    steps.order(worker_id, WorkerDesired.RETIRED)
    with steps.db.read() as session:
        assert workers.list_workers(session) == []
        assert [each.id for each in workers.list_workers(session, retired=True)] == [worker_id]


def test_a_worker_that_leaves_is_gone_and_not_lost(steps, running):
    worker_id, _, job_id = running
    change(steps, worker_orders.leave, worker_id)
    worker = steps.worker(worker_id)
    assert (worker.observed, worker.desired) == (WorkerState.GONE, WorkerDesired.RETIRED)
    assert steps.job(job_id).state == JobState.QUEUED
    steps.wait(60)
    assert "worker.silent" not in {entry.action for entry in steps.audit_of(worker_id)}


def test_a_worker_for_one_job_is_offered_no_second(steps):
    worker_id = steps.join(slots=4, one_job=True)
    jobs = [steps.submit(f"j{number}") for number in range(3)]
    assert steps.place() == 3
    with steps.db.read() as session:
        offers = workers.sync(session, workers.get_worker(session, worker_id)).offers
    caller = steps.caller(worker_id)
    with steps.db.write() as tx, worker_orders.one_job_at_most(tx, caller):
        steps.claim_in(tx, worker_id, offers[0].attempt_id)
    states = [steps.job(job_id).state for job_id in jobs]
    assert sorted(states) == [JobState.ASSIGNED, JobState.QUEUED, JobState.QUEUED]
    assert steps.place() == 0
    assert steps.beat(worker_id, offers[0].attempt_id).desired == WorkerDesired.DRAINING


def test_garbage_is_ordered_of_all_that_may_come_back(steps):
    one, two, retired, revoked = (steps.join(name) for name in ("a", "b", "c", "d"))
    steps.order(retired, WorkerDesired.RETIRED)
    change(steps, worker_credentials.revoke, "root", revoked)
    with steps.db.write() as tx:
        assert worker_orders.collect_garbage_everywhere(tx, "root") == 2
    assert [steps.beat(each).collect_garbage for each in (one, two)] == [True, True]
    (told,) = steps.audit_of("workers")
    assert (told.action, told.details) == ("workers.collect_garbage", {"count": 2})


def test_an_order_to_all_stands_until_each_has_done_it_and_not_for_those_that_come_later(steps):
    one, two = steps.join("a"), steps.join("b")
    change(steps, worker_orders.collect_garbage_everywhere, "root")
    steps.clock.advance(1)
    late = steps.join("c")
    change(steps, worker_orders.garbage_collected, one, GarbageReport(removed=0, freed_gb=0.0))
    everybody = (one, two, late)

    def due():
        by_itself = [steps.beat(each).collect_garbage for each in everybody]
        with steps.db.write() as tx:  # as one of many that beat together, and as a stream begins
            known = joint_heartbeats._known(tx, [Beat(each, Heartbeat()) for each in everybody])
            begun = [workers.sync(tx.session, steps.worker(each)) for each in everybody]
        assert [bool(known[each].garbage_is_due) for each in everybody] == by_itself
        assert [each.collect_garbage for each in begun] == by_itself
        return by_itself

    assert due() == [False, True, False]
    steps.clock.advance(1)
    assert change(steps, worker_orders.collect_garbage_everywhere, "root") == 3
    assert due() == [True, True, True]


def test_garbage_is_ordered_until_it_is_collected(steps):
    worker_id = steps.join()
    change(steps, worker_orders.collect_garbage, "root", worker_id)
    assert "collect_garbage" in kinds_told(steps, worker_id)
    for _ in range(2):
        assert steps.beat(worker_id).collect_garbage
    report = GarbageReport(removed=3, freed_gb=1.5)
    change(steps, worker_orders.garbage_collected, worker_id, report)
    assert not steps.beat(worker_id).collect_garbage
    told = steps.audit_of(worker_id)[-1]
    assert (told.action, told.details["freed_gb"]) == ("worker.garbage_collected", 1.5)


class TestCredentials:
    def test_a_rotation_is_ordered_until_the_new_credential_is_used(self, steps):
        worker_id = steps.join()
        change(steps, worker_credentials.rotate, "root", worker_id)
        assert "rotate" in kinds_told(steps, worker_id)
        fresh = change(steps, worker_credentials.issue, worker_id)
        assert steps.beat(worker_id).rotate
        assert view_of(steps, worker_id).rotation_ordered
        with steps.db.read() as session:
            before = identity.hashes_in_force(session, [worker_id])
        assert len(before) == 2
        steps.clock.advance(5)
        digest = secrets.digest(fresh)
        for _ in range(2):  # two calls may be the first at once
            change(steps, worker_credentials.take_into_force, digest)
        with steps.db.read() as session:
            assert identity.hashes_in_force(session, [worker_id]) == {digest}
        view = view_of(steps, worker_id)
        assert (view.rotation_ordered, view.credential_at) == (False, steps.clock())
        assert not steps.beat(worker_id).rotate

    def test_no_credential_of_a_worker_that_was_retired_comes_into_force(self, steps):
        worker_id = steps.join()
        fresh = change(steps, worker_credentials.issue, worker_id)
        steps.order(worker_id, WorkerDesired.RETIRED)
        assert not change(steps, worker_credentials.take_into_force, secrets.digest(fresh))

    def test_credentials_that_are_old_are_to_be_rotated_and_no_others(self, steps):
        old = steps.join("old")
        steps.clock.advance(20 * 86_400)
        new = steps.join("new")
        steps.clock.advance(10 * 86_400)
        for worker_id in (old, new):
            steps.register(worker_id)
        steps.sweep()
        assert [steps.beat(worker_id).rotate for worker_id in (old, new)] == [True, False]

    def test_a_revoked_credential_gives_the_jobs_back_and_no_heartbeat_revives_it(
        self, steps, running
    ):
        worker_id, _, job_id = running
        change(steps, worker_credentials.revoke, "root", worker_id)
        assert steps.job(job_id).state == JobState.QUEUED
        with pytest.raises(NotSignedIn):  # one that was on its way
            steps.beat(worker_id)
        assert steps.worker(worker_id).observed == WorkerState.GONE
        assert view_of(steps, worker_id).reason.code == "revoked"
        assert steps.place() == 0
        for again in (worker_credentials.revoke, worker_credentials.rotate):
            with pytest.raises(Conflict) as refused:
                change(steps, again, "root", worker_id)
            assert refused.value.code == "revoked"

    def test_a_heartbeat_says_what_is_offered_to_a_worker_that_hears_nothing(self, steps):
        worker_id = steps.join()
        steps.submit()
        steps.place()
        with steps.db.write() as tx:
            worker = workers.get_worker(tx.session, worker_id, lock=True)
            reply = workers.heartbeat(tx, worker, Heartbeat(deaf=True), steps.patience)
        assert [offer.attempt_id for offer in reply.offers] == [steps.offered(worker_id)]
        assert steps.beat(worker_id).offers == []
