"""How much may be used, by whom, what it costs, and what was used."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Slug, Table

Path = String(260)


class QuotaRow(Table):
    """A limit of an organisation, a team, a user, or (with an empty path) of the whole system.

    With a role it is one of each user who has that role there, and has no such limit of their own.
    """

    __tablename__ = "quotas"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    path: Mapped[str] = mapped_column(Path)
    role: Mapped[str] = mapped_column(String(40), default="")
    """Empty: all share it."""
    kind: Mapped[str] = mapped_column(String(40))
    action: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int] = mapped_column(BigInteger)
    """Micro-units, milliseconds of slots, or a number."""

    __table_args__ = (UniqueConstraint("path", "role", "kind", "action"),)


class QuotaCounter(Table):
    """What a node has used in one period and what is held for its jobs; only where a quota stands.

    One row for all periods: whoever writes first in a new one begins anew, in the same statement,
    and what is held stays held.
    """

    __tablename__ = "quota_counters"

    path: Mapped[str] = mapped_column(Path, primary_key=True)
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    period: Mapped[str] = mapped_column(String(20))
    used: Mapped[int] = mapped_column(BigInteger)
    held: Mapped[int] = mapped_column(BigInteger)
    made_at: Mapped[datetime] = mapped_column(index=True)
    """It is counted anew while those may be under way who did not find it."""


class PriceRow(Table):
    """What an hour of a slot costs from a moment on."""

    __tablename__ = "prices"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    accelerator: Mapped[str] = mapped_column(String(200))
    provider: Mapped[str] = mapped_column(String(200))
    micros: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[datetime]

    __table_args__ = (UniqueConstraint("accelerator", "provider", "since"),)


class Charge(Table):
    """What a job used in one day. It outlives the job: deleting one gives nothing back."""

    __tablename__ = "charges"

    job_id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    """In the time zone that its organisation had then."""
    utc_day: Mapped[str] = mapped_column(String(10), primary_key=True)
    org: Mapped[str] = mapped_column(Slug)
    team: Mapped[str] = mapped_column(Slug)
    user_id: Mapped[str] = mapped_column(Id)
    micros: Mapped[int] = mapped_column(BigInteger)
    slot_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_charges_day", "org", "day"),
        Index("ix_charges_utc_day", "utc_day"),
    )
