"""Workers that talk to the real services: they crash, fall silent, lie and come back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from controller_steps import registration

from st_controller.domain.workers import Patience
from st_controller.errors import StaleLease
from st_controller.services import finishing, leases, workers
from st_controller.store.database import Database
from st_shared.protocol.states import AttemptState, FailureKind, Outcome
from st_shared.protocol.worker import Failure, FinishRequest, Heartbeat, Lease

Answer = TypeVar("Answer")
Call = Callable[[Callable[[], Answer]], Answer | None]
"""Has a controller do something; none: it died, and nobody knows whether it is done."""

ENDS = (Outcome.SUCCEEDED,) * 6 + (Outcome.FAILED,)


@dataclass
class Holding:
    """A lease as the worker knows it."""

    epoch: int
    stop: str | None = None
    """The order that stands against it."""


@dataclass
class Machine:
    """One worker. What it holds survives everything but its own crash."""

    id: str
    db: Database
    patience: Patience
    random: Random
    counts: dict[str, int]
    slots: int = 2
    is_up: bool = True
    is_silent: bool = False
    holding: dict[str, Holding] = field(default_factory=dict)

    def beat(self, call: Call) -> None:
        """Say that it is alive, renew leases, and take orders."""
        held = [Lease(attempt_id=each, epoch=had.epoch) for each, had in self.holding.items()]

        def tell():
            with self.db.write() as tx:
                worker = workers.get_worker(tx.session, self.id, lock=True)
                return workers.heartbeat(tx, worker, Heartbeat(holding=held), self.patience)

        reply = call(tell)
        for order in reply.stops if reply else ():
            if order.reason == "stale":
                del self.holding[order.attempt_id]
            else:
                self.holding[order.attempt_id].stop = order.reason

    def claim_offers(self, call: Call) -> None:
        """Take what is offered, as after a reconnect of the stream."""

        def offers():
            with self.db.read() as session:
                return workers.sync(session, workers.get_worker(session, self.id)).offers

        for offer in offers():

            def claim(attempt_id=offer.attempt_id):
                with self.db.write() as tx:
                    return leases.claim(tx, self.id, attempt_id, self.patience)[0].epoch

            try:
                epoch = call(claim)
            except StaleLease:
                continue
            if epoch is not None:  # otherwise the answer was lost: it asks again
                self.holding[offer.attempt_id] = Holding(epoch)

    def run(self, call: Call, attempt_id: str) -> None:
        """Report that an attempt runs."""

        def tell():
            with self.db.write() as tx:
                held = leases.held(tx, self.id, attempt_id, self.holding[attempt_id].epoch)
                leases.advance(tx, *held, AttemptState.RUNNING)

        try:
            call(tell)
        except StaleLease:
            del self.holding[attempt_id]

    def finish(self, call: Call, attempt_id: str) -> None:
        """Report an end until it is answered; whoever has lost the lease learns so."""
        had = self.holding[attempt_id]
        outcome = self.random.choice(ENDS)
        if had.stop:
            outcome = Outcome.PREEMPTED if had.stop == "preempt" else Outcome.CANCELLED
        failure = None
        if outcome is Outcome.FAILED:
            failure = Failure(kind=FailureKind.CRASHED, message="it broke")
        request = FinishRequest(epoch=had.epoch, outcome=outcome, failure=failure, last_seq=0)

        def tell():
            with self.db.write() as tx:
                finishing.finish(tx, self.id, attempt_id, request)
            return True

        try:
            while not call(tell):
                pass
            self.counts[f"attempts {outcome}"] += 1
        except StaleLease:
            self.counts["late reports refused"] += 1
        del self.holding[attempt_id]

    def lie(self, other: "Machine") -> None:
        """End what another worker holds, and claim what was never offered to it.

        Raises:
            AssertionError: it was believed.
        """
        for attempt_id, had in other.holding.items():
            request = FinishRequest(epoch=had.epoch, outcome=Outcome.SUCCEEDED, last_seq=0)
            self._must_be_refused(finishing.finish, attempt_id, request)
            self._must_be_refused(leases.claim, attempt_id, self.patience)

    def _must_be_refused(self, call: Callable, attempt_id: str, told: object) -> None:
        try:
            with self.db.write() as tx:
                call(tx, self.id, attempt_id, told)
        except StaleLease:
            self.counts["lies refused"] += 1
        else:
            raise AssertionError(f"{self.id} was believed")

    def come_back(self, call: Call) -> None:
        """Register again with what it still holds; what is stale by now is given up."""
        held = [Lease(attempt_id=each, epoch=had.epoch) for each, had in self.holding.items()]

        def tell():
            with self.db.write() as tx:
                worker = workers.get_worker(tx.session, self.id, lock=True)
                request = registration(worker.name, slots=self.slots, holding=held)
                return workers.register(tx, worker, request, self.patience)

        abandoned = call(tell)
        if abandoned is not None:
            self.is_up, self.is_silent = True, False
            for attempt_id in abandoned:
                self.holding.pop(attempt_id, None)
