"""Single submissions by key, which programs send by the hundred, answered before the framework."""

import json
import re
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from st_controller.api import problems
from st_controller.api.compressed_body import replayed
from st_controller.api.short_calls import Route, digest_of_bearer, headers_of_json, whole_body
from st_controller.api.submissions import (
    MOST_OF_KEY,
    SIGNS_OF_KEY,
    SMALL,
    encoded,
    rules_of,
    taken_in,
)
from st_controller.errors import Refusal
from st_controller.platform import Platform
from st_controller.services import submission
from st_controller.services.caller import Caller
from st_controller.store.database import DatabaseAwayError

_JOBS = Route("/v1/jobs")
_KEY = re.compile(SIGNS_OF_KEY)


class _Call(NamedTuple):
    """Who submits, and under which Idempotency-Key."""

    caller: Caller
    key: str | None


class SubmissionFront:
    """ASGI middleware that answers ``POST /v1/jobs``; all else passes straight through.

    It answers only what it is sure of: one small job file in a plain body, that begins from no
    saved configuration, from the holder of a key who was looked up a moment ago. The rest goes on
    to the route of the same name, which does and says the same at twice the cost; see
    ``docs/decisions/0017``.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app, self._platform = app, platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        call = self._known(scope) if scope["type"] == "http" else None
        if call is None:
            await self._app(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        document = _document(body)
        if document is None:  # the route says what is wrong, or looks up what it begins from
            await self._app(scope, replayed(body, receive), send)
            return
        scope["route"] = _JOBS
        try:
            draft = submission.check(call.caller, document, rules_of(self._platform))
            view, is_new = await taken_in(self._platform, call.caller, draft, call.key)
        except Refusal as error:
            answer = await problems.refused(Request(scope), error)
        except DatabaseAwayError as error:
            answer = await problems.away(Request(scope), error)
        else:
            answer = encoded(view, 201 if is_new else 200, {"Location": f"/v1/jobs/{view.id}"})
        await answer(scope, receive, send)

    def _known(self, scope: Scope) -> _Call | None:
        """Who submits with a key that was looked up a moment ago, and may."""
        if scope["path"] != _JOBS.path or scope["method"] != "POST" or scope["query_string"]:
            return None
        headers = headers_of_json(scope, SMALL)
        digest = digest_of_bearer(headers) if headers else None
        if headers is None or digest is None:
            return None
        caller = self._platform.callers.recall(digest, self._platform.db.clock())
        if caller is None or caller.via != "api_key" or not caller.may("job.submit"):
            return None
        if not caller.may_come_from((scope.get("client") or ("",))[0]):
            return None
        sent = headers.get(b"idempotency-key")
        if sent is None:
            return _Call(caller, None)
        key = sent.decode("latin-1")
        return _Call(caller, key) if len(key) <= MOST_OF_KEY and _KEY.fullmatch(key) else None


def _document(body: bytes) -> dict[str, Any] | None:
    """A job file that is whole as it came."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "config" not in document else None
