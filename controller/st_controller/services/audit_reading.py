"""The audit log, read: by pages, newest first, or whole, oldest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, literal, select, true
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import Role
from st_controller.services.actor import Actor
from st_controller.store.schema import AuditEntry, CustomRole, Membership, User
from st_shared.protocol.audit import AuditEntryView

PAGE = 1000
LOOK = 20_000
"""Numbers that are looked at for one page, where no index leads to what is wanted."""
SLACK = timedelta(hours=1)
"""So much earlier or later than its neighbours an entry may be: its moment is the beginning of its
transaction, by the clock of its controller, its number is given at the end."""

_ENDS = select(  # one at a time: SQLite would read the whole table for both
    select(func.min(AuditEntry.seq)).scalar_subquery(),
    select(func.max(AuditEntry.seq)).scalar_subquery(),
)
_AT = (
    select(AuditEntry.at)
    .where(AuditEntry.seq >= bindparam("number"))
    .order_by(AuditEntry.seq)
    .limit(1)
)


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are wanted; none: all."""

    actor: str | None = None
    """With ``*`` for anything: ``user:*``."""
    action: str | None = None
    """With ``*`` for anything: ``job.*``."""
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Before this moment."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """For a query of entries."""
        found: list[ColumnElement[bool]] = []
        if self.actor is not None:
            found.append(_matches(AuditEntry.actor, self.actor))
        if self.action is not None:
            found.append(_matches(AuditEntry.action, self.action))
        if self.target is not None:
            found.append(AuditEntry.target == self.target)
        if self.since is not None:
            found.append(AuditEntry.at >= self.since)
        if self.until is not None:
            found.append(AuditEntry.at < self.until)
        return found


def page(
    session: Session,
    actor: Actor,
    wanted: AuditFilter,
    *,
    before: int | None,
    limit: int,
) -> tuple[list[AuditEntryView], int | None]:
    """Entries below number ``before``, newest first, and the number to go on from.

    A page of few that lie among many may have fewer than ``limit``, or none, and say where to go
    on: each is found at once, however long the log is.

    Who reads with the reach of an organisation, or of teams, sees what their people did there; what
    those did whose role reaches all organisations, and what
    workers and the controller itself did stands there for all organisations.
    """
    query = _entries(wanted).where(_visible(actor)).order_by(AuditEntry.seq.desc())
    first, end = _numbers(session, wanted)
    end = end if before is None else min(end, before)
    lowest = first if wanted.target is not None else max(first, end - LOOK)
    query = query.where(AuditEntry.seq < end, AuditEntry.seq >= lowest).limit(limit + 1)
    found = [view(entry) for entry in session.scalars(query)]
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    return found, lowest if lowest > first else None


def _numbers(session: Session, wanted: AuditFilter) -> tuple[int, int]:
    """The first number, and the one after the last, of entries that may be of the time wanted."""
    ends = session.execute(_ENDS).one()
    first, end = (ends[0], ends[1] + 1) if ends[0] is not None else (1, 1)
    if wanted.until is not None:
        end = _begin(session, wanted.until, -SLACK, first, end)
    if wanted.since is not None:
        first = _begin(session, wanted.since, SLACK, first, end)
    return first, end


def _begin(session: Session, moment: datetime, slack: timedelta, first: int, end: int) -> int:
    """Where entries begin that are of a moment or later if ``slack`` is added, of some numbers."""
    while first < end:
        middle = (first + end) // 2
        at = session.scalar(_AT, {"number": middle})
        if at is None or at + slack >= moment:
            end = middle
        else:
            first = middle + 1
    return first


def stream(session: Session, wanted: AuditFilter) -> Iterator[AuditEntryView]:
    """Every entry that is wanted, oldest first, without holding them all in memory."""
    after = 0
    while True:
        query = _entries(wanted).where(AuditEntry.seq > after).order_by(AuditEntry.seq)
        found = [view(entry) for entry in session.scalars(query.limit(PAGE))]
        session.expunge_all()
        yield from found
        if len(found) < PAGE:
            return
        after = found[-1].id


def view(entry: AuditEntry) -> AuditEntryView:
    """An entry as it is told."""
    return AuditEntryView(
        id=entry.seq,
        place=entry.place,
        at=entry.at,
        actor=entry.actor,
        action=entry.action,
        target=entry.target,
        details=entry.details,
        code=entry.code,
    )


def _visible(actor: Actor) -> ColumnElement[bool]:
    reach = actor.reach("admin.audit")
    if reach is Reach.SYSTEM:
        return true()
    signature = literal("user:") + User.username
    people = select(signature).where(User.org == actor.org, User.role.not_in(_of_the_system()))
    if reach is Reach.TEAM:
        of_teams = select(Membership.user_id).where(
            Membership.org == actor.org, Membership.team.in_(sorted(actor.teams))
        )
        people = people.where(User.id.in_(of_teams))
    elif reach is not Reach.ORG:
        return AuditEntry.actor == actor.signature
    # What somebody did in an organisation that they have left since is not for this one.
    before = select(User.id).where(signature == AuditEntry.actor, User.org_since > AuditEntry.at)
    return and_(AuditEntry.actor.in_(people), ~before.exists())


def _of_the_system() -> Select[str]:
    """Roles whose holders act in all organisations, whichever they are in themselves."""
    made = select(CustomRole.slug).where(CustomRole.reach == Reach.SYSTEM.word)
    return made.union(select(literal(Role.ADMIN.value)))  # type: ignore[return-value]


def _entries(wanted: AuditFilter) -> Select[Any]:
    return select(AuditEntry).where(*wanted.conditions())


def _matches(column: Any, pattern: str) -> ColumnElement[bool]:
    if "*" not in pattern:
        same: ColumnElement[bool] = column == pattern
        return same
    escaped = pattern.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    matched: ColumnElement[bool] = column.like(escaped.replace("*", "%"), escape="\\")
    return matched
