"""Moves journal lines from SQL to the object store: SQL keeps where they are, and of a curve a bit.

An attempt's lines are moved in their order, all of them once it is over, and before that whenever
enough have come. An object's key has the SHA-256 of its bytes, so whoever moves the same lines at
the same time, or more of them, never writes over what another has recorded. Whoever dies between
the object and the transaction has lost nothing: the same object is written again.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.services.journal_lines import packed_text, unpack
from st_controller.services.journal_pieces import chunks_of
from st_controller.services.journal_points import thinned
from st_controller.store.bulk import insert_all
from st_controller.store.database import Database
from st_controller.store.schema import Attempt, JournalChunk, JournalSegment
from st_shared.objectstore import ObjectStore
from st_shared.protocol.states import AttemptState

SEGMENT_LINES = 20_000
SEGMENT_CHUNKS = 500
"""A segment ends with the chunk that reaches either, or ``SEGMENT_BYTES`` of text."""
SEGMENT_BYTES = 8 * 2**20
_LEVEL = 6
_SEGMENT = insert(JournalSegment)


def due(session: Session, limit: int = 100) -> list[str]:
    """Attempts of which a segment can be moved now."""
    lines = func.max(JournalChunk.first_seq) - func.min(JournalChunk.first_seq)
    return list(
        session.scalars(
            select(JournalChunk.attempt_id)
            .join(Attempt, Attempt.id == JournalChunk.attempt_id)
            .group_by(JournalChunk.attempt_id, Attempt.state, Attempt.released_at)
            .having(
                or_(
                    # Members of a gang give back their slots, and send no more, all together.
                    and_(Attempt.state == AttemptState.FINISHED, Attempt.released_at.is_not(None)),
                    lines >= SEGMENT_LINES,
                    func.count() >= SEGMENT_CHUNKS,
                )
            )
            .limit(limit)
        )
    )


def move(db: Database, objects: ObjectStore, attempt_id: str) -> bool:
    """Move the next segment of an attempt; whether there was one to be moved.

    Raises:
        StoreUnreachableError: the object store does not take it; all stays as it was.
    """
    with db.read() as session:
        filled = _filled(chunks_of(session, attempt_id))
    if not filled.chunks:
        return False
    chunks, text = filled.chunks, b"\n".join(filled.texts)
    packed = packed_text(text, _LEVEL)
    digest = hashlib.sha256(packed).hexdigest()
    place = f"jobs/{filled.job_id}/journal/{filled.number}/{chunks[0].first_seq}"
    row = _row(chunks, f"{place}-{digest}.ndjson.gz")
    row |= {"size": len(packed), "sha256": digest}
    row["points"] = thinned(_metrics(text) if row["metrics"] else [])
    objects.put(row["key"], io.BytesIO(packed), sha256=row["sha256"])
    if _replace(db, row):
        return True
    _forget(db, objects, row)
    return False


def _replace(db: Database, row: dict[str, Any]) -> bool:
    try:
        with db.write() as tx:
            connection = tx.session.connection()
            insert_all(connection, _SEGMENT, [row])
            connection.execute(
                delete(JournalChunk).where(
                    JournalChunk.attempt_id == row["attempt_id"],
                    JournalChunk.first_seq.between(row["first_seq"], row["last_seq"]),
                )
            )
    except IntegrityError:  # another process was quicker with the same segment
        return False
    return True


def _forget(db: Database, objects: ObjectStore, row: dict[str, Any]) -> None:
    """Another has recorded these lines: drop our object if theirs is certainly another."""
    with db.read() as session:
        theirs = session.get(JournalSegment, (row["attempt_id"], row["first_seq"]))
    # None: theirs is not committed yet, and may be the very one.
    if theirs is not None and theirs.key != row["key"]:
        objects.delete(row["key"])


@dataclass
class _Filled:
    """What goes into one segment."""

    job_id: str = ""
    number: int = 0
    chunks: list[JournalChunk] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        lines = self.chunks[-1].last_seq - self.chunks[0].first_seq + 1
        return (
            lines >= SEGMENT_LINES
            or len(self.chunks) >= SEGMENT_CHUNKS
            or sum(map(len, self.texts)) >= SEGMENT_BYTES
        )


def _filled(rows: Iterable[tuple[JournalChunk, str, int]]) -> _Filled:
    """The fewest chunks that fill a segment, or all."""
    filled = _Filled()
    for chunk, filled.job_id, filled.number in rows:
        filled.chunks.append(chunk)
        filled.texts.append(unpack(chunk.body))
        if filled.is_full:
            break
    return filled


def _row(chunks: Sequence[JournalChunk], key: str) -> dict[str, Any]:
    return {
        "attempt_id": chunks[0].attempt_id,
        "first_seq": chunks[0].first_seq,
        "last_seq": chunks[-1].last_seq,
        "logs": sum(chunk.logs for chunk in chunks),
        "metrics": sum(chunk.metrics for chunk in chunks),
        "first_at": min(chunk.first_at for chunk in chunks),
        "last_at": max(chunk.last_at for chunk in chunks),
        "key": key,
    }


def _metrics(text: bytes) -> list[dict[str, Any]]:
    lines = (json.loads(raw) for raw in text.split(b"\n") if b'"metric"' in raw)
    return [line for line in lines if line["kind"] == "metric"]
