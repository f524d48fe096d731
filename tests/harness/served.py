"""The real controller behind a real socket, in the event loop of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from st_controller.app import create_app
from st_controller.settings import Settings

PASSWORD = "correct horse battery"


class Served:
    """A controller that answers at ``url``, and an admin's client of it."""

    def __init__(self, app: Any, url: str, admin: httpx.AsyncClient) -> None:
        self.app, self.url, self.admin = app, url, admin
        self.platform = app.state.platform

    async def post(self, path: str, body: Any = None) -> Any:
        """What the admin gets for it."""
        return await self._send("POST", path, body)

    async def patch(self, path: str, body: Any) -> Any:
        return await self._send("PATCH", path, body)

    async def put(self, path: str, body: Any) -> Any:
        return await self._send("PUT", path, body)

    async def get(self, path: str) -> Any:
        return await self._send("GET", path, None)

    async def join_token(self, **request: Any) -> str:
        token: str = (await self.post("/v1/join-tokens", request))["token"]
        return token

    async def workers(self, *, retired: bool = False) -> list[dict[str, Any]]:
        page = await self.get(f"/v1/workers?retired={str(retired).lower()}")
        items: list[dict[str, Any]] = page["items"]
        return items

    async def job_in(self, job_id: str, *states: str, seconds: float = 120) -> dict[str, Any]:
        """The job, once it is in one of these states."""
        async with asyncio.timeout(seconds):
            while (job := await self.get(f"/v1/jobs/{job_id}"))["state"] not in states:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        found: dict[str, Any] = job
        return found

    async def _send(self, method: str, path: str, body: Any) -> Any:
        reply = await self.admin.request(method, path, json=body)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None


@asynccontextmanager
async def served(settings: Settings, *, wrap: Any = None) -> AsyncIterator[Served]:
    """Serve while the block runs; ``wrap`` may put an ASGI application around it."""
    app = create_app(settings)
    config = uvicorn.Config(
        wrap(app) if wrap else app,
        port=0,
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    async with app.router.lifespan_context(app):
        await server.startup()
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=60) as admin:
            body = {"token": app.state.setup_token, "username": "root", "password": PASSWORD}
            made = await admin.post("/v1/auth/setup", json=body)
            admin.headers["Authorization"] = f"Bearer {made.json()['key']}"
            try:
                yield Served(app, url, admin)
            finally:
                server.force_exit = True
                await server.shutdown()
                for _ in range(5):
                    for connection in list(server.server_state.connections):
                        connection.transport.abort()
                    await asyncio.sleep(0)
