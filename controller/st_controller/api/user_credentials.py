"""``/v1/users/NAME/...``: what an admin does about how somebody else signs in."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.services import account_passwords, api_keys, sessions
from st_controller.services.caller import Caller
from st_controller.services.outranking import locked_user, must_outweigh
from st_shared.protocol.resources import ApiKeyCreated, ApiKeyRequest
from st_shared.protocol.sign_in import Ended, ResetOffer, ResetTokenView

router = APIRouter(prefix="/v1/users/{username}", tags=["people"])

Admin = Annotated[Caller, requires("admin.users")]
Username = Annotated[str, Path(max_length=200)]


@router.post("/reset-token", status_code=201)
def offer_reset(
    platform: PlatformDep, caller: Admin, username: Username, body: ResetOffer
) -> ResetTokenView:
    """Make a token with which a user chooses a password, once, within a day."""
    with platform.db.write() as tx:
        user = locked_user(tx.session, caller, username)
        must_outweigh(tx.session, caller, user)
        return account_passwords.offer_reset(
            tx, user, caller.signature, clears_second_factor=body.clears_second_factor
        )


@router.post("/sessions:end")
def end_sessions(platform: PlatformDep, caller: Admin, username: Username) -> Ended:
    """Sign a user out everywhere; their keys stay."""
    with platform.db.write() as tx:
        user = locked_user(tx.session, caller, username)
        return Ended(count=len(sessions.end_sessions(tx, user.id, caller.signature)))


@router.post("/api-keys", status_code=201)
def create_key(
    platform: PlatformDep, caller: Admin, username: Username, body: ApiKeyRequest
) -> ApiKeyCreated:
    """Make a key of an account without password, such as a pipeline's; told this once."""
    with platform.db.write() as tx:
        user = locked_user(tx.session, caller, username)
        must_outweigh(tx.session, caller, user)
        return api_keys.create_key_for(tx, caller, user, body)
