"""Tokens with which workers join."""

from typing import Annotated

from fastapi import APIRouter

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.services import join_tokens
from st_controller.services.caller import Caller
from st_shared.protocol.resources import JoinTokenCreated, JoinTokenRequest, JoinTokenView, Page

router = APIRouter(prefix="/v1/join-tokens", tags=["workers"])

Operator = Annotated[Caller, requires("admin.workers")]


@router.post("", status_code=201)
def create(platform: PlatformDep, caller: Operator, body: JoinTokenRequest) -> JoinTokenCreated:
    """Make a token; its secret is told this once."""
    with platform.db.write() as transaction:
        return join_tokens.create_token(
            transaction, body, user_id=caller.user_id, actor=caller.signature
        )


@router.get("")
def list_(
    platform: PlatformDep, _caller: Operator, cursor: Cursor = None, limit: Limit = 100
) -> Page[JoinTokenView]:
    """Tokens that are not revoked, newest first."""
    with platform.db.read() as session:
        tokens = join_tokens.list_tokens(session, cursor=cursor, limit=limit + 1)
    more = tokens[limit - 1].id if len(tokens) > limit else None
    return Page(items=[join_tokens.view(token) for token in tokens[:limit]], next_cursor=more)


@router.delete("/{token_id}", status_code=204)
def revoke(platform: PlatformDep, caller: Operator, token_id: str) -> None:
    """Let nobody join with it any more."""
    with platform.db.write() as transaction:
        join_tokens.revoke_token(transaction, token_id, actor=caller.signature)
