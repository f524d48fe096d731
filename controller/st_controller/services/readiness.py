"""Whether the database can be used as it is."""

from typing import Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from st_controller.store import migrate
from st_controller.store.database import Database

log = structlog.get_logger(__name__)

DatabaseState = Literal["ready", "unreachable", "not_migrated"]


class NotReadyError(RuntimeError):
    """The database cannot be used as it is; the message says what to do."""


def database_state(db: Database) -> DatabaseState:
    """Whether the database answers and has this version's schema."""
    try:
        revision = migrate.current(db)
    except SQLAlchemyError as error:
        log.warning("the database does not answer", error=str(error))
        return "unreachable"
    return "ready" if revision == migrate.head() else "not_migrated"


def must_answer(db: Database) -> None:
    """Raise ``NotReadyError`` when nobody answers; the reason has been logged."""
    _refuse_unreachable(db, database_state(db))


def must_be_ready(db: Database) -> None:
    """Raise ``NotReadyError`` unless the database answers and has this version's schema."""
    state = database_state(db)
    _refuse_unreachable(db, state)
    if state == "not_migrated":
        command = "init" if db.is_sqlite else "migrate"
        raise NotReadyError(
            f"the database {_shown(db)} is empty or of another version; "
            f"run `st-controller {command}`"
        )


def _refuse_unreachable(db: Database, state: DatabaseState) -> None:
    if state == "unreachable":
        raise NotReadyError(
            f"the database {_shown(db)} does not answer; check ST_DATABASE_URL and its server"
        )


def _shown(db: Database) -> str:
    """Where the database is, without its password."""
    return db.engine.url.render_as_string(hide_password=True)
