"""Orders to stop an attempt, wherever they come from; the strongest one stands."""

import asyncio

import structlog

from st_worker.record import KeptRecord, StopCause

log = structlog.get_logger(__name__)

_STRENGTH: dict[StopCause | None, int] = {
    None: 0,
    "shutdown": 1,
    "preempt": 2,
    "time_limit": 3,
    "cancel": 4,
    "stale": 5,
}


class Orders:
    """What stands against an attempt; kept in its record, so that a restart forgets nothing."""

    def __init__(self, record: KeptRecord) -> None:
        self._record = record
        self._changed = asyncio.Event()
        self._is_open = True

    @property
    def cause(self) -> StopCause | None:
        """The strongest order so far."""
        return self._record().stop

    def give(self, cause: StopCause) -> None:
        """Stop, unless an order at least as strong stands already."""
        if self._is_open and _STRENGTH[cause] > _STRENGTH[self.cause]:
            self._record.change(stop=cause)
            log.info("attempt.stop", attempt=self._record().claim.attempt_id, cause=cause)
            self._changed.set()
            self._changed = asyncio.Event()

    def close(self) -> None:
        """Take no more orders: the attempt is over and its record goes."""
        self._is_open = False

    async def wait(self, *causes: StopCause) -> None:
        """Return once one of ``causes`` stands, or any at all when none is named."""
        while not (self.cause in causes or (not causes and self.cause)):
            await self._changed.wait()

    async def pause(self, seconds: float) -> None:
        """Wait ``seconds``, or until a stronger order comes."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
