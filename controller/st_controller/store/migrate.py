"""Brings the schema up to date, and tells whether it is."""

from functools import cache
from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from st_controller.store.database import Database
from st_controller.store.tenants import ensure_default

_ONE_AT_A_TIME = 0x5374_466C  # any number, so long as all replicas lock the same


@cache
def head() -> str:
    """The newest revision that this version of the program knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("the package holds no migrations; install it again")
    return revision


def current(db: Database) -> str | None:
    """The revision of the database; none: it is empty."""
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(db: Database) -> None:
    """Migrate to the newest revision in one transaction; replicas that start at once take turns."""
    begin = "BEGIN IMMEDIATE" if db.is_sqlite else "BEGIN"
    connection = db.engine.connect().execution_options(st_begin=begin)
    with connection, connection.begin():
        if not db.is_sqlite:
            for bound in ("lock_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(text(f"SET LOCAL {bound} = 0"))  # it takes what it takes
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _ONE_AT_A_TIME})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        ensure_default(connection, db.clock())


def _config() -> Config:
    config = Config()
    folder = resources.files("st_controller.store").joinpath("migrations")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config
