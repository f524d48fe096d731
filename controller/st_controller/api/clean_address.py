"""Refuses addresses that hold a NUL character: no name, id or cursor of ours does."""

from starlette.types import ASGIApp, Receive, Scope, Send

from st_controller.api.problems import problem_response
from st_controller.errors import InvalidRequest


class CleanAddress:
    """ASGI middleware; PostgreSQL takes no NUL in a text, and what it refuses would be a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 422 to a path or query with ``%00``; anything else passes."""
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            field = "path" if "\0" in scope["path"] else "query"
            refusal = InvalidRequest.of(field, "the address holds a NUL character (%00)")
            await problem_response(refusal.problem())(scope, receive, send)
            return
        await self._app(scope, receive, send)
