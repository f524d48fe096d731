"""Refuses request bodies that are too large, before they fill the memory."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_controller.api.problems import problem_response
from st_shared.objectstore.signature import OBJECTS_PATH
from st_shared.protocol.problems import Problem


class BodyLimit:
    """ASGI middleware that lets ``max_bytes`` pass; uploads are bounded by their signature."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 at once where the length is announced, else when too much has come."""
        if scope["type"] != "http" or scope["path"].startswith(OBJECTS_PATH):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await self._refusal(scope, receive, send)
            return
        await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._max_bytes:
                raise HTTPException(413, self._detail())
            return message

        return counted

    async def _refusal(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = Problem(
            title="The body is too large", status=413, detail=self._detail(), code="body_too_large"
        )
        await problem_response(problem, {"Connection": "close"})(scope, receive, send)

    def _detail(self) -> str:
        return f"a body may have {self._max_bytes} bytes at most"
