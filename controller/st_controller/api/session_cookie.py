"""The cookie of a session, and how a new token reaches the browser with whatever it asked for."""

from datetime import datetime

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_controller.platform import Platform
from st_controller.services import sessions
from st_controller.services.caller import Caller
from st_shared.protocol import endpoints

_STATE = "st_session_cookie"


def cookie_name(platform: Platform) -> str:
    """The session cookie; over TLS bound to this very host (RFC 6265bis, ``__Host-``)."""
    return "__Host-st_session" if platform.settings.cookies_are_secure else "st_session"


def set_cookie(response: Response, platform: Platform, token: str, expires_at: datetime) -> None:
    """Give the browser a token, which no script can read."""
    left = expires_at - platform.db.clock()
    response.set_cookie(
        cookie_name(platform),
        token,
        max_age=max(0, int(left.total_seconds())),
        path="/",
        secure=platform.settings.cookies_are_secure,
        httponly=True,
        samesite="lax",
    )


def forget_cookie(response: Response, platform: Platform) -> None:
    """Take the browser's token away."""
    response.delete_cookie(
        cookie_name(platform), path="/", secure=platform.settings.cookies_are_secure, httponly=True
    )


async def renew(request: Request, platform: Platform, caller: Caller) -> None:
    """Give a session whose token is old a new one, with the answer to this request."""
    begun, ends = caller.renewed_at, caller.expires_at
    if begun is None or ends is None or platform.db.clock() - begun < sessions.RENEWED_AFTER:
        return
    token = await run_in_threadpool(sessions.renew, platform.db, caller.credential_id)
    if token is not None:
        carrier = Response()
        set_cookie(carrier, platform, token, ends)
        request.scope.setdefault("state", {})[_STATE] = carrier.headers["set-cookie"]


class SessionCookie:
    """ASGI middleware that adds the cookie of a renewed session to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the start of the answer what the route has left; the body passes untouched."""
        if scope["type"] != "http" or scope["path"].startswith(f"{endpoints.PREFIX}/"):
            await self._app(scope, receive, send)  # workers have no sessions
            return
        state = scope.setdefault("state", {})

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and _STATE in state:
                given = list(message.get("headers", ()))
                if not any(name.lower() == b"set-cookie" for name, _ in given):
                    given.append((b"set-cookie", state[_STATE].encode("latin-1")))
                message["headers"] = given
            await send(message)

        await self._app(scope, receive, with_cookie)
