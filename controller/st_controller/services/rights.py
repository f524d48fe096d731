"""What users may do, as the database has it: role, teams, grants and denials in one look."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, select

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import BUILT_IN, RoleDefinition, effective
from st_controller.services.actor import Actor
from st_controller.store.schema import (
    CustomRole,
    Membership,
    Organisation,
    Team,
    User,
    UserGrant,
)

NOTHING = RoleDefinition("", "", frozenset(), Reach.OWN, 0)
"""Stands for a role that is gone."""


@dataclass(frozen=True)
class Rights:
    """A user who may sign in, with all that decides what they may do."""

    user: User
    role: RoleDefinition
    teams: frozenset[str]
    allowed: frozenset[str]
    denied: frozenset[str]

    def permissions(self, scopes: Iterable[str] | None = None) -> frozenset[str]:
        """What they may do, through a key with these scopes or without one."""
        return effective(self.role, allowed=self.allowed, denied=self.denied, scopes=scopes)


def joined(query: Any) -> Any:
    """The query over users, with a row for each pair of a team and a grant of the user."""
    return (
        query.join(Organisation, Organisation.slug == User.org)
        .outerjoin(CustomRole, CustomRole.slug == User.role)
        .outerjoin(Membership, and_(Membership.user_id == User.id, Membership.org == User.org))
        .outerjoin(
            Team,
            and_(
                Team.org == Membership.org,
                Team.slug == Membership.team,
                Team.archived_at.is_(None),
            ),
        )
        .outerjoin(UserGrant, UserGrant.user_id == User.id)
    )


COLUMNS = (
    User,
    Organisation.disabled_at.label("org_disabled_at"),
    CustomRole,
    Team.slug.label("in_team"),
    UserGrant.permission,
    UserGrant.effect,
)
"""What a query for rights selects, after what it selects for itself."""


def rights_of(rows: Iterable[Row[Any]]) -> Rights | None:
    """The rights that such rows of one user tell; none: the user or organisation is disabled."""
    found = list(rows)
    if not found:
        return None
    user: User = found[0].User
    if user.disabled_at is not None or found[0].org_disabled_at is not None:
        return None
    return Rights(
        user,
        definition(user.role, found[0].CustomRole),
        teams=frozenset(row.in_team for row in found if row.in_team),
        allowed=_granted(found, "allow"),
        denied=_granted(found, "deny"),
    )


def definition(slug: str, row: CustomRole | None) -> RoleDefinition:
    """What a role gives: a built-in one, or that of its row; nothing where there is neither."""
    if slug in BUILT_IN:
        return BUILT_IN[slug]
    if row is None:
        return NOTHING
    return RoleDefinition(
        row.slug, row.name, frozenset(row.permissions), Reach.of(row.reach), row.rank
    )


def actor(held: Rights) -> Actor:
    """The user as an actor, with all that they may do."""
    return Actor(permissions=held.permissions(), **identity_of(held))


def identity_of(held: Rights) -> dict[str, Any]:
    """Who they are and where they belong, as fields of an ``Actor``."""
    user, role = held.user, held.role
    return {
        "user_id": user.id,
        "username": user.username,
        "org": user.org,
        "team": user.team,
        "teams": held.teams,
        "role": user.role,
        "rank": role.rank,
        "widest": role.reach,
    }


def _granted(rows: Iterable[Row[Any]], effect: str) -> frozenset[str]:
    return frozenset(row.permission for row in rows if row.effect == effect)


def rights_query() -> Any:
    """A query for rights that still has to be told of which user."""
    return joined(select(*COLUMNS).select_from(User))
