"""The organisation and the team that every installation begins with."""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from st_controller.store.schema import DEFAULT_TENANT, Organisation, Team


def ensure_default(connection: Connection, now: datetime) -> None:
    """Make them, unless any organisation is there."""
    if connection.execute(select(Organisation.slug).limit(1)).first() is not None:
        return
    connection.execute(
        insert(Organisation).values(
            slug=DEFAULT_TENANT, name="Default", time_zone="UTC", created_at=now
        )
    )
    connection.execute(
        insert(Team).values(org=DEFAULT_TENANT, slug=DEFAULT_TENANT, name="Default", created_at=now)
    )
