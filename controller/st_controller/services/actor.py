"""Who acts, as far as the rules care."""

from dataclasses import dataclass

from st_controller.domain.policy.permissions import TABLE, About
from st_controller.domain.policy.reach import Owner, Reach
from st_controller.errors import NotFound, NotPermitted


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A signed-in caller."""

    user_id: str
    username: str
    permissions: frozenset[str]
    org: str
    team: str
    """The team as which they submit unless they say otherwise."""
    teams: frozenset[str]
    """All teams of their organisation that they are in."""
    role: str
    rank: int
    """Of the role, 0 to 100."""
    widest: Reach
    """How far the role's permissions over the things of others go."""

    @property
    def signature(self) -> str:
        """The name in the audit log; the prefix keeps users apart from workers and the system."""
        return f"user:{self.username}"

    def may(self, permission: str) -> bool:
        """Whether this permission is held, however far it goes."""
        return permission in self.permissions

    def must(self, permission: str) -> None:
        """Refuse with 403 unless the permission is held."""
        if not self.may(permission):
            raise NotPermitted(f"this needs the permission {permission!r}")

    def reach(self, permission: str) -> Reach | None:
        """How far a permission goes; none: it is not held."""
        if permission not in self.permissions:
            return None
        about = TABLE[permission].about
        if about is About.OTHERS:
            return self.widest
        return Reach.SYSTEM if about is About.SYSTEM else Reach.OWN

    def reaches(self, owner: Owner, permission: str) -> bool:
        """Whether a thing is the actor's own, or within what ``permission`` covers.

        What one made in an organisation that one has left since is that organisation's.
        """
        reach = self.reach(permission)
        if reach is Reach.SYSTEM:
            return True
        if owner.org != self.org:
            return False
        if owner.user_id == self.user_id or reach is Reach.ORG:
            return True
        return reach is Reach.TEAM and owner.team in self.teams

    def covers(self, owner: Owner, permission: str) -> bool:
        """Whether a thing is within what ``permission`` covers, whoever made it."""
        return self.may(permission) and self.reaches(owner._replace(user_id=None), permission)

    def must_cover(self, owner: Owner, permission: str) -> None:
        """Refuse with 403 what the actor sees, but may not change."""
        if not self.reaches(owner, permission):
            raise NotPermitted(f"it is somebody else's: this needs the permission {permission!r}")

    def must_reach(self, owner: Owner, what: str, permission: str) -> None:
        """Refuse with 404 what is neither the actor's own nor within ``permission``."""
        if not self.reaches(owner, permission):
            raise NotFound(f"there is no {what}")
