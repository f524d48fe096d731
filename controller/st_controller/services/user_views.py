"""Users as the public API shows them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.services import rights
from st_controller.store.schema import CustomRole, Membership, User, UserGrant
from st_shared.protocol.tenancy import UserDetail, UserView


def views(session: Session, users: Sequence[User]) -> list[UserView]:
    """Users as a list shows them."""
    teams = _teams_of(session, users)
    return [UserView(**_fields(user, teams.get(user.id, []))) for user in users]


def detail(session: Session, user: User) -> UserDetail:
    """A user with what they may do."""
    grants = session.scalars(select(UserGrant).where(UserGrant.user_id == user.id)).all()
    allowed = sorted(row.permission for row in grants if row.effect == "allow")
    denied = sorted(row.permission for row in grants if row.effect == "deny")
    role = rights.definition(user.role, session.get(CustomRole, user.role))
    held = rights.Rights(user, role, frozenset(), frozenset(allowed), frozenset(denied))
    return UserDetail.model_validate(
        {
            **_fields(user, _teams_of(session, [user]).get(user.id, [])),
            "allowed": allowed,
            "denied": denied,
            "permissions": sorted(held.permissions()),
            "reach": role.reach.word,
        }
    )


def _fields(user: User, teams: list[str]) -> dict[str, object]:
    return {
        "id": user.id,
        "username": user.username,
        "org": user.org,
        "team": user.team,
        "teams": teams,
        "role": user.role,
        "created_at": user.created_at,
        "disabled": user.disabled_at is not None,
    }


def _teams_of(session: Session, users: Sequence[User]) -> dict[str, list[str]]:
    rows = session.execute(
        select(Membership.user_id, Membership.team)
        .where(Membership.user_id.in_([user.id for user in users]))
        .order_by(Membership.team)
    )
    found: dict[str, list[str]] = {}
    for user_id, team in rows:
        found.setdefault(user_id, []).append(team)
    return found
