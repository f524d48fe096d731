"""One log line and one measurement a request, and the last net under everything that fails."""

import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_controller.api.problems import internal_error
from st_controller.telemetry import Telemetry
from st_shared.ids import new_id
from st_shared.protocol import endpoints

log = structlog.get_logger(__name__)

_QUIET = frozenset({"/healthz", "/readyz", "/metrics", endpoints.HEARTBEAT.url()})
"""Where success is no news: thousands of such lines a second would bury what is."""
_FINE = frozenset({200, 204})


class RequestLog:
    """ASGI middleware around all that can fail: names each request, logs and times its answer.

    Passes every message on at once, so that event streams are not held back.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, with ``X-Request-ID``; 500 when nobody else could."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, new_id("req"))
        bound = structlog.contextvars.bind_contextvars(request=answer.request_id)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if answer.status:
                raise  # the answer has begun: only breaking off tells that it is not whole
            await internal_error(answer.request_id)(scope, receive, answer.send)
        finally:
            self._note(scope, answer)
            structlog.contextvars.reset_contextvars(**bound)

    def _note(self, scope: Scope, answer: "_Answer") -> None:
        seconds = time.monotonic() - answer.began
        route = getattr(scope.get("route"), "path", "none")
        if not answer.is_stream:
            self._telemetry.note_request(route, scope["method"], answer.status or 499, seconds)
        is_news = scope["path"] not in _QUIET or answer.status not in _FINE
        write = log.info if is_news else log.debug
        write(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=answer.status or 499,
            ms=round(seconds * 1000, 1),
            client=(scope.get("client") or ("",))[0],
        )


class _Answer:
    """What is sent back, as it passes by."""

    __slots__ = ("_send", "began", "is_stream", "request_id", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id = send, request_id
        self.status: int | None = None
        self.is_stream = False
        self.began = time.monotonic()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: list[Any] = [*message.get("headers", ())]
            self.is_stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in headers
            )
            message["headers"] = [*headers, (b"x-request-id", self.request_id.encode())]
        await self._send(message)
