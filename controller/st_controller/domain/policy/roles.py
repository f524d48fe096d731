"""Roles: bundles of permissions with a reach and a rank; and what a caller may do in the end."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from st_controller.domain.policy.permissions import PERMISSIONS, TABLE, About
from st_controller.domain.policy.reach import Reach


class Role(StrEnum):
    """The roles that every installation has; others are made with them as a model."""

    VIEWER = "viewer"
    """Looks at their own, in the dashboard."""
    RESEARCHER = "researcher"
    """Submits and steers their own jobs."""
    LEAD = "lead"
    """Sees the jobs of their teams, approves them, and looks after who is in the teams."""
    ADMIN = "admin"
    """May do everything."""


@dataclass(frozen=True)
class RoleDefinition:
    """What a role gives to whoever has it."""

    slug: str
    name: str
    permissions: frozenset[str]
    reach: Reach
    """How far permissions over the things of others go."""
    rank: int
    """0 to 100; who approves, and who may change whom, goes by it."""


_VIEWER = frozenset({"config.view", "dataset.view", "job.view.own", "worker.view"})
_RESEARCHER = _VIEWER | {
    "api.access",
    "api.keys.own",
    "config.create",
    "config.delete.own",
    "config.edit.own",
    "dataset.create",
    "job.cancel.own",
    "job.delete.own",
    "job.submit",
    "queue.cancel.own",
    "queue.view",
    "secret.own",
}
_LEAD = _RESEARCHER | {
    "admin.approve",
    "admin.audit",
    "job.priority.high",
    "job.view.all",
    "org.view",
    "queue.approve",
    "queue.view.all",
    "quota.view",
    "team.create",
    "team.edit",
    "team.manage.members",
    "team.manage.quotas",
    "team.view",
}

BUILT_IN: dict[str, RoleDefinition] = {
    role.slug: role
    for role in (
        RoleDefinition("viewer", "Viewer", _VIEWER, Reach.OWN, 0),
        RoleDefinition("researcher", "Researcher", _RESEARCHER, Reach.OWN, 10),
        RoleDefinition("lead", "Lead", _LEAD, Reach.TEAM, 50),
        RoleDefinition("admin", "Admin", frozenset(PERMISSIONS), Reach.SYSTEM, 100),
    )
}
"""What the roles of every installation give; they cannot be changed."""

ROLE_PERMISSIONS: dict[Role, frozenset[str]] = {role: BUILT_IN[role].permissions for role in Role}
"""The permissions of the built-in roles."""


OF_THE_SYSTEM = frozenset(
    name for name, permission in TABLE.items() if permission.about is About.SYSTEM
)
"""What only a role that reaches the whole system gives."""


def effective(
    role: RoleDefinition,
    *,
    allowed: Iterable[str] = (),
    denied: Iterable[str] = (),
    scopes: Iterable[str] | None = None,
) -> frozenset[str]:
    """What a user may do: the role's permissions and their own, less what is denied to them.

    ``scopes`` are those of an API key, which can only take away; none: no key, or one that takes
    nothing away.
    """
    held = (role.permissions | frozenset(allowed)) - frozenset(denied)
    if role.reach is not Reach.SYSTEM:
        held -= OF_THE_SYSTEM
    return held if scopes is None else held & frozenset(scopes)
