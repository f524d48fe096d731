"""Calls of workers are let in before a byte of their bodies is read, opened or parsed."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from st_controller.api import problems
from st_controller.api.body_limit import BodyLimit
from st_controller.api.compressed_body import MOST_OPEN
from st_controller.api.dependencies import registrar_of, worker_of
from st_controller.errors import Refusal
from st_controller.platform import Platform
from st_controller.store.database import DatabaseAwayError
from st_shared.protocol import endpoints

STRANGERS_BYTES = 2**18
"""Most that somebody may send, and open, who shows a join token: it is verified later."""


class WorkerGate:
    """ASGI middleware that answers 401 to a call with a body and no credential in force.

    Routes prove the credential as well; but the framework reads and parses a body before that.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app, self._platform = app, platform
        self._strangers = BodyLimit(app, STRANGERS_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what comes from a worker, or may come from one that joins."""
        is_call = scope["type"] == "http" and scope["path"].startswith(f"{endpoints.PREFIX}/")
        if not is_call or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            is_stranger = await self._is_stranger(request)
        except Refusal as error:
            await (await problems.refused(request, error))(scope, receive, send)
        except DatabaseAwayError as error:
            await (await problems.away(request, error))(scope, receive, send)
        else:
            if is_stranger:
                bounded = {**scope, MOST_OPEN: STRANGERS_BYTES}
                await self._strangers(bounded, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _is_stranger(self, request: Request) -> bool:
        """Whether only a join token came, where that is enough.

        Raises:
            NotSignedIn: nothing came that is enough.
        """
        if request.scope["path"] == endpoints.REGISTER.url():
            return (await registrar_of(self._platform, request)).worker is None
        await worker_of(self._platform, request)
        return False
