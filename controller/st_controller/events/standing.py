"""Whether workers that hold a stream may still hold it: one look for all of them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from st_controller.events.hub import Hub
from st_controller.services import topics
from st_controller.services.identity import hashes_in_force
from st_controller.store.database import Database, DatabaseError
from st_controller.store.transaction import CREDENTIALS

log = structlog.get_logger(__name__)

RECHECK_SECONDS = 10.0
"""The longest that a stream outlives its credential where the news of its end did not arrive."""


@dataclass(eq=False)
class Ticket:
    """One open stream of a worker."""

    worker_id: str
    digest: str
    """Hash of the credential that opened it."""
    is_void: bool = False
    """The credential has ended, and the stream has to."""


class Standing:
    """Knows the open streams of workers, and ends those whose credential has ended."""

    def __init__(self, db: Database, hub: Hub) -> None:
        self._db, self._hub = db, hub
        self._tickets: dict[str, set[Ticket]] = {}

    @contextmanager
    def watch(self, worker_id: str, digest: str) -> Iterator[Ticket]:
        """A ticket for as long as the block lasts; from the event loop's thread."""
        ticket = Ticket(worker_id, digest)
        self._tickets.setdefault(worker_id, set()).add(ticket)
        try:
            yield ticket
        finally:
            self._tickets[worker_id].discard(ticket)
            if not self._tickets[worker_id]:
                del self._tickets[worker_id]

    async def run(self) -> None:
        """Work until cancelled: at once when any credential ends, and now and then."""
        with self._hub.follow(CREDENTIALS) as bell:
            while True:
                try:
                    await self._look()
                except DatabaseError as error:
                    log.warning("credentials cannot be looked up", error=type(error).__name__)
                await bell.heard(RECHECK_SECONDS)

    async def _look(self) -> None:
        watched = list(self._tickets)
        if not watched:
            return
        in_force = await asyncio.to_thread(self._in_force, watched)
        asked = set(watched)
        ended = [
            ticket
            for worker_id, tickets in self._tickets.items()
            for ticket in tickets
            if worker_id in asked and ticket.digest not in in_force
        ]
        for ticket in ended:
            ticket.is_void = True
        self._hub.ring_here(frozenset(topics.worker(ticket.worker_id) for ticket in ended))

    def _in_force(self, worker_ids: list[str]) -> set[str]:
        with self._db.read() as session:
            return hashes_in_force(session, worker_ids)
