"""What the leader does in one go: each a short transaction that proves the leadership first."""

from datetime import datetime, timedelta

import structlog

from st_controller.dispatch import leadership
from st_controller.dispatch.leadership import Leadership
from st_controller.dispatch.long_lived import LongLived
from st_controller.domain.scheduling.model import Decision, Placement, Preemption
from st_controller.domain.workers import Patience
from st_controller.services import (
    deadlines,
    faulty_slots,
    idempotency,
    leases,
    offers,
    worker_credentials,
    worker_orders,
    workers,
)
from st_controller.services.live_queue import LiveQueue, News
from st_controller.services.offers import Priced
from st_controller.services.policy import approvals
from st_controller.store.database import Database
from st_controller.store.moments import microseconds
from st_controller.store.transaction import Transaction

log = structlog.get_logger(__name__)

MOST = 64
"""Decisions that are made true in one transaction."""
PRUNE_SECONDS = 60.0
"""Between two looks for idempotency keys that are too old, where one look removes all of them."""
USAGE_SECONDS = 60.0
"""Between two records of what tenants have used."""
SET_BACK = timedelta(seconds=1)
"""By less a clock is corrected now and then, which nobody notices."""


class Rounds:
    """The leader's steps, synchronous; run them in a thread, one at a time."""

    def __init__(
        self,
        db: Database,
        patience: Patience,
        queue: LiveQueue | None = None,
        *,
        credential_age: timedelta = timedelta(days=30),
        absence: timedelta | None = None,
    ) -> None:
        """``absence``: whoever does nothing for so long was suspended; none: gaps mean nothing."""
        self._db = db
        self._patience = patience
        self._credential_age = credential_age
        self._absence = absence
        self._seen: datetime | None = None
        """When it was last at work; none: it has not begun."""
        self._queue = queue or LiveQueue()
        self._usage_saved: datetime | None = None
        self._pruned: datetime | None = None
        self._long_lived = LongLived()
        self.due: float | None = None
        """When time alone may change a decision, after the last round; none: only news can."""
        self.is_done = True
        """Whether the last round left nothing to be read."""

    def seek(
        self, holder: str, *, alone: bool, predecessor: str | None = None
    ) -> Leadership | None:
        """Take or renew the leadership."""
        with self._db.write() as tx:
            return leadership.seek(tx, holder, alone=alone, predecessor=predecessor)

    def begin(self, lead: Leadership, grace: timedelta) -> None:
        """Take over: forgive the time in which no controller listened, and read the queue."""
        with self._db.write() as tx:
            lead.prove(tx.session)
            self._forgive(tx, grace)
        with self._db.read() as session:
            self._queue.load(session, self._db.clock())
        self._queue.is_led = True
        self._long_lived.begin()

    @property
    def is_set_back(self) -> bool:
        """Whether the clock shows less than when this was last at work: begin again."""
        return self._seen is not None and self._db.clock() < self._seen - SET_BACK

    def _forgive(self, tx: Transaction, grace: timedelta) -> None:
        workers.forgive(tx)
        leases.extend_all(tx, tx.now + grace)
        leases.bound_all(tx, self._patience)
        self._seen = tx.now

    def resign(self) -> None:
        """Somebody else decides, or may; what is in memory is worth nothing now."""
        self._queue.forget()
        self._long_lived.end()

    def sweep(self, lead: Leadership) -> None:
        """End offers and leases that ran out; mark workers that fell silent; forget old keys.

        Who was suspended forgives the time in which it did not listen.
        """
        while self._is_any_due():
            with self._db.write() as tx:
                lead.prove(tx.session)
                if self._was_away(tx.now):
                    log.warning("nobody listened for long; silence is forgiven", since=self._seen)
                    self._forgive(tx, timedelta(seconds=self._patience.lease_ttl))
                    continue  # what else there is locks jobs, which come before their attempts
                self._seen = tx.now
                silent = workers.watch_silence(tx, self._patience)
                worker_orders.press_drains(tx)
                worker_credentials.rotate_old(tx, tx.now - self._credential_age)
                ended = leases.sweep(tx)
            if not silent and not ended:
                break  # others are changing what there is just now
        self._expire_approvals(lead)
        self._prune(lead)

    def _is_any_due(self) -> bool:
        now = self._db.clock()
        with self._db.read() as session:
            due = deadlines.any_passed(session, now, self._patience, self._credential_age)
        if not due:
            self._seen = now
        return due

    def _was_away(self, now: datetime) -> bool:
        seen, absence = self._seen, self._absence
        return seen is not None and absence is not None and now - seen >= absence

    def _expire_approvals(self, lead: Leadership) -> None:
        """Reject jobs for which nobody decided in time."""
        with self._db.read() as session:
            late = approvals.are_late(session, self._db.clock())
        while late:
            with self._db.write() as tx:
                lead.prove(tx.session)
                late = approvals.expire(tx) > 0

    def _prune(self, lead: Leadership) -> None:
        """Forget old keys, faults and workers, some at a time: a sweep must not take long."""
        now, pruned = self._db.clock(), self._pruned
        if pruned is not None and (now - pruned).total_seconds() < PRUNE_SECONDS:
            return
        with self._db.write() as tx:
            lead.prove(tx.session)
            removed = idempotency.prune(tx, tx.now - idempotency.KEPT)
            faulty_slots.prune(tx)
        with self._db.write() as tx:
            lead.prove(tx.session)
            worker_orders.retire_vanished(tx)
        self._pruned = now if removed < idempotency.MOST_PRUNED else None

    def place(self, lead: Leadership, news: News | None = None) -> int:
        """Take over what changed, and make true what the scheduler decides; how many offers."""
        if news is None:
            news = News(all_jobs=True, all_workers=True, rules=True)
        known = self._queue.scheduler
        with self._db.read() as session:
            self._queue.catch_up(session, news, self._db.clock())
        if known is not None and self._queue.scheduler is not known:
            self._long_lived.begin()  # everything was read anew
        made = 0
        while decisions := self._queue.decide(self._db.clock(), MOST):
            made += self._make_true(lead, decisions)
        self._save_usage(lead)
        if not self._queue.is_whole:
            with self._db.read() as session:
                self._queue.read_on(session, self._db.clock())
        self._long_lived.note(self._queue.length)
        # For the event loop, which must not wait for the lock of the queue.
        self.due, self.is_done = self._queue.next_moment(), self._queue.is_whole
        return made

    def _make_true(self, lead: Leadership, decisions: list[Decision]) -> int:
        placements = [found for found in decisions if isinstance(found, Placement)]
        yields = [found for found in decisions if isinstance(found, Preemption)]
        priced = [self._priced(found) for found in placements]
        try:
            # An offer means nothing until its worker claims it, which waits for the disk.
            with self._db.write(places_events=True, lazily=not yields) as tx:
                lead.prove(tx.session)
                if yields:
                    offers.lock(
                        tx, placements, [each for found in yields for each in found.victims]
                    )
                for decision in yields:
                    _preempt(tx, decision)
                offered = offers.offer(tx, priced, self._patience) if priced else []
        except BaseException:
            self.resign()  # what was decided did not happen
            raise
        if not self._was_away(tx.now):
            self._seen = tx.now
        made = {offer.job_id for offer in offered}
        for placement in placements:
            if placement.job_id not in made:
                self._queue.retract(placement.job_id, self._db.clock())
        for offer in offered:
            self._queue.note(offer.job_id, (offer.version, microseconds(tx.now)))
            log.info(
                "offered",
                attempt=offer.attempt_id,
                job=offer.job_id,
                worker=offer.worker_id,
                slots=offer.slots,
            )
        return len(offered)

    def _priced(self, found: Placement) -> Priced:
        return Priced(found, self._queue.price(found.grants), self._queue.rates(found.grants))

    def _save_usage(self, lead: Leadership) -> None:
        now, saved = self._db.clock(), self._usage_saved
        if saved is not None and (now - saved).total_seconds() < USAGE_SECONDS:
            return
        with self._db.write() as tx:
            lead.prove(tx.session)
            is_more = self._queue.count(tx)
        if is_more:
            return  # the next round goes on: none of them is to take long
        self._usage_saved = now
        self._long_lived.sweep()


def _preempt(tx: Transaction, decision: Preemption) -> None:
    for victim in decision.victims:
        offers.preempt(tx, victim, decision.job_id)
    log.info("preempting", job=decision.job_id, victims=decision.victims)
