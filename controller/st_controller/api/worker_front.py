"""What thousands of workers call all the time is answered in front of the framework."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fastapi import Response
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from st_controller.api import problems, worker_calls
from st_controller.api.compressed_body import replayed
from st_controller.api.dependencies import worker_of
from st_controller.api.short_calls import Route, digest_of_bearer, headers_of_json, whole_body
from st_controller.api.submissions import encoded
from st_controller.api.worker_streams import LONGEST_ID, hold_stream
from st_controller.errors import Refusal
from st_controller.platform import Platform
from st_controller.services.caller import WorkerCaller
from st_controller.store.database import DatabaseAwayError
from st_shared.protocol import endpoints
from st_shared.protocol.endpoints import Endpoint
from st_shared.protocol.message import Message
from st_shared.protocol.worker import ClaimBatch, FinishBatch, Heartbeat

MOST_BYTES = 2**16
"""A longer call takes the long way."""

_Act = Callable[[Platform, WorkerCaller, str, Any], Awaitable[Response]]
"""Answers a call about an attempt, if it is about one, with this body, if it has one."""


async def _beat(platform: Platform, caller: WorkerCaller, _: str, beat: Heartbeat) -> Response:
    return encoded(await platform.heartbeats.take(caller.worker_id, beat, caller.digest), 200)


async def _claim(platform: Platform, caller: WorkerCaller, attempt_id: str, _: None) -> Response:
    return await worker_calls.claim(platform, caller, attempt_id)


async def _claims(platform: Platform, caller: WorkerCaller, _: str, body: ClaimBatch) -> Response:
    return await worker_calls.claim_all(platform, caller, body)


async def _finishes(
    platform: Platform, caller: WorkerCaller, _: str, body: FinishBatch
) -> Response:
    return await worker_calls.finish_all(platform, caller, body)


class _Call(NamedTuple):
    """One endpoint: what it is called in the log, what is sent to it, and what answers."""

    route: Route
    body: type[Message] | None
    act: _Act


def _call(endpoint: Endpoint[Any], act: _Act) -> _Call:
    return _Call(Route(endpoints.PREFIX + endpoint.path), endpoint.body, act)


_CALLS = {
    call.route.path: call
    for call in (
        _call(endpoints.HEARTBEAT, _beat),
        _call(endpoints.CLAIMS, _claims),
        _call(endpoints.FINISHES, _finishes),
    )
}
_ABOUT_ATTEMPTS = {
    call.route.path.rpartition("/")[2]: call
    for call in (_call(endpoints.CLAIM, _claim), _call(endpoints.FINISH, worker_calls.finish))
}
_ATTEMPT = re.compile(rf"{endpoints.PREFIX}/attempts/([a-z]{{2,12}}_[0-9a-z]{{26}})/([a-z]+)")
_STREAM = Route(endpoints.STREAM.url())


class WorkerFront:
    """ASGI middleware that answers heartbeats, claims, ends of attempts and streams.

    It answers only what it is sure of: a whole body that is short and not compressed, from
    somebody who was looked up a moment ago. The rest goes on to the routes of the same names, which
    do and say the same at several times the cost; see ``docs/decisions/0015``.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app, self._platform = app, platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        method = scope["method"] if scope["type"] == "http" else ""
        if method == "POST":
            call, attempt_id = _find(scope["path"])
            caller = self._known(scope) if call else None
            if call is not None and caller is not None:
                await self._short(call, caller, attempt_id, scope, receive, send)
                return
        elif method == "GET" and scope["path"] == _STREAM.path:
            request = Request(scope)
            last_id = request.headers.get("last-event-id")
            caller = await self._signed_in(request)
            if caller is not None and len(last_id or "") <= LONGEST_ID:
                del request
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

    async def _short(
        self,
        call: _Call,
        caller: WorkerCaller,
        attempt_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        try:
            told = call.body.model_validate_json(body) if call.body else None
        except ValidationError:
            await self._app(scope, replayed(body, receive), send)  # which says what is wrong
            return
        scope["route"] = call.route
        try:
            answer = await call.act(self._platform, caller, attempt_id, told)
        except (Refusal, DatabaseAwayError) as error:
            answer = await _problem(Request(scope), error)
        await answer(scope, receive, send)


def _find(path: str) -> tuple[_Call | None, str]:
    """Which of the calls this is, and which attempt it is about, if any."""
    found = _CALLS.get(path)
    about = _ATTEMPT.fullmatch(path) if found is None else None
    return (found, "") if about is None else (_ABOUT_ATTEMPTS.get(about[2]), about[1])


async def _problem(request: Request, error: Exception) -> Response:
    explain = problems.refused if isinstance(error, Refusal) else problems.away
    return await explain(request, error)
