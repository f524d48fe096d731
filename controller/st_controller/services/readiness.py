"""Whether the database can be used as it is."""

from typing import Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from st_controller.store import migrate
from st_controller.store.database import Database

log = structlog.get_logger(__name__)

DatabaseState = Literal["ready", "unreachable", "not_migrated"]


def database_state(db: Database) -> DatabaseState:
    """Whether the database answers and has this version's schema."""
    try:
        revision = migrate.current(db)
    except SQLAlchemyError as error:
        log.warning("the database does not answer", error=str(error))
        return "unreachable"
    return "ready" if revision == migrate.head() else "not_migrated"
