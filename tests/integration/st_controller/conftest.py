"""A controller without HTTP and without background services, and threads that start at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import monotonic

import pytest
from controller_steps import Steps
from scheduler_loop import SchedulerLoop
from sqlalchemy import text
from usual_collector import UsualCollector

from st_controller.dispatch import rounds
from st_controller.domain.workers import Patience
from st_controller.events.hub import Hub
from st_controller.platform import Platform
from st_controller.services import live_queue
from st_controller.settings import Settings
from st_shared.objectstore import LocalStore


@pytest.fixture(autouse=True)
def _usual_collector(monkeypatch) -> None:
    monkeypatch.setattr(rounds, "LongLived", UsualCollector)


@pytest.fixture
def steps(db, clock, tmp_path, monkeypatch) -> Steps:
    monkeypatch.setattr(live_queue, "REPLAY_SECONDS", 60.0)  # forecasts end alike on slow machines
    hub = Hub()
    db.notify = hub.notify
    platform = Platform(
        settings=Settings(data_dir=tmp_path / "controller"),
        db=db,
        hub=hub,
        objects=LocalStore(tmp_path / "objects", b"k" * 32, clock=clock),
        patience=Patience(),
    )
    return Steps(platform, clock)


@pytest.fixture
def loop(steps, monkeypatch) -> SchedulerLoop:
    for name in ("REPAIR_SECONDS", "RENEW_SECONDS"):
        monkeypatch.setattr(f"st_controller.dispatch.service.{name}", 1e9)
    monkeypatch.setattr("st_controller.background._BACKOFF", (0.0,))
    return SchedulerLoop(steps)


@pytest.fixture
def running(steps) -> tuple[str, str, str]:
    """A worker on which a job runs: ``(worker, attempt, job)``."""
    job_id, worker_id = steps.submit(), steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    return worker_id, attempt_id, job_id


@pytest.fixture
def together() -> Iterator[Callable]:
    """Runs a function once for each argument, all at the same time; gives results in order."""
    with ThreadPoolExecutor(16) as pool:

        def run(function, arguments):
            arguments = list(arguments)
            barrier = Barrier(len(arguments))

            def begin(argument):
                barrier.wait(120)
                return function(argument)

            return [future.result(120) for future in [pool.submit(begin, a) for a in arguments]]

        yield run


@pytest.fixture
def meanwhile(db) -> Iterator[Callable]:
    """Starts a function in a thread and returns once it waits for a lock (PostgreSQL); a future."""
    with ThreadPoolExecutor(4) as pool:

        def begin(function, *arguments):
            waiting, deadline = _waiters(db), monotonic() + 120
            future = pool.submit(function, *arguments)
            while not (_waiters(db) > waiting or future.done()):
                assert monotonic() < deadline, "nobody waits"
            return future

        yield begin


def _waiters(db) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with db.read() as session:
        return session.scalar(text(query))
