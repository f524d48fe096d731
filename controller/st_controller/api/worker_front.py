"""What thousands of workers call all the time is answered in front of the framework."""

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from st_controller.api import problems
from st_controller.api.compressed_body import replayed
from st_controller.api.dependencies import worker_of
from st_controller.api.short_calls import Route, digest_of_bearer, headers_of_json, whole_body
from st_controller.api.worker_streams import LONGEST_ID, hold_stream
from st_controller.errors import Refusal
from st_controller.platform import Platform
from st_controller.services.caller import WorkerCaller
from st_controller.store.database import DatabaseAwayError
from st_shared.protocol import endpoints
from st_shared.protocol.worker import Heartbeat, HeartbeatReply

MOST_BYTES = 2**16
"""A longer heartbeat takes the long way."""


_BEAT = Route(endpoints.HEARTBEAT.url())
_STREAM = Route(endpoints.STREAM.url())


class WorkerFront:
    """ASGI middleware that answers heartbeats and streams; all else passes straight through.

    It answers only what it is sure of: of heartbeats, a whole body that is not compressed, from
    somebody who was looked up a moment ago. The rest goes on to the routes of the same names, which
    do and say the same at several times the cost; see ``docs/decisions/0015``.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app, self._platform = app, platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        call = (scope["method"], scope["path"]) if scope["type"] == "http" else None
        if call == ("POST", _BEAT.path):
            caller = self._known(scope)
            if caller is not None:
                await self._beat(caller, scope, receive, send)
                return
        elif call == ("GET", _STREAM.path):
            request = Request(scope)
            last_id = request.headers.get("last-event-id")
            caller = await self._signed_in(request)
            if caller is not None and len(last_id or "") <= LONGEST_ID:
                del request, call
                scope["route"] = _STREAM
                error = await hold_stream(self._platform, caller, last_id, scope, receive, send)
                if error is not None:
                    await (await _problem(Request(scope), error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _signed_in(self, request: Request) -> WorkerCaller | None:
        """Who asks; none: that is to be refused, and others say why."""
        try:
            return await worker_of(self._platform, request)
        except (Refusal, DatabaseAwayError):
            return None

    def _known(self, scope: Scope) -> WorkerCaller | None:
        """Who sends a short JSON body, if that was looked up a moment ago."""
        headers = headers_of_json(scope, MOST_BYTES)
        digest = digest_of_bearer(headers) if headers else None
        if digest is None:
            return None
        return self._platform.workers.recall(digest, self._platform.db.clock())

    async def _beat(self, caller: WorkerCaller, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        try:
            beat = Heartbeat.model_validate_json(body)
        except ValidationError:
            await self._app(scope, replayed(body, receive), send)  # which says what is wrong
            return
        scope["route"] = _BEAT
        try:
            reply = await self._platform.heartbeats.take(caller.worker_id, beat, caller.digest)
        except (Refusal, DatabaseAwayError) as error:
            await (await _problem(Request(scope), error))(scope, receive, send)
        else:
            await _answer(reply, send)


async def _problem(request: Request, error: Exception) -> Response:
    explain = problems.refused if isinstance(error, Refusal) else problems.away
    return await explain(request, error)


async def _answer(reply: HeartbeatReply, send: Send) -> None:
    body = reply.model_dump_json().encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
