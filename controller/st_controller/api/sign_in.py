"""``/v1/auth``: one's password and second factor; nothing of it can be done with a key."""

from typing import Annotated

from fastapi import APIRouter, Request

from st_controller.api.dependencies import PlatformDep, browser_session, public
from st_controller.api.origin import refuse_other_sites
from st_controller.api.throttle import count_try
from st_controller.platform import Platform
from st_controller.services import account_passwords, second_factor
from st_controller.services.caller import Caller
from st_shared.protocol.sign_in import (
    CodeProof,
    FullProof,
    PasswordChange,
    PasswordProof,
    PasswordReset,
    RecoveryCodes,
    SecondFactorSecret,
    SecondFactorView,
)

router = APIRouter(prefix="/v1/auth", tags=["auth"])

Person = Annotated[Caller, browser_session()]


@router.post("/password", status_code=204)
def change_password(
    request: Request, platform: PlatformDep, caller: Person, body: PasswordChange
) -> None:
    """Choose another password; all other browsers are signed out, keys stay."""
    count_try(request, platform, caller.username)
    account_passwords.change_password(platform.db, caller, body.password, body.new)


@router.post("/reset", status_code=204, dependencies=[public()])
def reset_password(request: Request, platform: PlatformDep, body: PasswordReset) -> None:
    """Choose a password with a token that an admin gave; all browsers are signed out."""
    refuse_other_sites(request, platform.settings.public_url, strict=False)
    count_try(request, platform, "reset")
    account_passwords.reset_password(platform.db, body.token, body.new)


@router.get("/second-factor")
def show(platform: PlatformDep, caller: Person) -> SecondFactorView:
    """Whether a code is asked for beside the password."""
    with platform.db.read() as session:
        return second_factor.view(session, caller.user_id)


@router.post("/second-factor")
def begin(
    request: Request, platform: PlatformDep, caller: Person, body: PasswordProof
) -> SecondFactorSecret:
    """Get a secret for an authenticator; it counts once a code of it was confirmed."""
    _must_be_person(request, platform, caller, body.password)
    return second_factor.begin(platform.db, platform.vault, caller)


@router.post("/second-factor/confirm")
def confirm(
    request: Request, platform: PlatformDep, caller: Person, body: CodeProof
) -> RecoveryCodes:
    """Show the first code of the authenticator; gives recovery codes, this once."""
    count_try(request, platform, caller.username)
    codes = second_factor.confirm(platform.db, platform.vault, caller, body.code)
    return RecoveryCodes(codes=codes)


@router.post("/second-factor/remove", status_code=204)
def remove(request: Request, platform: PlatformDep, caller: Person, body: FullProof) -> None:
    """Be asked for no code any more."""
    _must_be_person(request, platform, caller, body.password)
    db, vault = platform.db, platform.vault
    if not second_factor.prove(db, vault, caller.user_id, caller.signature, body.code):
        raise second_factor.wrong_code()
    with db.write() as tx:
        second_factor.remove(tx, caller.user_id, caller.signature)


def _must_be_person(request: Request, platform: Platform, caller: Caller, password: str) -> None:
    count_try(request, platform, caller.username)
    with platform.db.read() as session:
        account_passwords.must_be_password(session, caller.user_id, password)
