"""``/v1/users``: users, their roles, and what is granted or denied to each."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.auth import passwords
from st_controller.platform import Platform
from st_controller.services import (
    api_keys,
    seen_users,
    user_grants,
    user_views,
    users,
)
from st_controller.services.caller import Caller
from st_controller.store.schema import User
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import ApiKeyView, Page
from st_shared.protocol.tenancy import (
    GrantRequest,
    UserChange,
    UserDetail,
    UserRequest,
    UserView,
)

router = APIRouter(prefix="/v1/users", tags=["people"])

Admin = Annotated[Caller, requires("admin.users")]
KeyAdmin = Annotated[Caller, requires("api.keys.all")]
Username = Annotated[str, Path(max_length=200)]
Permission = Annotated[str, Path(max_length=40)]


@router.get("")
def list_users(
    platform: PlatformDep,
    caller: Admin,
    org: Annotated[str | None, Query(max_length=64)] = None,
    team: Annotated[
        str | None, Query(max_length=64, description="Of `org`, or of the caller's organisation")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[UserView]:
    """The users that the caller may see, by name."""
    with platform.db.read() as session:
        found, following = seen_users.list_users(
            session, caller, org=org, team=team, after=cursor, limit=limit
        )
        return Page(items=user_views.views(session, found), next_cursor=following)


@router.post("", status_code=201)
def create(platform: PlatformDep, caller: Admin, request: UserRequest) -> UserView:
    """Make a user."""
    # The slow hash is computed outside of the transaction, so that nobody waits for it.
    hashed = passwords.hash_password(request.password) if request.password else None
    with platform.db.write() as tx:
        user = users.make_user(tx, caller, request, hashed)
        return user_views.views(tx.session, [user])[0]


@router.get("/{username}")
def show(platform: PlatformDep, caller: Admin, username: Username) -> UserDetail:
    """One user, with what they may do."""
    with platform.db.read() as session:
        return user_views.detail(session, seen_users.get_user(session, caller, username))


@router.patch("/{username}")
def change(
    platform: PlatformDep, caller: Admin, username: Username, request: UserChange
) -> UserDetail:
    """Give a user another role or first team, or say whether they may sign in."""
    return _change(platform, lambda tx: users.change_user(tx, caller, username, request))


@router.put("/{username}/grants/{permission}")
def grant(
    platform: PlatformDep,
    caller: Admin,
    username: Username,
    permission: Permission,
    request: GrantRequest,
) -> UserDetail:
    """Give a permission to one user, or keep it from them."""
    return _change(
        platform,
        lambda tx: user_grants.grant(tx, caller, username, permission, request.effect),
    )


@router.delete("/{username}/grants/{permission}")
def ungrant(
    platform: PlatformDep, caller: Admin, username: Username, permission: Permission
) -> UserDetail:
    """Let the role alone decide of a permission again."""
    return _change(platform, lambda tx: user_grants.ungrant(tx, caller, username, permission))


@router.get("/{username}/api-keys")
def list_keys(
    platform: PlatformDep,
    caller: KeyAdmin,
    username: Username,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[ApiKeyView]:
    """The API keys of a user, newest first."""
    with platform.db.read() as session:
        owner = seen_users.get_user(session, caller, username, "api.keys.all")
        keys = api_keys.list_keys(session, owner.id, cursor=cursor, limit=limit + 1)
    more = keys[limit - 1].id if len(keys) > limit else None
    return Page(items=[api_keys.view(key) for key in keys[:limit]], next_cursor=more)


@router.delete("/{username}/api-keys/{key_id}", status_code=204)
def revoke_key(platform: PlatformDep, caller: KeyAdmin, username: Username, key_id: str) -> None:
    """End a key of a user at once."""
    with platform.db.write() as tx:
        owner = seen_users.get_user(tx.session, caller, username, "api.keys.all")
        api_keys.revoke_key(tx, caller, key_id, owner.id)


def _change(platform: Platform, change: Callable[[Transaction], User]) -> UserDetail:
    with platform.db.write() as tx:
        user = change(tx)
        tx.session.flush()
        return user_views.detail(tx.session, user)
