"""Headers by which browsers protect the people who use this."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}
"""Defaults; a route that sets one of them itself keeps its own."""

_STRICT_TRANSPORT = "max-age=31536000"


class SecurityHeaders:
    """ASGI middleware that adds what is missing; ``tls``: people reach us by https only."""

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        self._app = app
        headers = {**_HEADERS}
        if tls:
            headers["Strict-Transport-Security"] = _STRICT_TRANSPORT
        self._headers = {
            name.lower().encode("latin-1"): value.encode("latin-1")
            for name, value in headers.items()
        }
        self._all = list(self._headers.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add headers at the start of the response; the body passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._completed(list(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, with_headers)

    def _completed(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        own = self._headers.keys() & {name.lower() for name, _ in given}
        if not own:
            return given + self._all
        return given + [header for header in self._all if header[0] not in own]
