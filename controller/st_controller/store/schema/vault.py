"""Values that are stored to be read back, sealed with a key that is not in the database."""

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Slug, Table


class StoredSecret(Table):
    """A secret of a person, or one that an organisation shares; ``auth/vault.py`` seals it."""

    __tablename__ = "secrets"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    org: Mapped[str] = mapped_column(Slug)
    owner: Mapped[str] = mapped_column(Id)
    """Id of the user; empty: the organisation's."""
    name: Mapped[str] = mapped_column(Slug)
    key_id: Mapped[str] = mapped_column(String(40))
    wrapped_key: Mapped[bytes]
    box: Mapped[bytes]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    changed_by: Mapped[str] = mapped_column(String(200))
    """Name of the user."""

    __table_args__ = (UniqueConstraint("org", "owner", "name"),)
