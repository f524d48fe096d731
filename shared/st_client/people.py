"""Organisations, teams, users, roles and saved configurations, as one person reaches them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from st_client.connection import Connection
from st_shared.protocol.configs import ConfigDetail, ConfigView
from st_shared.protocol.message import Resource
from st_shared.protocol.resources import ApiKeyCreated, ApiKeyRequest, ApiKeyView, Page
from st_shared.protocol.sign_in import Ended, ResetOffer, ResetTokenView
from st_shared.protocol.tenancy import (
    MemberView,
    OrgView,
    RoleView,
    TeamView,
    UserDetail,
    UserView,
)

Item = TypeVar("Item", bound=Resource)
Items = Callable[..., Iterator[Any]]
"""Reads a list page by page: path and kind of a page."""


class People:
    """Part of a ``Client``: who there is, and what they may do."""

    def __init__(self, connection: Connection, items: Items) -> None:
        self._connection, self._items = connection, items

    # Organisations

    def orgs(self) -> Iterator[OrgView]:
        """Organisations by name."""
        return self._items("orgs", Page[OrgView])

    def create_org(self, slug: str, name: str | None, time_zone: str) -> OrgView:
        """A new organisation with a team ``default``."""
        body = {"slug": slug, "name": name or slug, "time_zone": time_zone}
        return self._connection.post("orgs", OrgView, body)

    def change_org(self, slug: str, changes: Mapping[str, str]) -> OrgView:
        """Another name or time zone."""
        return self._connection.patch(f"orgs/{_safe(slug)}", OrgView, changes)

    def disable_org(self, slug: str) -> None:
        """Let nobody of it sign in any more."""
        self._connection.delete(f"orgs/{_safe(slug)}")

    def enable_org(self, slug: str) -> OrgView:
        """Let its people sign in again."""
        return self._connection.post(f"orgs/{_safe(slug)}/enable", OrgView)

    def move_user(self, username: str, org: str, team: str) -> UserView:
        """Take a user into an organisation, as one of a team."""
        path = f"orgs/{_safe(org)}/members/{_safe(username)}"
        return self._connection.put(path, UserView, {"team": team})

    # Teams

    def teams(self, org: str | None = None) -> Iterator[TeamView]:
        """Teams by organisation and name."""
        return self._items("teams", Page[TeamView], **({"org": org} if org else {}))

    def create_team(self, path: str, name: str | None) -> TeamView:
        """A new team ``org/team``."""
        org, team = split(path)
        return self._connection.post("teams", TeamView, {"org": org, "slug": team, "name": name})

    def rename_team(self, path: str, name: str) -> TeamView:
        """Another name for people."""
        return self._connection.patch(_team(path), TeamView, {"name": name})

    def archive_team(self, path: str) -> None:
        """Let nobody submit as it any more."""
        self._connection.delete(_team(path))

    def members(self, path: str) -> Iterator[MemberView]:
        """Who is in a team."""
        return self._items(f"{_team(path)}/members", Page[MemberView])

    def add_member(self, path: str, username: str) -> None:
        """Take a user of the organisation into a team."""
        self._connection.put_silent(f"{_team(path)}/members/{_safe(username)}")

    def remove_member(self, path: str, username: str) -> None:
        """Take a user out of a team."""
        self._connection.delete(f"{_team(path)}/members/{_safe(username)}")

    # Users

    def users(self, org: str | None = None, team: str | None = None) -> Iterator[UserView]:
        """Users by name."""
        wanted = {"org": org, "team": team}
        return self._items("users", Page[UserView], **{k: v for k, v in wanted.items() if v})

    def user(self, username: str) -> UserDetail:
        """One user, with what they may do."""
        return self._connection.get(f"users/{_safe(username)}", UserDetail)

    def create_user(self, fields: Mapping[str, Any]) -> UserView:
        """A new user."""
        return self._connection.post("users", UserView, fields)

    def change_user(self, username: str, changes: Mapping[str, Any]) -> UserDetail:
        """Another role or first team, or whether they may sign in."""
        return self._connection.patch(f"users/{_safe(username)}", UserDetail, changes)

    def grant(self, username: str, permission: str, effect: str) -> UserDetail:
        """``allow`` or ``deny`` a permission to one user."""
        path = f"users/{_safe(username)}/grants/{_safe(permission)}"
        return self._connection.put(path, UserDetail, {"effect": effect})

    def ungrant(self, username: str, permission: str) -> None:
        """Let the role alone decide of it again."""
        self._connection.delete(f"users/{_safe(username)}/grants/{_safe(permission)}")

    def keys(self, username: str) -> Iterator[ApiKeyView]:
        """API keys of a user."""
        return self._items(f"users/{_safe(username)}/api-keys", Page[ApiKeyView])

    def create_key(self, username: str, request: ApiKeyRequest) -> ApiKeyCreated:
        """A key of an account without password, such as a pipeline's."""
        return self._connection.post(f"users/{_safe(username)}/api-keys", ApiKeyCreated, request)

    def revoke_key(self, username: str, key_id: str) -> None:
        """End a key of a user."""
        self._connection.delete(f"users/{_safe(username)}/api-keys/{_safe(key_id)}")

    def offer_reset(self, username: str, *, clears_second_factor: bool) -> ResetTokenView:
        """A token with which a user chooses a password."""
        body = ResetOffer(clears_second_factor=clears_second_factor)
        path = f"users/{_safe(username)}/reset-token"
        return self._connection.post(path, ResetTokenView, body)

    def sign_out(self, username: str) -> Ended:
        """End all sessions of a user; keys stay."""
        return self._connection.post(f"users/{_safe(username)}/sessions:end", Ended)

    # One's own keys

    def own_keys(self) -> Iterator[ApiKeyView]:
        """API keys of the caller."""
        return self._items("api-keys", Page[ApiKeyView])

    def create_own_key(self, request: ApiKeyRequest) -> ApiKeyCreated:
        """A key of the caller."""
        return self._connection.post("api-keys", ApiKeyCreated, request)

    def revoke_own_key(self, key_id: str) -> None:
        """End a key of the caller."""
        self._connection.delete(f"api-keys/{_safe(key_id)}")

    # Roles

    def roles(self) -> Iterator[RoleView]:
        """Roles, the highest rank last."""
        return self._items("roles", Page[RoleView])

    def create_role(self, fields: Mapping[str, Any]) -> RoleView:
        """A new role."""
        return self._connection.post("roles", RoleView, fields)

    def change_role(self, slug: str, fields: Mapping[str, Any]) -> RoleView:
        """Let a role made here give something else."""
        return self._connection.put(f"roles/{_safe(slug)}", RoleView, fields)

    def delete_role(self, slug: str) -> None:
        """Remove a role that nobody has."""
        self._connection.delete(f"roles/{_safe(slug)}")

    # Saved configurations

    def configs(self) -> Iterator[ConfigView]:
        """Saved configurations by name."""
        return self._items("configs", Page[ConfigView])

    def config(self, name: str) -> ConfigDetail:
        """One of them with its content."""
        return self._connection.get(f"configs/{_safe(name)}", ConfigDetail)

    def create_config(self, name: str, document: Mapping[str, Any], note: str) -> ConfigDetail:
        """Save part of a job file under a new name."""
        body = {"name": name, "document": document, "note": note}
        return self._connection.post("configs", ConfigDetail, body)

    def change_config(self, name: str, document: Mapping[str, Any]) -> ConfigDetail:
        """Put other content under a name."""
        return self._connection.put(f"configs/{_safe(name)}", ConfigDetail, {"document": document})

    def delete_config(self, name: str) -> None:
        """Remove one."""
        self._connection.delete(f"configs/{_safe(name)}")


def split(path: str) -> tuple[str | None, str]:
    """Organisation and team of ``org/team``; without an organisation: one's own."""
    org, slash, team = path.partition("/")
    return (org, team) if slash else (None, org)


def _team(path: str) -> str:
    org, team = split(path)
    return f"teams/{_safe(org or '')}/{_safe(team)}"


def _safe(name: str) -> str:
    return quote(name, safe="")
