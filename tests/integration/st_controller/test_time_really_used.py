"""Use is charged as it was, whenever a controller notices it: in shares, quotas and money alike."""

import pytest
from purse import ORG, Purse
from sqlalchemy import select

from st_controller.dispatch.accounting import Books
from st_controller.dispatch.rounds import USAGE_SECONDS, Rounds
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Charge, TenantUsage
from st_shared.protocol.states import AttemptState, Outcome


@pytest.fixture
def queue(steps) -> LiveQueue:
    """The queue of the leader."""
    made = LiveQueue()
    steps.rounds = Rounds(steps.db, steps.patience, made)
    return made


def usage_of(steps, queue: LiveQueue) -> tuple[float, float]:
    """Slot-seconds of everybody, by the queue that leads and by one that takes over now."""
    now = steps.clock().timestamp()
    with steps.db.read() as session:
        heir = LiveQueue().load(session, steps.clock()).usage(now)
    led = queue.scheduler.usage(now)
    return tuple(usage.get("", (0.0, 0.0))[0] for usage in (led, heir))


def charged(steps) -> float:
    """Slot-seconds that stand in charges once all is booked."""
    Books(steps.db).keep()
    with steps.db.read() as session:
        return sum(session.scalars(select(Charge.slot_ms))) / 1000


def begun(steps, slots: int = 2) -> tuple[str, str]:
    """A job that runs: worker and attempt."""
    steps.submit(resources={"slots": slots})
    worker_id = steps.join(slots=slots)
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    return worker_id, attempt_id


def approx(value: float):
    return pytest.approx(value, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("uploads", [False, True])
def test_an_end_that_is_told_late_is_charged_as_it_was(steps, queue, uploads):
    """The controller was stopped: what its worker says of 2.5 seconds arrives after 30."""
    worker_id, attempt_id = begun(steps)
    steps.clock.advance(30.0)
    if uploads:
        steps.ship(worker_id, attempt_id, state=AttemptState.UPLOADING, used=2.5)
        steps.clock.advance(100.0)
    steps.clock.advance(1.0)  # the scheduler notices later still
    steps.finish(worker_id, attempt_id, used=2.5)
    steps.place()
    assert usage_of(steps, queue) == approx((5.0, 5.0))
    assert charged(steps) == approx(5.0)


def test_what_was_saved_before_an_end_was_noticed_is_not_charged_for_good(steps, queue):
    """Seeds 134 and 158 of the campaign: what a scheduler believed outlived it in the sums."""
    worker_id, attempt_id = begun(steps)
    steps.clock.advance(10.0)
    steps.finish(worker_id, attempt_id, used=10.0)
    steps.clock.advance(USAGE_SECONDS)  # and nobody told the scheduler
    with steps.db.write() as tx:
        queue.count(tx)
    steps.clock.advance(5.0)
    steps.place()
    assert usage_of(steps, queue) == approx((20.0, 20.0))


def test_an_offer_that_is_made_late_is_charged_from_its_claim(steps, queue, monkeypatch):
    """Seed 172 of the campaign: the controller stood still between decision and offer."""
    steps.submit()
    worker_id = steps.join()
    decide = queue.decide

    def slowly(*arguments):
        found = decide(*arguments)
        steps.clock.advance(4.0)
        return found

    monkeypatch.setattr(queue, "decide", slowly)
    attempt_id = steps.claimed(worker_id)
    monkeypatch.undo()
    steps.clock.advance(1.0)
    steps.finish(worker_id, attempt_id, used=1.0)
    steps.place()
    assert usage_of(steps, queue) == approx((1.0, 1.0))


def test_a_lost_worker_is_charged_for_until_its_last_heartbeat(steps, queue):
    worker_id, attempt_id = begun(steps)
    steps.clock.advance(10.0)
    steps.beat(worker_id, attempt_id, used=9.9)
    steps.wait(steps.patience.lease_ttl + 1)
    assert steps.attempt(attempt_id).outcome == Outcome.LOST
    steps.place()
    assert usage_of(steps, queue) == approx((19.8, 19.8))
    assert charged(steps) == approx(19.8)


def test_heartbeats_that_lay_about_while_nobody_listened_prove_what_they_tell(steps, queue):
    """Seed 72 of the campaign: the controller stood still for longer than a lease."""
    worker_id, attempt_id = begun(steps)
    steps.clock.advance(600.0)
    for used in (1.0, 2.0):
        steps.beat(worker_id, attempt_id, used=used)
    steps.finish(worker_id, attempt_id, used=2.5)
    steps.place()
    assert usage_of(steps, queue) == approx((5.0, 5.0))


def test_a_worker_that_comes_back_proves_no_use(steps, queue):
    """Its host was started again, and it tells what it did before that."""
    worker_id, attempt_id = begun(steps)
    steps.clock.advance(10.0)
    steps.beat(worker_id, attempt_id, used=10.0)
    steps.clock.advance(14.0)
    steps.beat(worker_id, attempt_id, used=11.0, ended=True)
    steps.finish(worker_id, attempt_id, Outcome.FAILED, used=11.0)
    steps.place()
    assert usage_of(steps, queue) == approx((22.0, 22.0))


def test_money_of_a_quota_settles_with_the_same_number(steps, queue):
    purse = Purse(steps)
    purse.price("3600")
    purse.quota(ORG, "cost_monthly", "1000000")
    worker_id, attempt_id = begun(steps)
    steps.clock.advance(10.0)
    steps.beat(worker_id, attempt_id, used=9.0)
    for _ in range(2):
        purse.accrue()
        assert purse.money()[0] == approx(18.0)  # as far as is proven
        steps.clock.advance(20.0)
    steps.finish(worker_id, attempt_id, used=12.0)
    assert purse.money() == approx((24.0, 0.0))
    purse.agrees()
    steps.place()
    assert usage_of(steps, queue) == approx((24.0, 24.0))
    assert charged(steps) == approx(24.0)


@pytest.mark.parametrize(("told", "due"), [(0.0, 975.0), (1e6, 1000.0), (None, 1000.0)])
def test_a_worker_that_lies_is_believed_within_a_lease(steps, queue, told, due):
    worker_id, attempt_id = begun(steps, slots=1)
    for _ in range(100):
        steps.clock.advance(10.0)
        steps.beat(worker_id, attempt_id, used=told)
    steps.finish(worker_id, attempt_id, used=told)
    steps.place()
    assert usage_of(steps, queue) == approx((due, due))
    assert charged(steps) == approx(due)


def test_each_attempt_is_counted_once(steps, queue, monkeypatch):
    monkeypatch.setattr("st_controller.services.queue_usage.MOST", 2)
    worker_id = steps.join()
    for _ in range(5):
        steps.submit()
        attempt_id = steps.claimed(worker_id)
        steps.clock.advance(10.0)
        steps.finish(worker_id, attempt_id)
    steps.clock.advance(USAGE_SECONDS)
    counted = []
    for _ in range(4):
        steps.place()
        assert usage_of(steps, queue) == approx((50.0, 50.0))
        with steps.db.read() as session:
            whole = session.get(TenantUsage, "")
            counted.append(round(whole.usage) if whole else 0)
    assert counted == [20, 40, 50, 50]
