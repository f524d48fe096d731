"""Journal batches that come at the same time, stored in one transaction."""

from collections.abc import Sequence
from typing import NamedTuple

from st_controller.errors import Refusal
from st_controller.services import journal, leases
from st_controller.services.combining import Combining
from st_controller.services.journal import Batch
from st_controller.store.database import Database
from st_controller.store.transaction import Transaction
from st_shared.protocol.worker import EventAck, EventBatch


class Shipment(NamedTuple):
    """What one worker sent of one attempt."""

    worker_id: str
    attempt_id: str
    sent: EventBatch


class JointJournal:
    """Takes journal lines in; those of many workers cost one commit, and a mistake only its own.

    Lines are checked and packed before the transaction begins, so that nobody waits for that.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        # Whatever goes wrong with one, the others are stored; what was stored is not stored again.
        self._combining = Combining(self._together, self._alone, (Exception,))

    async def take(self, worker_id: str, attempt_id: str, sent: EventBatch) -> EventAck:
        """Store lines and the reported state; answers once both are durable.

        Raises:
            StaleLease: the lease is not in force.
            SequenceGap: lines before these are missing.
            InvalidRequest: the lines do not follow each other.
            Conflict: the attempt cannot be in that state.
        """
        return await self._combining.do(Shipment(worker_id, attempt_id, sent))

    def _alone(self, shipment: Shipment) -> EventAck:
        (answer,) = self._together([shipment])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _together(self, shipments: Sequence[Shipment]) -> list[EventAck | BaseException]:
        packed = [_packed(shipment) for shipment in shipments]
        with self._db.write() as tx:
            return _store(tx, shipments, packed)


def _packed(shipment: Shipment) -> Batch | Refusal:
    try:
        return Batch.of(shipment.sent.events)
    except Refusal as error:
        return error


def _store(
    tx: Transaction, shipments: Sequence[Shipment], packed: Sequence[Batch | Refusal]
) -> list[EventAck | BaseException]:
    found = leases.load_all(tx.session, {shipment.attempt_id for shipment in shipments})
    answers: list[EventAck | BaseException] = []
    for shipment, batch in zip(shipments, packed, strict=True):
        if isinstance(batch, Refusal):
            answers.append(batch)
            continue
        try:
            answers.append(_stored(tx, found.get(shipment.attempt_id), shipment, batch))
        except Refusal as error:  # raised before anything is written
            answers.append(error)
    return answers


def _stored(
    tx: Transaction, found: leases.Found | None, shipment: Shipment, batch: Batch
) -> EventAck:
    sent = shipment.sent
    attempt, job = leases.in_force(*(found or (None, None)), shipment.worker_id, sent.epoch)
    fresh = batch.after(attempt.acked_seq)
    if sent.state is not None:
        leases.advance(tx, attempt, job, sent.state, sent.used_seconds)
    journal.append(tx, attempt, job, fresh)
    return EventAck.model_validate({"acked_seq": attempt.acked_seq, "stop": attempt.stop})
