"""Signing in: the first admin, browser sessions, and who one is."""

from fastapi import APIRouter, Request, Response

from st_controller.api.dependencies import CallerDep, PlatformDep, address_of, public
from st_controller.api.origin import refuse_other_sites
from st_controller.api.session_cookie import forget_cookie, set_cookie
from st_controller.api.throttle import count_try
from st_controller.errors import NotSignedIn
from st_controller.platform import Platform
from st_controller.services import api_keys, identity, second_factor, setup
from st_controller.services.sessions import Device
from st_controller.setup_file import forget_setup_token
from st_controller.store.schema import User
from st_shared.protocol.resources import (
    ApiKeyCreated,
    ApiKeyRequest,
    LoginRequest,
    Me,
    SessionView,
    SetupRequest,
)

router = APIRouter(prefix="/v1/auth", tags=["auth"])


@router.post("/setup", status_code=201, dependencies=[public()])
def set_up(request: Request, platform: PlatformDep, body: SetupRequest) -> ApiKeyCreated:
    """Create the first admin, with an API key; possible once, with the setup token."""
    refuse_other_sites(request, platform.settings.public_url, strict=False)
    count_try(request, platform, "setup")
    with platform.db.write() as transaction:
        admin = setup.create_first_admin(transaction, body.token, body.username, body.password)
        key = api_keys.create_key(
            transaction, admin, ApiKeyRequest(name="first key", scopes=None, expires_in_days=None)
        )
    forget_setup_token(platform.settings)
    return key


@router.post("/login", dependencies=[public()])
def login(
    request: Request, response: Response, platform: PlatformDep, body: LoginRequest
) -> SessionView:
    """Sign a browser in; the session travels in a cookie."""
    refuse_other_sites(request, platform.settings.public_url, strict=False)
    count_try(request, platform, body.username)
    lifetime = platform.settings.session_lifetime
    device = Device(address_of(request), request.headers.get("user-agent"))
    opened = identity.sign_in(
        platform.db,
        body.username,
        body.password,
        lifetime,
        device,
        prove=lambda user: _missing(platform, user, body.code),
    )
    set_cookie(response, platform, opened.token, opened.expires_at)
    return SessionView(username=opened.username, expires_at=opened.expires_at)


@router.post("/logout", status_code=204)
def logout(response: Response, platform: PlatformDep, caller: CallerDep) -> None:
    """End the browser's session; a key stays in force."""
    if caller.via == "session":
        with platform.db.write() as transaction:
            identity.revoke_session(transaction, caller)
    forget_cookie(response, platform)


@router.get("/me")
async def me(caller: CallerDep) -> Me:
    """Who the caller is and what it may do."""
    return Me(
        user_id=caller.user_id,
        username=caller.username,
        role=caller.role,
        org=caller.org,
        team=caller.team,
        teams=sorted(caller.teams),
        reach=caller.widest.word,
        permissions=sorted(caller.permissions),
        via=caller.via,
    )


def _missing(platform: Platform, user: User, code: str | None) -> NotSignedIn | None:
    """Why the password is not enough; none: it is, or the code is right."""
    with platform.db.read() as session:
        if not second_factor.is_on(session, user.id):
            return None
    if code is None:
        return second_factor.needed()
    signature = f"user:{user.username}"
    is_right = second_factor.prove(platform.db, platform.vault, user.id, signature, code)
    return None if is_right else second_factor.refused()
