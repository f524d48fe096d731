"""What the leader does in one go: each a short transaction that proves the leadership first."""

from datetime import timedelta

import structlog

from st_controller.dispatch import leadership
from st_controller.dispatch.leadership import Leadership
from st_controller.domain.scheduling.fifo import FifoScheduler
from st_controller.domain.scheduling.state import ClusterState, Placement, Scheduler
from st_controller.domain.workers import Patience
from st_controller.services import leases, offers, workers
from st_controller.store.database import Database

log = structlog.get_logger(__name__)

PAGE = 500
"""Queued jobs that are looked at together."""


class Rounds:
    """The leader's steps, synchronous; run them in a thread."""

    def __init__(
        self, db: Database, patience: Patience, scheduler: Scheduler | None = None
    ) -> None:
        self._db = db
        self._patience = patience
        self._scheduler = scheduler or FifoScheduler()

    def seek(self, holder: str, *, alone: bool) -> Leadership | None:
        """Take or renew the leadership."""
        with self._db.write() as tx:
            return leadership.seek(tx, holder, alone=alone)

    def forgive(self, lead: Leadership, grace: timedelta) -> None:
        """Extend all leases after a time in which no controller listened."""
        with self._db.write() as tx:
            lead.prove(tx.session)
            workers.forgive(tx)
            leases.extend_all(tx, tx.now + grace)

    def sweep(self, lead: Leadership) -> None:
        """End offers and leases that ran out; mark workers that fell silent."""
        ended = 1
        while ended:
            with self._db.write() as tx:
                lead.prove(tx.session)
                workers.watch_silence(tx, self._patience)
                ended = leases.sweep(tx)

    def place(self, lead: Leadership) -> int:
        """Offer as many queued jobs as fit; how many."""
        made, skipped = 0, 0
        while True:
            placements, looked_at = self._decide(skipped)
            made += sum(self._offer(lead, placement) for placement in placements)
            skipped += looked_at - len(placements)
            if looked_at < PAGE:
                return made

    def _decide(self, offset: int) -> tuple[list[Placement], int]:
        with self._db.read() as session:
            fleet = offers.fleet(session)
            if not any(worker.free for worker in fleet):
                return [], 0
            pending = offers.pending_jobs(session, PAGE, offset)
        state = ClusterState(pending, fleet)
        return self._scheduler.decide(state, self._db.clock()), len(pending)

    def _offer(self, lead: Leadership, placement: Placement) -> bool:
        with self._db.write() as tx:
            lead.prove(tx.session)
            attempt = offers.offer(tx, placement, self._patience)
        if attempt:
            log.info(
                "offered",
                job=attempt.job_id,
                attempt=attempt.id,
                worker=attempt.worker_id,
                slots=attempt.slots,
            )
        return attempt is not None
