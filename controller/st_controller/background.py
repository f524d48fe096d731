"""Keeps the services of a process running beside its requests."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

_BACKOFF = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_HEALTHY_SECONDS = 60.0
_PATIENCE_SECONDS = 0.5


class Background:
    """Tasks that run until the process ends, and again when they fail."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run ``run`` from now on."""
        self._tasks.append(asyncio.create_task(_keep(name, run), name=name))

    async def stop(self) -> None:
        """Cancel all and wait until they have ended."""
        pending = set(self._tasks)
        while pending:
            for task in pending:
                task.cancel()
            # A library may swallow a cancellation, so it is said again until it is heard.
            _, pending = await asyncio.wait(pending, timeout=_PATIENCE_SECONDS)


async def _keep(name: str, run: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await run()
            log.error("a service ended by itself", service=name)
        except Exception:  # the outermost loop: whatever it was, the service must go on
            log.exception("a service failed", service=name)
        failures = 0 if loop.time() - began > _HEALTHY_SECONDS else failures + 1
        await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
