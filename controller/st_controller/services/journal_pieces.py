"""Where the journal lines of a job lie: chunks in SQL, and segments in the object store."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Select, and_, null, or_, select
from sqlalchemy.orm import Session

from st_controller.store.schema import Attempt, JournalChunk, JournalSegment

_Model = JournalChunk | JournalSegment
Kind = Literal["log", "metric"]
Place = tuple[int, int]
"""Attempt number and line; ``(0, 0)`` is before the first."""


@dataclass(frozen=True)
class Wanted:
    """Which lines of a job are asked for."""

    kind: Kind | None = None
    attempt: int | None = None
    since: datetime | None = None
    """Lines that were written then or later, by the clock of the worker."""


ALL = Wanted()


@dataclass(frozen=True)
class Piece:
    """Consecutive lines that lie together."""

    number: int
    """Of the attempt."""
    attempt_id: str
    first_seq: int
    last_seq: int
    logs: int
    metrics: int
    key: str | None
    """Of the object; none where they lie in SQL, and ``body`` has them."""
    sha256: str | None
    body: bytes | None = None

    def count(self, kind: Kind | None) -> int:
        """How many of its lines are of this kind."""
        counts = {"log": self.logs, "metric": self.metrics}
        return counts[kind] if kind else self.last_seq - self.first_seq + 1

    @property
    def end(self) -> Place:
        """The place after its last line."""
        return self.number, self.last_seq


def following(
    session: Session, job_id: str, wanted: Wanted, after: Place, lines: int
) -> list[Piece]:
    """The pieces after a place that hold the next ``lines`` lines, or all; first to last.

    Where ``wanted.since`` is given they may hold fewer, and more may follow.
    """
    number, seq = after
    pieces: list[Piece] = []
    for model in (JournalSegment, JournalChunk):
        query = (
            _of_job(model, job_id, wanted)
            .where(
                or_(Attempt.number > number, and_(Attempt.number == number, model.last_seq > seq))
            )
            .order_by(Attempt.number, model.first_seq)
            .limit(lines + 1)  # the first may hold nothing after the place; each other holds some
        )
        pieces += _pieces(session, query)
    pieces.sort(key=lambda piece: (piece.number, piece.first_seq))
    return _with_bodies(session, _enough(pieces, wanted.kind, after, lines))


def preceding(
    session: Session, job_id: str, wanted: Wanted, before: Place | None, lines: int
) -> list[Piece]:
    """The pieces that end before a place, or at the end, with the last ``lines`` lines; in order.

    ``before`` is the first line of a piece that is known.
    """
    pieces: list[Piece] = []
    for model in (JournalSegment, JournalChunk):
        query = _of_job(model, job_id, wanted)
        if before:
            number, seq = before
            query = query.where(
                or_(Attempt.number < number, and_(Attempt.number == number, model.first_seq < seq))
            )
        query = query.order_by(Attempt.number.desc(), model.first_seq.desc()).limit(lines)
        pieces += _pieces(session, query)
    pieces.sort(key=lambda piece: (piece.number, piece.first_seq), reverse=True)
    chosen: list[Piece] = []
    for piece in pieces:
        if sum(each.count(wanted.kind) for each in chosen) >= lines:
            break
        chosen.append(piece)
    return _with_bodies(session, chosen[::-1])


def chunks_with_metrics(session: Session, job_id: str) -> list[Piece]:
    """Everything in SQL that holds metric points, in order."""
    query = _of_job(JournalChunk, job_id, Wanted("metric"))
    ordered = query.order_by(Attempt.number, JournalChunk.first_seq)
    return _with_bodies(session, _pieces(session, ordered))


def chunks_of(session: Session, attempt_id: str, limit: int) -> list[tuple[JournalChunk, str, int]]:
    """The first chunks of an attempt, each with its job and the attempt's number."""
    rows = session.execute(
        select(JournalChunk, Attempt.job_id, Attempt.number)
        .join(Attempt, Attempt.id == JournalChunk.attempt_id)
        .where(JournalChunk.attempt_id == attempt_id)
        .order_by(JournalChunk.first_seq)
        .limit(limit)
    )
    return [(chunk, job_id, number) for chunk, job_id, number in rows]


def _of_job(model: type[_Model], job_id: str, wanted: Wanted) -> Select[Any]:
    """Rows with the columns of ``Piece``, the body left out."""
    columns: list[Any] = [Attempt.number, model.attempt_id, model.first_seq, model.last_seq]
    columns += [model.logs, model.metrics]
    is_moved = model is JournalSegment
    columns += [JournalSegment.key, JournalSegment.sha256] if is_moved else [null(), null()]
    query: Select[Any] = select(*columns).join(Attempt, Attempt.id == model.attempt_id)
    query = query.where(Attempt.job_id == job_id)
    if wanted.kind:
        query = query.where((model.logs if wanted.kind == "log" else model.metrics) > 0)
    if wanted.attempt is not None:
        query = query.where(Attempt.number == wanted.attempt)
    if wanted.since is not None:
        query = query.where(model.last_at >= wanted.since)
    return query


def _pieces(session: Session, query: Select[Any]) -> list[Piece]:
    return [Piece(*row) for row in session.execute(query)]


def _enough(
    pieces: Iterable[Piece], kind: Kind | None, after: Place, lines: int
) -> Sequence[Piece]:
    chosen: list[Piece] = []
    sure = 0
    for piece in pieces:
        if sure >= lines:
            break
        chosen.append(piece)
        if (piece.number, piece.first_seq) > after:
            sure += piece.count(kind)
    return chosen


def _with_bodies(session: Session, pieces: Sequence[Piece]) -> list[Piece]:
    """Those in SQL with their lines, read in the same state of the database."""
    places: dict[str, list[int]] = defaultdict(list)
    for piece in pieces:
        if piece.key is None:
            places[piece.attempt_id].append(piece.first_seq)
    bodies: dict[tuple[str, int], bytes] = {}
    for attempt_id, firsts in places.items():
        rows = session.execute(
            select(JournalChunk.first_seq, JournalChunk.body).where(
                JournalChunk.attempt_id == attempt_id,
                JournalChunk.first_seq.between(firsts[0], firsts[-1]),
            )
        )
        bodies |= {(attempt_id, first): body for first, body in rows}
    return [
        piece if piece.key else replace(piece, body=bodies[piece.attempt_id, piece.first_seq])
        for piece in pieces
    ]
