"""Who may change whom: nobody gives what they lack, and nobody touches those above them."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import Role, RoleDefinition, effective
from st_controller.errors import Conflict, InvalidRequest, NotPermitted
from st_controller.services import rights
from st_controller.services.actor import Actor
from st_controller.services.seen_users import get_user
from st_controller.store.schema import CustomRole, Organisation, User
from st_shared.protocol.problems import FieldProblem


def get_role(session: Session, slug: str, field: str = "role") -> RoleDefinition:
    """A role by its name, or ``InvalidRequest`` that names the field."""
    role = rights.definition(slug, session.get(CustomRole, slug))
    if role is rights.NOTHING:
        said = f"there is no role {slug!r}"
        raise InvalidRequest(said, errors=[FieldProblem(field=field, message=said)])
    return role


def must_hold(actor: Actor, role: RoleDefinition) -> None:
    """Refuse a role that gives more than the actor may do, or goes farther."""
    lacking = sorted(effective(role) - actor.permissions)
    if lacking:
        raise NotPermitted(f"the role {role.slug} gives {', '.join(lacking)}: you lack that")
    if role.reach > actor.widest or role.rank > actor.rank:
        raise NotPermitted(f"the role {role.slug} goes farther than yours")


def must_have(actor: Actor, permission: str) -> None:
    """Refuse to give a permission that the actor lacks."""
    if not actor.may(permission):
        raise NotPermitted(f"you cannot give {permission!r}: you lack it")


def locked_user(
    session: Session, actor: Actor, username: str, permission: str = "admin.users"
) -> User:
    """A user whom the actor may change, with their row locked."""
    get_user(session, actor, username, permission)
    if (actor.reach(permission) or Reach.OWN) < Reach.ORG:
        raise NotPermitted("your role reaches no further than your teams")
    user = session.scalars(
        select(User)
        .where(User.username == username)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    role = rights.definition(user.role, session.get(CustomRole, user.role))
    if role.reach > actor.widest or role.rank > actor.rank:
        raise NotPermitted(f"{username} is a {role.slug}: that outranks you")
    return user


def must_outweigh(session: Session, actor: Actor, user: User) -> None:
    """Refuse to open the account of a user who may do more than the actor."""
    rows = session.execute(rights.rights_query().where(User.id == user.id)).all()
    held = rights.rights_of(rows)
    lacking = sorted(held.permissions() - actor.permissions) if held else []
    if lacking:
        raise NotPermitted(f"{user.username} may do what you may not: {', '.join(lacking)}")


def keep_an_admin(session: Session, user: User) -> None:
    """Refuse to take rights from the last user who may do everything."""
    if user.role != Role.ADMIN or user.disabled_at is not None:
        return
    others = session.scalars(
        select(User.id)
        .join(Organisation, Organisation.slug == User.org)
        .where(
            User.role == Role.ADMIN,
            User.disabled_at.is_(None),
            Organisation.disabled_at.is_(None),
        )
        .order_by(User.id)
        .with_for_update(of=User)
    ).all()
    if set(others) <= {user.id}:
        raise Conflict(
            f"{user.username} is the last admin", code="last_admin", hint="make another one first"
        )
