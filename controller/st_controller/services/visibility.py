"""Whose things a caller sees, as conditions of SQL: one place for every list, stream and search."""

from typing import Protocol, cast

from sqlalchemy import ColumnElement, and_, or_, true
from sqlalchemy.orm import InstrumentedAttribute

from st_controller.domain.policy.reach import Owner, Reach
from st_controller.services.actor import Actor
from st_controller.store.schema import Job, JobArray


class Owned(Protocol):
    """A row that says whose it is."""

    submitted_by: InstrumentedAttribute[str]
    org: InstrumentedAttribute[str]
    team: InstrumentedAttribute[str]


def owner(thing: Job | JobArray) -> Owner:
    """Whose a job or an array is."""
    return Owner(thing.submitted_by, thing.org, thing.team)


def within(actor: Actor, permission: str, table: type[Job] | type[JobArray]) -> ColumnElement[bool]:
    """What of a table is the actor's own or covered by ``permission``; as ``Actor.reaches``."""
    columns = cast("Owned", table)
    reach = actor.reach(permission)
    if reach is Reach.SYSTEM:
        return true()
    in_org = columns.org == actor.org
    if reach is Reach.ORG:
        return in_org
    mine = columns.submitted_by == actor.user_id
    if reach is Reach.TEAM:
        return and_(in_org, or_(mine, columns.team.in_(sorted(actor.teams))))
    return and_(in_org, mine)


def own(actor: Actor, table: type[Job] | type[JobArray]) -> ColumnElement[bool]:
    """What of a table the actor made, in the organisation that they are in now."""
    columns = cast("Owned", table)
    return and_(columns.org == actor.org, columns.submitted_by == actor.user_id)
