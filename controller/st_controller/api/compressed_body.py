"""Bodies that workers send compressed: opened before anybody reads them, within a bound."""

import zlib

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_controller.api.problems import problem_response
from st_shared.protocol.problems import Problem

MOST_OPEN = "st_controller.most_open"
"""Where the scope of a call may have a closer bound of its own."""
_PATHS = "/v1/worker/"
_GZIP = 16 + zlib.MAX_WBITS


class CompressedBody:
    """ASGI middleware for ``Content-Encoding: gzip`` on the calls of workers.

    A body that would have more than ``max_bytes`` is refused with 413 before it is open, one that
    is damaged with 400, and another coding with 415. The compressed bytes are bounded elsewhere.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what the body means."""
        if scope["type"] != "http" or not scope["path"].startswith(_PATHS):
            await self._app(scope, receive, send)
            return
        coding = Headers(scope=scope).get("content-encoding", "identity").lower()
        if coding == "identity":
            await self._app(scope, receive, send)
        elif coding == "gzip":
            await self._open(scope, receive, send)
        else:
            said = f"a body may be compressed with gzip, not with {coding[:40]}"
            problem = _problem(415, "coding_unknown", "The body is in another coding", said)
            headers = {"Accept-Encoding": "gzip", "Connection": "close"}
            await problem_response(problem, headers)(scope, receive, send)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            packed = await Request(scope, receive).body()
        except ClientDisconnect:
            return  # nobody is there to be answered
        most = min(self._max_bytes, scope.get(MOST_OPEN, self._max_bytes))
        opened = await run_in_threadpool(opened_gzip, packed, most)
        if isinstance(opened, Problem):
            await problem_response(opened)(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        del headers["content-encoding"]
        headers["content-length"] = str(len(opened))
        await self._app({**scope, "headers": headers.raw}, replayed(opened, receive), send)


def opened_gzip(packed: bytes, max_bytes: int) -> bytes | Problem:
    """The bytes that ``packed`` stands for, ``max_bytes`` at most, or why there are none."""
    opening = zlib.decompressobj(_GZIP)
    try:
        opened = opening.decompress(packed, max_bytes + 1)
    except zlib.error:
        return _problem(400, "bad_coding", "The body is damaged", "the body is not valid gzip")
    if len(opened) > max_bytes:
        said = f"a body may have {max_bytes} bytes at most once it is open"
        return _problem(413, "body_too_large", "The body is too large", said)
    if not opening.eof or opening.unused_data:
        said = "the gzip body ends too early, or goes on after its end"
        return _problem(400, "bad_coding", "The body is damaged", said)
    return opened


def _problem(status: int, code: str, title: str, detail: str) -> Problem:
    return Problem(title=title, status=status, detail=detail, code=code)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, and then what comes after it."""
    is_given = False

    async def replayed() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
