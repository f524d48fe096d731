"""Where the journal lines of a job lie: chunks in SQL, and segments in the object store."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

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
MOST = 64
"""Pieces that are read together."""


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


class Found(NamedTuple):
    """Pieces in order, and whether there is nothing after them."""

    pieces: list[Piece]
    is_all: bool


def following(session: Session, job_id: str, wanted: Wanted, after: Place, lines: int) -> Found:
    """Pieces after a place, first to last, and no more than hold the next ``lines`` lines.

    There may be fewer lines in them, and more may follow: ``MOST`` pieces at a time.
    """
    number, seq = after
    pieces: list[Piece] = []
    for model in (JournalSegment, JournalChunk):
        query = (
            _of_job(model, job_id, wanted)
            .where(
                or_(
                    Attempt.number > number,
                    and_(Attempt.number == number, model.last_seq > seq),
                )
            )
            .order_by(Attempt.number, model.first_seq)
            .limit(MOST + 1)
        )
        pieces += _pieces(session, query)
    pieces.sort(key=lambda piece: (piece.number, piece.first_seq))
    chosen = _enough(pieces[:MOST], wanted.kind, after, lines)
    return Found(_with_bodies(session, chosen), len(chosen) == len(pieces))


def preceding(
    session: Session, job_id: str, wanted: Wanted, before: Place | None, lines: int
) -> list[Piece]:
    """The last pieces with lines before a place, or of all, in order.

    No more than hold ``lines`` lines, those after the place counted; more may precede them.
    """
    pieces: list[Piece] = []
    for model in (JournalSegment, JournalChunk):
        query = _of_job(model, job_id, wanted)
        if before:
            number, seq = before
            query = query.where(
                or_(Attempt.number < number, and_(Attempt.number == number, model.first_seq < seq))
            )
        query = query.order_by(Attempt.number.desc(), model.first_seq.desc()).limit(MOST)
        pieces += _pieces(session, query)
    pieces.sort(key=lambda piece: (piece.number, piece.first_seq), reverse=True)
    chosen: list[Piece] = []
    for piece in pieces[:MOST]:
        if sum(each.count(wanted.kind) for each in chosen) >= lines:
            break
        chosen.append(piece)
    return _with_bodies(session, chosen[::-1])


def chunks_with_metrics(session: Session, job_id: str) -> list[Piece]:
    """Everything in SQL that holds metric points, in order."""
    query = _of_job(JournalChunk, job_id, Wanted("metric"))
    ordered = query.order_by(Attempt.number, JournalChunk.first_seq)
    return _with_bodies(session, _pieces(session, ordered))


def chunks_of(session: Session, attempt_id: str) -> Iterator[tuple[JournalChunk, str, int]]:
    """The chunks of an attempt, a few at a time, each with its job and the attempt's number."""
    rows = session.execute(
        select(JournalChunk, Attempt.job_id, Attempt.number)
        .join(Attempt, Attempt.id == JournalChunk.attempt_id)
        .where(JournalChunk.attempt_id == attempt_id)
        .order_by(JournalChunk.first_seq),
        execution_options={"yield_per": 16},
    )
    with rows:  # whoever reads may stop before the end
        for row in rows:
            yield row[0], row[1], row[2]


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


def _enough(pieces: Iterable[Piece], kind: Kind | None, after: Place, lines: int) -> list[Piece]:
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
