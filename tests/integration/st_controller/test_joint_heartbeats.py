"""Heartbeats of many workers at once: one transaction, and each gets its own answer."""

import asyncio

import pytest

from st_controller.errors import NotFound
from st_controller.services import joint_heartbeats
from st_controller.services.joint_heartbeats import Beat, JointHeartbeats
from st_controller.store import parts
from st_shared.protocol.states import WorkerDesired, WorkerState
from st_shared.protocol.worker import BusySlot, Condition, Heartbeat, Lease, SlotUse, Usage

USAGE = Usage(slots=[SlotUse(index=0, utilisation=87)], disk_free_gb=3)


@pytest.fixture
def at_once(steps):
    """Takes ``(worker_id, heartbeat)`` in one transaction; gives answers or errors."""

    def take(*beats):
        line = JointHeartbeats(steps.db, steps.patience)
        answers = line._together([Beat(*beat) for beat in beats])
        assert len(answers) == len(beats)
        return answers

    return take


@pytest.fixture
def fleet(steps):
    """Three workers, each with a running attempt."""
    found = []
    for name in ("a", "b", "c"):
        job_id, worker_id = steps.submit(name), steps.join(name)
        attempt_id = steps.claimed(worker_id)
        found.append((worker_id, attempt_id, job_id))
    return found


def holding(attempt_id, epoch=1, **more):
    return Heartbeat(holding=[Lease(attempt_id=attempt_id, epoch=epoch)], **more)


def test_all_are_alive_and_all_leases_are_renewed(steps, fleet, at_once):
    steps.clock.advance(9)
    answers = at_once(*((worker, holding(attempt, usage=USAGE)) for worker, attempt, _ in fleet))
    assert [(each.desired, each.stops) for each in answers] == [(WorkerDesired.ACTIVE, [])] * 3
    until = steps.clock().timestamp() + steps.patience.lease_ttl
    for worker_id, attempt_id, _ in fleet:
        assert steps.attempt(attempt_id).lease_expires_at.timestamp() == pytest.approx(until)
        assert steps.worker(worker_id).last_heartbeat_at == steps.clock()
        assert steps.worker(worker_id).usage["slots"][0]["utilisation"] == 87
    steps.wait(steps.patience.lease_ttl - 1)
    assert all(steps.attempt(attempt).outcome is None for _, attempt, _ in fleet)


def test_the_last_use_that_a_worker_tells_is_kept(steps, fleet, at_once):
    one, two, three = (worker for worker, _, _ in fleet)
    at_once((one, Heartbeat(usage=USAGE)), (two, Heartbeat(usage=USAGE)), (three, Heartbeat()))
    steps.clock.advance(1)
    later = Usage(slots=[SlotUse(index=0, temperature_c=41.5)])
    at_once((one, Heartbeat(usage=USAGE)), (two, Heartbeat()), (one, Heartbeat(usage=later)))
    found = [steps.worker(each) for each in (one, two, three)]
    assert [Usage.model_validate(each.usage) for each in found[:2]] == [later, USAGE]
    assert found[2].usage is None
    assert found[0].last_heartbeat_at == found[1].last_heartbeat_at == steps.clock()


def test_each_is_told_its_own_orders(steps, fleet, at_once):
    (one, a, job), (two, b, _), (three, c, _) = fleet
    steps.cancel(job)
    steps.order(two, WorkerDesired.DRAINING)
    answers = at_once(
        (one, holding(a)), (two, holding(b)), (three, holding(a)), (three, holding(c, epoch=2))
    )
    told = [[(stop.attempt_id, stop.reason) for stop in each.stops] for each in answers]
    assert told == [[(a, "cancel")], [], [(a, "stale")], [(c, "stale")]]
    assert answers[1].desired is WorkerDesired.DRAINING


def test_who_comes_back_leaves_or_holds_new_content_is_noticed(steps, fleet, at_once):
    (one, a, _), (two, b, _), (three, c, _) = fleet
    steps.wait(steps.patience.silent_after, alive=[two, three])
    assert steps.worker(one).observed == WorkerState.SILENT
    digest = "0" * 64
    at_once(
        (one, holding(a)), (two, holding(b, leaving=True)), (three, holding(c, cached=[digest]))
    )
    assert steps.worker(one).observed == WorkerState.ONLINE
    assert steps.worker(two).observed == WorkerState.GONE
    assert steps.worker(three).inventory["cached"] == [digest]


def test_what_changed_of_the_accelerators_is_kept_and_wakes_the_scheduler(steps, fleet, at_once):
    one, a, _ = fleet[0]
    who = BusySlot(index=0, code="foreign_process", message="process 42 (python), 12 GiB")
    at_once((one, Heartbeat(condition=Condition(busy=[who]))), (fleet[1][0], Heartbeat()))
    assert steps.worker(one).inventory["condition"]["busy"] == [who.model_dump()]
    at_once((one, holding(a)))
    assert steps.worker(one).inventory["condition"]["busy"] != []
    at_once((one, Heartbeat(condition=Condition())))
    assert steps.worker(one).inventory["condition"]["busy"] == []


def test_an_unknown_worker_is_refused_alone(steps, fleet, at_once):
    one, a, _ = fleet[0]
    strange, known = at_once(("wrk_nobody", Heartbeat()), (one, holding(a)))
    assert isinstance(strange, NotFound)
    assert known.stops == []


def test_more_leases_than_a_statement_takes_are_renewed(steps, fleet, at_once, monkeypatch):
    monkeypatch.setattr(parts, "MOST", 1)
    steps.clock.advance(9)
    at_once(*((worker, holding(attempt)) for worker, attempt, _ in fleet))
    steps.wait(steps.patience.lease_ttl - 1)
    assert all(steps.attempt(attempt).outcome is None for _, attempt, _ in fleet)


def test_those_that_come_at_once_share_a_transaction(steps, fleet, monkeypatch):
    parts = []
    taken = joint_heartbeats._take

    def counted(tx, beats, *rest):
        parts.append(len(beats))
        return taken(tx, beats, *rest)

    monkeypatch.setattr(joint_heartbeats, "_take", counted)

    async def story():
        line = JointHeartbeats(steps.db, steps.patience)
        beats = [line.take(worker, holding(attempt)) for worker, attempt, _ in fleet * 4]
        return await asyncio.gather(*beats)

    answers = asyncio.run(story())
    assert [each.stops for each in answers] == [[]] * 12
    assert sum(parts) >= 11
    assert len(parts) <= 2


def test_all_who_were_silent_are_online_again_in_one_go(steps, at_once, monkeypatch):
    """They are, where the controller did not listen; one by one takes too long then."""
    ids = [steps.join(name) for name in ("a", "b", "c")]
    steps.wait(steps.patience.silent_after)
    assert {steps.worker(each).observed for each in ids} == {WorkerState.SILENT}
    news = []
    steps.db.notify = news.append
    monkeypatch.setattr(joint_heartbeats, "_take_other", lambda *_: pytest.fail("one by one"))
    at_once((ids[0], Heartbeat()), (ids[1], Heartbeat(usage=USAGE)), (ids[0], Heartbeat()))
    assert [steps.worker(each).observed for each in ids] == ["online", "online", "silent"]
    assert {each for topics in news for each in topics} == {
        f"queue/worker/{each}" for each in ids[:2]
    }
