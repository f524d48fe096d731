"""Placing jobs: in order, on free slots, by one leader at a time."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from st_controller.dispatch.last_holder import LastHolder
from st_controller.dispatch.leadership import LEASE_SECONDS, LeadershipLostError
from st_controller.dispatch.rounds import Rounds
from st_controller.domain.scheduling.model import Grant, Placement
from st_controller.services import explaining, offers, views, workers
from st_controller.services.jobs import get_job
from st_controller.services.live_queue import LiveQueue
from st_controller.services.offers import Priced
from st_controller.store.schema import Attempt, AuditEntry, LeaderLease, Worker
from st_shared.protocol.content import model_kept_as
from st_shared.protocol.states import FailureKind, JobState, Outcome, WorkerDesired
from st_shared.protocol.worker import BusySlot, Condition, Heartbeat


def slots_in_use(steps) -> list[tuple[str, int]]:
    """Worker and slot of every live attempt, one entry a slot."""
    with steps.db.read() as session:
        live = session.scalars(select(Attempt).where(Attempt.outcome.is_(None)))
        return [(attempt.worker_id, slot) for attempt in live for slot in attempt.slots]


def assigned(steps, *job_ids: str) -> list[bool]:
    return [steps.job(job_id).state == JobState.ASSIGNED for job_id in job_ids]


def trace(steps) -> tuple:
    with steps.db.read() as session:
        return (
            session.scalars(select(Attempt.id).order_by(Attempt.id)).all(),
            session.scalars(select(AuditEntry.seq)).all(),
            session.execute(
                select(LeaderLease.holder, LeaderLease.epoch, LeaderLease.expires_at)
            ).all(),
        )


def test_higher_classes_go_first_and_within_a_class_who_came_first(steps):
    jobs = {}
    for name, priority in (("a", "low"), ("b", "normal"), ("c", "normal"), ("d", "urgent")):
        jobs[name] = steps.submit(name, priority=priority)
        steps.clock.advance(1)
    worker_id = steps.join()
    served = []
    for _ in jobs:
        attempt_id = steps.claimed(worker_id)
        served.append(steps.attempt(attempt_id).job_id)
        steps.finish(worker_id, attempt_id)
    assert served == [jobs[name] for name in "dbca"]


def test_a_job_that_goes_back_keeps_its_turn(steps):
    first = steps.submit("first")
    steps.clock.advance(1)
    steps.submit("second")
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    assert steps.attempt(steps.claimed(worker_id)).job_id == first


def test_a_slot_holds_one_attempt_until_it_is_over(steps):
    jobs = [steps.submit(f"job {number}") for number in range(4)]
    worker_id = steps.join(slots=3)
    assert steps.place() == 3
    assert sorted(slots_in_use(steps)) == [(worker_id, slot) for slot in range(3)]
    assert steps.place() == 0
    assert assigned(steps, *jobs) == [True, True, True, False]
    steps.cancel(jobs[0])
    assert steps.place() == 1
    assert sorted(slots_in_use(steps)) == [(worker_id, slot) for slot in range(3)]


def test_a_job_that_fits_nowhere_does_not_hold_up_the_rest(steps):
    wide = steps.submit("wide", resources={"slots": 3}, priority="high")
    narrow = steps.submit("narrow", resources={"slots": 2})
    worker_id = steps.join(slots=2)
    assert steps.place() == 1
    assert assigned(steps, wide, narrow) == [False, True]
    assert sorted(slots_in_use(steps)) == [(worker_id, 0), (worker_id, 1)]


def test_a_queued_job_says_why_it_waits(steps):
    job_id = steps.submit("waits", resources={"accelerator": "h100*"})

    def reason() -> str:
        with steps.db.read() as session:
            jobs = [get_job(session, steps.admin, job_id)]
            told = explaining.reasons(session, LiveQueue(), jobs, steps.clock())
            return views.job_view(session, jobs[0], told).reason.code

    assert reason() == "no_workers"
    steps.join()
    assert reason() == "no_matching_worker"
    other = steps.submit("other")
    steps.submit("last")
    assert steps.place() == 1
    with steps.db.read() as session:
        last = views.job_views(session, [get_job(session, steps.admin, other)])[0]
    assert (last.worker, last.reason) == ("w", None)


def test_a_slot_that_somebody_else_uses_is_not_offered_until_a_heartbeat_frees_it(steps):
    worker_id = steps.join(slots=2)
    who = BusySlot(index=0, code="foreign_process", message="process 42 (python), 12 GiB")
    steps.beat(worker_id, condition=Condition(busy=[who]))
    steps.submit("narrow")
    wide = steps.submit("wide", resources={"slots": 2})
    assert steps.place() == 1
    assert slots_in_use(steps) == [(worker_id, 1)]
    with steps.db.read() as session:
        (view,) = views.worker_views(session, steps.admin, workers.list_workers(session))
        told = explaining.reasons(
            session, LiveQueue(), [get_job(session, steps.admin, wide)], steps.clock()
        )
    assert (view.slots_free, view.inventory.condition.busy) == (0, [who])
    assert told[wide].code == "slots_in_use"
    assert "process 42 (python)" in told[wide].message
    steps.beat(worker_id)  # says nothing new
    assert steps.place() == 0
    steps.submit("last")
    steps.beat(worker_id, condition=Condition())
    assert steps.place() == 1
    assert sorted(slots_in_use(steps)) == [(worker_id, 0), (worker_id, 1)]


def test_a_worker_whose_disk_is_full_costs_a_job_no_try_and_is_offered_nothing(steps):
    worker_id = steps.join()
    job_id = steps.submit(retry={"max_attempts": 1})
    attempt_id = steps.claimed(worker_id)
    failure = FailureKind.DISK_FULL
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED, failure=failure)
    job = steps.job(job_id)
    assert (job.state, job.tries_used, job.reason["message"]) == ("queued", 0, "it broke")
    assert steps.place() == 0  # not there at once, where nothing has changed
    steps.clock.advance(10)
    full = BusySlot(index=0, code="disk_full", message="less than 2 GiB are free on its disk")
    steps.beat(worker_id, condition=Condition(busy=[full]))
    assert steps.place() == 0
    with steps.db.read() as session:
        (view,) = views.worker_views(session, steps.admin, workers.list_workers(session))
        job = get_job(session, steps.admin, job_id)
        told = explaining.reasons(session, LiveQueue(), [job], steps.clock())
    assert (view.slots_free, view.inventory.condition.busy) == (0, [full])
    assert told[job_id].code == "slots_in_use"
    assert f"w slot 0: {full.message}" in told[job_id].message
    steps.beat(worker_id, condition=Condition())
    assert steps.place() == 1


@pytest.mark.parametrize(
    "told",
    [
        {"cached_models": ["black-forest-labs/FLUX.1-dev"]},
        {"cached": [model_kept_as("default", "black-forest-labs/FLUX.1-dev")]},
    ],
    ids=["for all", "for its organisation"],
)
def test_a_job_goes_to_a_worker_that_has_its_base_model(steps, told):
    hosts = [steps.join(name) for name in ("a", "b", "c")]
    with steps.db.write() as tx:
        told = Heartbeat(**told)
        workers.heartbeat(tx, tx.session.get_one(Worker, hosts[1]), told, steps.patience)
    training = {
        "model": {"family": "flux", "base": "black-forest-labs/FLUX.1-dev"},
        "datasets": [{"path": "/data"}],
        "steps": 3,
    }
    steps.submit("first", training=training)
    assert steps.place() == 1
    assert slots_in_use(steps) == [(hosts[1], 0)]


def test_while_a_leader_holds_its_lease_nobody_else_leads(steps):
    rounds = Rounds(steps.db, steps.patience)
    assert rounds.seek("ctl_other", alone=False) is None
    assert steps.rounds.seek("ctl_test", alone=False) == steps.lead
    steps.clock.advance(LEASE_SECONDS - 0.001)
    assert rounds.seek("ctl_other", alone=False) is None
    steps.clock.advance(0.001)
    successor = rounds.seek("ctl_other", alone=False)
    assert (successor.holder, successor.epoch) == ("ctl_other", steps.lead.epoch + 1)


def test_a_controller_that_is_alone_takes_over_at_once(steps):
    assert steps.rounds.seek("ctl_restarted", alone=True).epoch == steps.lead.epoch + 1


def test_the_lease_of_a_process_that_is_known_to_be_dead_is_taken_over_at_once(steps):
    rounds = Rounds(steps.db, steps.patience)
    assert rounds.seek("ctl_heir", alone=False, predecessor="ctl_another") is None
    heir = rounds.seek("ctl_heir", alone=False, predecessor="ctl_test")
    assert (heir.holder, heir.epoch) == ("ctl_heir", steps.lead.epoch + 1)
    steps.submit()
    steps.join()
    with pytest.raises(LeadershipLostError):
        steps.place()


def test_who_led_last_from_a_folder_is_written_down(tmp_path):
    last = LastHolder(tmp_path)
    assert last.read() is None
    last.write("ctl_one")
    last.write("ctl_two")
    assert LastHolder(tmp_path).read() == "ctl_two"
    (tmp_path / "leader").write_bytes(b"\xff")
    assert last.read() is None
    (tmp_path / "leader").write_text("")
    assert last.read() is None
    LastHolder(tmp_path / "missing").write("ctl_one")  # costs the next start some seconds


def test_what_a_deposed_leader_decided_changes_nothing(steps):
    steps.submit()
    worker_id = steps.join()
    steps.place()
    steps.submit()
    steps.join("other")
    steps.clock.advance(3600)
    steps.beat(worker_id)
    steps.rounds.seek("ctl_other", alone=True)
    before = trace(steps)
    for act in (
        steps.place,
        steps.sweep,
        lambda: steps.rounds.begin(steps.lead, timedelta(hours=9)),
    ):
        with pytest.raises(LeadershipLostError):
            act()
    assert trace(steps) == before
    assert steps.worker(worker_id).last_heartbeat_at == steps.clock()


def test_a_leader_that_is_deposed_between_deciding_and_offering_offers_nothing(steps):
    job_id = steps.submit()
    steps.join()

    class Slow(LiveQueue):
        def decide(self, now, most):
            decided = super().decide(now, most)
            assert decided
            steps.rounds.seek("ctl_other", alone=True)
            return decided

    slow = Slow()
    with pytest.raises(LeadershipLostError):
        Rounds(steps.db, steps.patience, slow).place(steps.lead)
    assert steps.job(job_id).state == JobState.QUEUED
    assert slow.scheduler is None  # what it decided is not taken for true


def offer(steps, *placements: Placement) -> list[bool]:
    made = []
    for placement in placements:
        with steps.db.write() as tx:
            made.append(bool(offers.offer(tx, [Priced(placement, 1.0)], steps.patience)))
    return made


def to(job_id: str, worker_id: str, *slots: int) -> Placement:
    return Placement(job_id, (Grant(worker_id, slots),))


def test_an_old_decision_is_dropped(steps):
    one, two = steps.submit("one"), steps.submit("two")
    worker_id = steps.join(slots=2)
    assert offer(steps, to(one, worker_id, 0)) == [True]
    assert offer(steps, to(one, worker_id, 1)) == [False]  # no longer queued
    assert offer(steps, to(two, worker_id, 0, 1)) == [False]  # no longer free
    steps.order(worker_id, WorkerDesired.DRAINING)
    assert offer(steps, to(two, worker_id, 1)) == [False]  # no longer takes jobs
    steps.order(worker_id, WorkerDesired.ACTIVE)
    steps.clock.advance(15)
    steps.sweep()
    assert offer(steps, to(two, worker_id, 1)) == [False]  # silent
    steps.cancel(two)
    steps.beat(worker_id)
    assert offer(steps, to(two, worker_id, 1)) == [False]  # over
    assert steps.job(one).attempts == 1
    assert steps.job(two).attempts == 0


def test_what_may_not_start_yet_is_not_offered_whatever_was_decided(steps):
    worker_id = steps.join()
    child = steps.submit("child", after=[steps.submit("parent")])
    later = steps.submit("later", not_before=(steps.clock() + timedelta(seconds=9)).isoformat())
    assert offer(steps, to(child, worker_id, 0), to(later, worker_id, 0)) == [False, False]
    steps.clock.advance(9)
    assert offer(steps, to(child, worker_id, 0), to(later, worker_id, 0)) == [False, True]


def test_of_two_decisions_for_one_slot_the_second_is_dropped(steps):
    first, second = steps.submit("first"), steps.submit("second")
    worker_id = steps.join()
    decided = [Priced(to(job_id, worker_id, 0), 1.0) for job_id in (first, second)]
    with steps.db.write() as tx:
        made = offers.offer(tx, decided, steps.patience)
    assert [each.job_id for each in made] == [first]
    assert steps.job(second).state == JobState.QUEUED


def test_two_that_offer_one_slot_at_once_do_not_book_it_twice(steps, together):
    jobs = [steps.submit(f"job {number}") for number in range(6)]
    worker_id = steps.join(slots=2)
    placements = [to(job_id, worker_id, place % 2) for place, job_id in enumerate(jobs)]
    made = together(lambda placement: offer(steps, placement), placements)
    assert made.count([True]) == 2
    assert sorted(slots_in_use(steps)) == [(worker_id, 0), (worker_id, 1)]


def test_two_dispatchers_at_once_place_each_job_once(steps, together):
    jobs = [steps.submit(f"job {number}") for number in range(12)]
    for number in range(4):
        steps.join(f"w{number}", slots=2)

    def dispatch(holder):
        rounds = Rounds(steps.db, steps.patience)
        try:
            return rounds.place(rounds.seek(holder, alone=True))
        except LeadershipLostError:
            return 0

    together(dispatch, [f"ctl_{number}" for number in range(4)])
    used = slots_in_use(steps)
    assert len(used) == len(set(used)) <= 8
    steps.rounds.place(steps.rounds.seek("ctl_last", alone=True))
    used = slots_in_use(steps)
    assert len(used) == len(set(used)) == 8
    assert assigned(steps, *jobs).count(True) == 8
    assert max(steps.job(job_id).attempts for job_id in jobs) == 1


def test_a_sweep_locks_nothing_until_a_deadline_has_passed(steps, monkeypatch):
    """On SQLite all who write would wait for it, every second."""
    job_id = steps.submit()
    steps.join()
    assert steps.place() == 1
    steps.sweep()  # which also forgets old keys, once in a while
    locked, write = [], steps.db.write
    monkeypatch.setattr(steps.db, "write", lambda **how: locked.append(1) or write(**how))
    steps.clock.advance(steps.patience.offer_ttl - 0.001)
    steps.sweep()
    assert not locked
    steps.clock.advance(0.001)
    steps.sweep()
    assert locked
    assert steps.job(job_id).state == JobState.QUEUED


def test_a_fleet_that_falls_silent_is_marked_some_at_a_time(steps, monkeypatch):
    monkeypatch.setattr(workers, "MOST_SILENT", 2)
    ids = [steps.join(f"w{number}") for number in range(5)]
    steps.wait(steps.patience.silent_after)
    assert {steps.worker(each).observed for each in ids} == {"silent"}
