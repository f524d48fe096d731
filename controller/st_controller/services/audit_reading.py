"""The audit log, read: by pages, newest first, or whole, oldest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal, select, true
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import Role
from st_controller.services.actor import Actor
from st_controller.store.schema import AuditEntry, CustomRole, Membership, User
from st_shared.protocol.audit import AuditEntryView

PAGE = 1000


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

    Who reads with the reach of an organisation, or of teams, sees what their people did there; what
    those did whose role reaches all organisations, and what
    workers and the controller itself did stands there for all organisations.
    """
    query = _entries(wanted).where(_visible(actor)).order_by(AuditEntry.seq.desc())
    if before is not None:
        query = query.where(AuditEntry.seq < before)
    found = [view(entry) for entry in session.scalars(query.limit(limit + 1))]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


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
