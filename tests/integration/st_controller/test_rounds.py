"""Steps of the leader that go wrong, or are not done in one go."""

from collections.abc import Callable

import pytest
from controller_steps import Steps
from sqlalchemy import select

from st_controller.dispatch.service import Dispatcher
from st_controller.services import live_queue, queue_usage
from st_controller.services.live_queue import News
from st_controller.store.schema import Attempt
from st_shared.protocol.states import JobState, WorkerDesired


def meanwhile(steps: Steps, monkeypatch, act: Callable[[], object]) -> None:
    """Let something happen once between the next decision and its being made true."""
    queue = steps.rounds._queue
    real = queue.decide

    def decide(now, most):
        decided = real(now, most)
        monkeypatch.setattr(queue, "decide", real)
        act()
        return decided

    monkeypatch.setattr(queue, "decide", decide)


def test_a_job_whose_offer_came_to_nothing_is_offered_as_soon_as_it_can_be(steps, monkeypatch):
    """Nobody tells of the job: nothing happened to it."""
    told: set[str] = set()
    steps.db.notify = told.update
    worker_id, job_id = steps.join(), steps.submit()
    meanwhile(steps, monkeypatch, lambda: steps.order(worker_id, WorkerDesired.DRAINING))
    assert steps.place() == 0
    told.clear()
    steps.order(worker_id, WorkerDesired.ACTIVE)
    assert f"queue/job/{job_id}" not in told
    assert steps.rounds.place(steps.lead, News.of(told)) == 1
    assert (steps.job(job_id).state, steps.job(job_id).attempts) == (JobState.ASSIGNED, 1)


def test_offers_do_not_wait_for_the_disk_and_orders_to_yield_do(steps, monkeypatch):
    seen = []
    write = steps.db.write

    def noted(*, lazily=False, **how):
        seen.append(lazily)
        return write(lazily=lazily, **how)

    def place() -> list[bool]:
        seen.clear()
        steps.place()
        return list(seen)

    worker_id = steps.join()
    steps.place()  # writes down what was used, which is due once a minute
    monkeypatch.setattr(steps.db, "write", noted)
    steps.submit()
    assert place() == [True]
    steps.claim(worker_id, steps.offered(worker_id))
    steps.submit("urgent", priority="urgent")
    assert place() == [False]


def test_a_sweep_leaves_to_the_next_what_somebody_else_holds(steps, running, monkeypatch):
    if steps.db.is_sqlite:
        pytest.skip("whoever writes is alone")
    _, attempt_id, job_id = running
    steps.wait(steps.patience.lease_ttl - 1)
    steps.clock.advance(1)
    write, left = steps.db.write, iter(range(10))
    with steps.db.write() as tx:
        tx.session.scalar(select(Attempt).where(Attempt.id == attempt_id).with_for_update())
        monkeypatch.setattr(steps.db, "write", lambda **how: (next(left), write(**how))[1])
        steps.sweep()
        assert steps.job(job_id).state == JobState.RUNNING
    steps.sweep()
    assert steps.job(job_id).state == JobState.QUEUED


def test_what_this_process_offered_is_not_read_again(steps):
    steps.join()
    steps.submit()
    assert steps.place() == 1
    queue = steps.rounds._queue
    with steps.db.read() as session:
        assert queue._overlooked(session, steps.clock()) == set()


def test_a_long_queue_is_read_on_at_once_until_all_of_it_is_known(steps, monkeypatch):
    monkeypatch.setattr(live_queue, "PAGE", 2)
    monkeypatch.setattr(live_queue, "EACH", 1)
    ids = {steps.submit(f"job-{number}") for number in range(5)}
    dispatcher = Dispatcher(steps.platform, "ctl_test")
    rounds = dispatcher._rounds
    patience = []
    for _ in range(4):
        rounds.place(steps.lead)
        patience.append(dispatcher._patience())
    assert patience[:2] == [0.0, 0.0]
    assert patience[-1] > 0
    assert set(steps.platform.queue.scheduler.pending()) == ids


def test_use_of_many_attempts_is_counted_by_one_round_after_the_other(steps, monkeypatch):
    monkeypatch.setattr(queue_usage, "MOST", 1)
    worker_id = steps.join()
    ended = []
    for _ in range(2):
        steps.submit()
        ended.append(steps.claimed(worker_id))
        steps.clock.advance(1)
        steps.beat(worker_id, ended[-1])
        steps.finish(worker_id, ended[-1])
    steps.clock.advance(60)
    steps.beat(worker_id)
    counted = []
    for _ in range(2):
        steps.place()
        counted.append(sum(steps.attempt(each).counted for each in ended))
    assert counted == [1, 2]
