"""The caller's API keys."""

from typing import Annotated

from fastapi import APIRouter

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.services import api_keys
from st_controller.services.caller import Caller
from st_shared.protocol.resources import ApiKeyCreated, ApiKeyRequest, ApiKeyView, Page

router = APIRouter(prefix="/v1/api-keys", tags=["api-keys"])

KeyOwner = Annotated[Caller, requires("api.keys.own")]


@router.post("", status_code=201)
def create(platform: PlatformDep, caller: KeyOwner, body: ApiKeyRequest) -> ApiKeyCreated:
    """Make a key; its secret is told this once."""
    with platform.db.write() as transaction:
        return api_keys.create_key(transaction, caller, body)


@router.get("")
def list_(
    platform: PlatformDep, caller: KeyOwner, cursor: Cursor = None, limit: Limit = 100
) -> Page[ApiKeyView]:
    """The caller's keys that are not revoked, newest first."""
    with platform.db.read() as session:
        keys = api_keys.list_keys(session, caller.user_id, cursor=cursor, limit=limit + 1)
    more = keys[limit - 1].id if len(keys) > limit else None
    return Page(items=[api_keys.view(key) for key in keys[:limit]], next_cursor=more)


@router.delete("/{key_id}", status_code=204)
def revoke(platform: PlatformDep, caller: KeyOwner, key_id: str) -> None:
    """End a key at once."""
    with platform.db.write() as transaction:
        api_keys.revoke_key(transaction, caller, key_id)
