"""The journal at the controller: each line stored once and in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import insert

from st_controller.errors import InvalidRequest, SequenceGap
from st_controller.services import gangs, topics
from st_controller.services.journal_lines import checked, pack
from st_controller.store import direct
from st_controller.store.bulk import insert_all
from st_controller.store.schema import Attempt, Job, JournalChunk
from st_controller.store.transaction import Transaction
from st_shared.protocol.journal import JournalEvent, ProgressEvent
from st_shared.protocol.resources import ProgressView

_CHUNK = insert(JournalChunk)


@dataclass(frozen=True)
class Batch:
    """Consecutive lines as the contract has them, packed before any row is locked."""

    events: Sequence[JournalEvent]
    packed: bytes

    @classmethod
    def of(cls, lines: Sequence[dict[str, Any]]) -> Self:
        """Check and pack lines as a worker sent them; those that break the contract are kept too.

        Raises:
            InvalidRequest: the lines do not follow each other.
        """
        _must_follow([line.get("seq") for line in lines])
        return cls._packed(checked(lines))

    def after(self, acked: int) -> Self:
        """What is not stored yet.

        Raises:
            SequenceGap: lines are missing between ``acked`` and the first of these.
        """
        if not self.events or self.events[0].seq == acked + 1:
            return self
        if self.events[0].seq > acked:
            raise SequenceGap(f"line {acked + 1} has not arrived yet", acked_seq=acked)
        return self._packed([event for event in self.events if event.seq > acked])

    def renumbered(self, events: Sequence[JournalEvent]) -> Self:
        """The same lines with other numbers."""
        return self._packed(events)

    @classmethod
    def _packed(cls, events: Sequence[JournalEvent]) -> Self:
        return cls(events, pack([event.model_dump_json().encode() for event in events]))


def append(tx: Transaction, attempt: Attempt, job: Job, batch: Batch) -> None:
    """Store the lines that are not stored yet.

    Raises:
        SequenceGap: lines are missing before the first that was sent.
    """
    fresh = batch.after(attempt.acked_seq)
    if not fresh.events:
        return
    last = fresh.events[-1].seq
    journal_of = attempt.id
    if attempt.nodes > 1:
        journal_of, numbered = gangs.as_one(tx, attempt, fresh.events)
        stored = fresh.renumbered(numbered)
    else:
        stored = fresh
    insert_all(tx.session.connection(), _CHUNK, [_row(journal_of, stored)])
    direct.write(tx.session, attempt, {"acked_seq": last})
    _project(job, attempt, fresh.events)
    tx.wake(topics.job(job.id))


def must_be_whole(attempt: Attempt, last_seq: int) -> None:
    """Refuse to end an attempt whose journal has not arrived in full."""
    if attempt.acked_seq != last_seq:
        raise SequenceGap(
            f"the journal has {last_seq} lines, {attempt.acked_seq} have arrived",
            acked_seq=attempt.acked_seq,
        )


def _must_follow(numbers: Sequence[Any]) -> None:
    if not all(isinstance(number, int) and number >= 1 for number in numbers):
        raise InvalidRequest.of("events", "every journal line needs a 'seq' of at least 1")
    if numbers and list(numbers) != list(range(numbers[0], numbers[0] + len(numbers))):
        raise InvalidRequest.of("events", "journal lines must be sent in order, without gaps")


def _row(attempt_id: str, batch: Batch) -> dict[str, Any]:
    events = batch.events
    moments = [event.at for event in events]
    return {
        "attempt_id": attempt_id,
        "first_seq": events[0].seq,
        "last_seq": events[-1].seq,
        "logs": sum(event.kind == "log" for event in events),
        "metrics": sum(event.kind == "metric" for event in events),
        "first_at": min(moments),
        "last_at": max(moments),
        "body": batch.packed,
    }


def _project(job: Job, attempt: Attempt, events: Sequence[JournalEvent]) -> None:
    """Show the newest progress on the job itself."""
    if attempt.number != job.attempts or attempt.node:
        return
    for event in reversed(events):
        if isinstance(event, ProgressEvent):
            view = ProgressView.model_validate(event.model_dump(exclude={"kind", "seq", "at"}))
            job.progress = view.model_dump()
            return
