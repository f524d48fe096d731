"""Which users a caller sees."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, Select, and_, or_, select, true
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.errors import NotFound
from st_controller.services.actor import Actor
from st_controller.store.schema import Membership, User


def visible(actor: Actor, permission: str = "admin.users") -> ColumnElement[bool]:
    """The users whom a permission covers, and the actor."""
    reach = actor.reach(permission) or Reach.OWN
    if reach is Reach.SYSTEM:
        return true()
    in_org = User.org == actor.org
    if reach is Reach.ORG:
        return in_org
    mine = User.id == actor.user_id
    if reach is Reach.TEAM:
        return and_(in_org, or_(mine, User.id.in_(ids_in(actor.org, actor.teams))))
    return mine


def ids_in(org: str, teams: Collection[str]) -> Select[str]:
    """Ids of the users who are in any of these teams."""
    return select(Membership.user_id).where(
        Membership.org == org, Membership.team.in_(sorted(teams))
    )


def list_users(
    session: Session,
    actor: Actor,
    *,
    org: str | None = None,
    team: str | None = None,
    after: str | None = None,
    limit: int,
) -> tuple[list[User], str | None]:
    """The users that the actor may see, by name, and the name after which the next page begins."""
    query = select(User).where(visible(actor)).order_by(User.username)
    if org:
        query = query.where(User.org == org)
    if team:
        query = query.where(User.id.in_(ids_in(org or actor.org, [team])))
    if after:
        query = query.where(User.username > after)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], found[limit - 1].username if len(found) > limit else None


def get_user(
    session: Session, actor: Actor, username: str, permission: str = "admin.users"
) -> User:
    """A user that ``permission`` covers, or ``NotFound``."""
    user = session.scalar(select(User).where(User.username == username, visible(actor, permission)))
    if user is None:
        raise no_user(username)
    return user


def of_org(session: Session, org: str, username: str) -> User:
    """A user of an organisation, with their row locked, or ``NotFound``."""
    query = select(User).where(User.username == username, User.org == org).with_for_update()
    user = session.scalar(query)
    if user is None:
        raise no_user(username)
    return user


def no_user(username: str) -> NotFound:
    """The refusal for a name that nobody has, or nobody whom the caller sees."""
    return NotFound(f"there is no user {username!r}")
