"""Who acts, as far as the rules care."""

from dataclasses import dataclass, field

from st_controller.errors import NotFound, NotPermitted


@dataclass(frozen=True)
class Actor:
    """A signed-in caller."""

    user_id: str
    username: str
    permissions: frozenset[str]
    tenant: tuple[str, str] | None = field(default=None, kw_only=True, compare=False)
    """Organisation and team, where the look-up of the credential brought them along."""

    @property
    def signature(self) -> str:
        """The name in the audit log; the prefix keeps users apart from workers and the system."""
        return f"user:{self.username}"

    def may(self, permission: str) -> bool:
        """Whether this permission is held."""
        return permission in self.permissions

    def must_reach(self, owner_id: str, what: str, everyone: str) -> None:
        """Refuse with 404 what belongs to somebody else, unless ``everyone`` is held."""
        if owner_id != self.user_id and not self.may(everyone):
            raise NotFound(f"there is no {what}")

    def must(self, permission: str) -> None:
        """Refuse with 403 unless the permission is held."""
        if not self.may(permission):
            raise NotPermitted(f"this needs the permission {permission!r}")
