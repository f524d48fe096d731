"""The event stream from the controller: held open, resumed where it broke."""

import asyncio
from collections.abc import Callable

import structlog

from st_shared.protocol.sse import EventReader, ServerSentEvent
from st_worker.client import Controller
from st_worker.errors import RequestRefused, TemporaryTrouble
from st_worker.settings import AgentSettings

log = structlog.get_logger(__name__)


class Stream:
    """Hands every event to ``take``, once and in order, across broken connections."""

    def __init__(
        self,
        controller: Controller,
        settings: AgentSettings,
        take: Callable[[ServerSentEvent], None],
    ) -> None:
        self._controller, self._settings, self._take = controller, settings, take
        self._last_id: str | None = None
        self._is_live = False
        self._heard_at = asyncio.get_running_loop().time()

    def is_deaf(self, patience: float) -> bool:
        """Whether nothing has come for ``patience`` seconds and no open connection brings anything.

        So it is behind a proxy that keeps what it should pass on; heartbeats have to do then.
        """
        silence = asyncio.get_running_loop().time() - self._heard_at
        return not self._is_live and silence > patience

    async def run(self) -> None:
        """Follow the stream until cancelled; ``Refused`` when the credential is void.

        Pauses between two connections grow until one has lasted for a while: what cuts every one at
        once is not to be asked ten times a second.
        """
        now = asyncio.get_running_loop().time
        while True:
            for pause in self._settings.pauses():
                begun = now()
                await self._follow_reporting()
                has_lasted = now() - begun >= self._settings.steady_stream_seconds
                await asyncio.sleep(pause)
                if has_lasted:
                    break

    async def _follow_reporting(self) -> None:
        try:
            await self._follow()
            log.info("stream.ended")
        except TemporaryTrouble as trouble:
            log.warning("stream.broken", why=str(trouble))
        except RequestRefused as error:
            log.warning("stream.refused", why=str(error))
            self._last_id = None  # begin anew, with all that counts

    async def _follow(self) -> None:
        """One connection; the id counts only once its event is whole and was taken."""
        reader = EventReader()
        async with self._controller.stream(self._last_id) as lines:
            log.info("stream.open", after=self._last_id)
            try:
                async for line in lines:
                    self._is_live = True
                    event = reader.feed(line)
                    if event is not None:
                        self._take(event)
                        self._last_id = event.id or self._last_id
            finally:
                if self._is_live:
                    self._heard_at = asyncio.get_running_loop().time()
                self._is_live = False
