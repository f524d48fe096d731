"""The journal at the controller: each line stored once, in order, and read back."""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from st_controller.errors import InvalidRequest, SequenceGap
from st_controller.services import topics
from st_controller.store.schema import Attempt, Job, JournalChunk
from st_controller.store.transaction import Transaction
from st_shared.protocol.journal import (
    MAX_LINE_BYTES,
    JournalEvent,
    LogEvent,
    MetricEvent,
    ProgressEvent,
    journal_event,
)
from st_shared.protocol.message import Moment
from st_shared.protocol.resources import ProgressView

_SHOWN_BYTES = 2000
_DEFAULTS_BYTES = 512
"""What the fields add that the trainer left at their defaults."""
_moment: TypeAdapter[datetime] = TypeAdapter(Moment)


@dataclass(frozen=True)
class JournalLine:
    """A stored line with its place."""

    attempt: int
    seq: int
    body: dict[str, Any]

    @property
    def at(self) -> datetime:
        """When it was written, by the clock of the worker."""
        return _moment.validate_python(self.body["at"])


def append(tx: Transaction, attempt: Attempt, job: Job, lines: Sequence[dict[str, Any]]) -> None:
    """Store the lines that are not stored yet.

    Raises:
        SequenceGap: lines are missing before the first that was sent.
        InvalidRequest: the lines do not follow each other.
    """
    fresh = _fresh(attempt.acked_seq, lines)
    if not fresh:
        return
    checked = [_checked(line) for line in fresh]
    _store(tx, attempt.id, checked)
    attempt.acked_seq = checked[-1]["seq"]
    _project(job, attempt, checked)
    tx.wake(topics.job(job.id))


def must_be_whole(attempt: Attempt, last_seq: int) -> None:
    """Refuse to end an attempt whose journal has not arrived in full."""
    if attempt.acked_seq != last_seq:
        raise SequenceGap(
            f"the journal has {last_seq} lines, {attempt.acked_seq} have arrived",
            acked_seq=attempt.acked_seq,
        )


def _fresh(acked: int, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    numbers = [line.get("seq") for line in lines]
    if not all(isinstance(number, int) and number >= 1 for number in numbers):
        raise InvalidRequest("every journal line needs a 'seq' of at least 1")
    if lines and numbers != list(range(lines[0]["seq"], lines[0]["seq"] + len(lines))):
        raise InvalidRequest("journal lines must be sent in order, without gaps")
    fresh = [line for line in lines if line["seq"] > acked]
    if fresh and fresh[0]["seq"] != acked + 1:
        raise SequenceGap(f"line {acked + 1} has not arrived yet", acked_seq=acked)
    return fresh


def _checked(line: dict[str, Any]) -> dict[str, Any]:
    """The line as the contract has it; one that breaks it is kept as an error for people."""
    try:
        event = journal_event.validate_python(line)
    except ValidationError as error:
        return _kept_as_error(line, f"{error.error_count()} mistakes")
    checked = event.model_dump(mode="json")
    flaw = _flaw(event) or _wire_flaw(checked)
    return _kept_as_error(line, flaw) if flaw else checked


def _flaw(event: JournalEvent) -> str | None:
    """What readers could not be told: JSON has no such numbers, and moments need a zone."""
    if event.at.tzinfo is None:
        return "'at' has no time zone"
    numbers: Iterable[float | None] = ()
    if isinstance(event, MetricEvent):
        numbers = event.values.values()
    elif isinstance(event, ProgressEvent):
        numbers = (event.steps_per_second, event.eta_seconds, event.loss)
    finite = all(number is None or isfinite(number) for number in numbers)
    return None if finite else "a number is not finite"


def _wire_flaw(line: dict[str, Any]) -> str | None:
    """What nobody could be sent: text that UTF-8 does not have, or more than a line may hold."""
    try:
        size = len(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair"
    if size > MAX_LINE_BYTES + _DEFAULTS_BYTES:
        return f"it has {size} bytes, more than {MAX_LINE_BYTES}"
    return None


def _kept_as_error(line: dict[str, Any], flaw: str) -> dict[str, Any]:
    said = f"a journal line could not be read ({flaw}): {json.dumps(line)[:_SHOWN_BYTES]}"
    try:
        at = _moment.validate_python(line.get("at"))
    except ValidationError:
        at = datetime.fromtimestamp(0, UTC)
    kept = LogEvent(seq=line["seq"], at=at, level="error", message=said)
    return kept.model_dump(mode="json")


def _store(tx: Transaction, attempt_id: str, lines: list[dict[str, Any]]) -> None:
    kinds = [line["kind"] for line in lines]
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    tx.session.add(
        JournalChunk(
            attempt_id=attempt_id,
            first_seq=lines[0]["seq"],
            last_seq=lines[-1]["seq"],
            logs=kinds.count("log"),
            metrics=kinds.count("metric"),
            body=zlib.compress(text.encode(), level=1),
        )
    )


def _project(job: Job, attempt: Attempt, lines: list[dict[str, Any]]) -> None:
    """Show the newest progress on the job itself."""
    if attempt.number != job.attempts:
        return
    for line in reversed(lines):
        if line["kind"] == "progress":
            event = ProgressEvent.model_validate(line)
            view = ProgressView.model_validate(event.model_dump(exclude={"kind", "seq", "at"}))
            job.progress = view.model_dump()
            return


def read(
    session: Session,
    job_id: str,
    *,
    after: tuple[int, int] = (0, 0),
    kind: Literal["log", "metric"] | None = None,
    limit: int = 1000,
) -> list[JournalLine]:
    """Up to ``limit`` lines of a job after (attempt, seq), in order over all its attempts."""
    attempt_after, seq_after = after
    query = (
        select(Attempt.number, JournalChunk.body)
        .join(Attempt, Attempt.id == JournalChunk.attempt_id)
        .where(
            Attempt.job_id == job_id,
            or_(
                Attempt.number > attempt_after,
                and_(Attempt.number == attempt_after, JournalChunk.last_seq > seq_after),
            ),
        )
        .order_by(Attempt.number, JournalChunk.first_seq)
        # The first chunk may hold nothing of this kind after the place; each other holds some.
        .limit(limit + 1)
    )
    if kind:
        query = query.where((JournalChunk.logs if kind == "log" else JournalChunk.metrics) > 0)
    found: list[JournalLine] = []
    for number, body in session.execute(query).yield_per(16):
        found.extend(
            JournalLine(number, line["seq"], line)
            for line in _unpack(body)
            if (number, line["seq"]) > after and kind in {None, line["kind"]}
        )
        if len(found) >= limit:
            break
    return found[:limit]


def _unpack(body: bytes) -> Iterator[dict[str, Any]]:
    for text in zlib.decompress(body).splitlines():
        yield json.loads(text)
