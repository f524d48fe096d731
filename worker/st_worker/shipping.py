"""Journal lines and the attempt's state to the controller, exactly once as it counts them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from st_shared.protocol.states import AttemptState
from st_shared.protocol.worker import EventAck, EventBatch, Lease, StopReason
from st_worker.client import Controller
from st_worker.errors import FULL_DISK, SequenceGap
from st_worker.folder import AttemptFolder
from st_worker.journal import BATCH_BYTES, BATCH_LINES, Cursor, Journal, Line, events

log = structlog.get_logger(__name__)


class Shipping:
    """Sends what was appended, in batches; the place on disk moves after an acknowledgement."""

    def __init__(
        self,
        controller: Controller,
        lease: Lease,
        folder: AttemptFolder,
        journal: Journal,
        *,
        start: int,
        poll_seconds: float,
        on_stop: Callable[[StopReason], None],
        on_moved: Callable[[], None] = lambda: None,
        linger_seconds: float = 0.0,
    ) -> None:
        """``on_moved`` is called after each acknowledgement.

        Lines go at once after a pause; while more and more come, ``linger_seconds`` pass between
        two batches that are not full.
        """
        self._controller, self._lease, self._journal = controller, lease, journal
        self._path, self._poll_seconds, self._on_stop = folder.shipped, poll_seconds, on_stop
        self._on_moved, self._linger_seconds = on_moved, linger_seconds
        self._place = Cursor.load(self._path, start=start)
        self._state: AttemptState | None = None
        self._told: AttemptState | None = None
        self._used: float | None = None
        self._is_sealed = False
        self._woken, self._moved = asyncio.Event(), asyncio.Event()

    @property
    def acked_seq(self) -> int:
        """The last line that the controller holds."""
        return self._place.seq

    @property
    def offset(self) -> int:
        """The byte of the journal after it."""
        return self._place.offset

    def tell(self, state: AttemptState, used_seconds: float | None = None) -> None:
        """Send this state with the next batch, and for how long slots were used that are free."""
        self._state, self._used = state, used_seconds
        self._woken.set()

    async def acknowledged(self, seq: int) -> None:
        """Return once the controller holds line ``seq``."""
        while self.acked_seq < seq:
            await self._moved.wait()

    def seal(self) -> None:
        """Nothing more will be appended: end once all is acknowledged."""
        self._is_sealed = True
        self._woken.set()

    async def run(self) -> None:
        """Ship until the journal is sealed and acknowledged.

        Raises:
            StaleLease: the lease is void.
            JournalLost: the controller needs lines that are not on this disk.
        """
        while True:
            self._woken.clear()
            was_sealed = self._is_sealed  # asked first: what came before the seal is read
            lines = self._journal.read(self._place)
            if lines or self._state != self._told:
                begun = self._place.offset
                await self._ship(lines)
                if not (self._is_sealed or _is_full(lines, begun)):
                    await self._pause(self._linger_seconds)
            elif was_sealed:
                return
            else:
                await self._pause(self._poll_seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait until it is time to look at the journal again, or until something was said."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def rewind(self, seq: int) -> None:
        """Go on after line ``seq``, wherever this end believed to be."""
        self._move(await asyncio.to_thread(self._journal.locate, seq))

    async def _ship(self, lines: list[Line]) -> None:
        state = self._state
        batch = EventBatch.model_validate(
            {
                "epoch": self._lease.epoch,
                "state": state,
                "used_seconds": self._used,
                "events": list(events(lines)),
            }
        )
        try:
            ack = await self._controller.send_events(self._lease.attempt_id, batch)
        except SequenceGap as gap:
            log.warning("journal.gap", held=gap.acked_seq, sent_after=self._place.seq)
            await self.rewind(gap.acked_seq)
            return
        self._told = state
        await self._acknowledged(ack, lines)

    async def _acknowledged(self, ack: EventAck, lines: list[Line]) -> None:
        last = lines[-1].after if lines else self._place
        if ack.acked_seq == last.seq:
            if lines:
                self._move(last)
        else:
            await self.rewind(ack.acked_seq)
        if ack.stop:
            self._on_stop(ack.stop)

    def _move(self, place: Cursor) -> None:
        try:
            place.save(self._path)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            # An agent that dies now sends again what the controller has, and drops.
            log.warning("journal.place_not_kept", why=str(error))
        self._place = place
        self._moved.set()
        self._moved = asyncio.Event()
        self._on_moved()


def _is_full(lines: list[Line], begun: int) -> bool:
    """Whether more lines probably wait already."""
    size = lines[-1].after.offset - begun if lines else 0
    return len(lines) == BATCH_LINES or size >= BATCH_BYTES // 2
