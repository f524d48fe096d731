"""Moves journal lines from SQL to the object store: SQL keeps where they are, and of a curve a bit.

An attempt's lines are moved in their order, all of them once it is over, and before that whenever
enough have come. What is moved next follows from what lies in SQL, and so does its key. Whoever
dies between the object and the transaction has lost nothing: the same object is written again.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, or_, select
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
"""A segment ends with the chunk that reaches either, or ``SEGMENT_BYTES`` of packed chunks."""
SEGMENT_BYTES = 4 * 2**20
_LEVEL = 6
_SEGMENT = insert(JournalSegment)


def due(session: Session, limit: int = 100) -> list[str]:
    """Attempts of which a segment can be moved now."""
    lines = func.max(JournalChunk.first_seq) - func.min(JournalChunk.first_seq)
    return list(
        session.scalars(
            select(JournalChunk.attempt_id)
            .join(Attempt, Attempt.id == JournalChunk.attempt_id)
            .group_by(JournalChunk.attempt_id, Attempt.state)
            .having(
                or_(
                    Attempt.state == AttemptState.FINISHED,
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
        found = chunks_of(session, attempt_id, SEGMENT_CHUNKS)
    if not found:
        return False
    _, job_id, number = found[0]
    chunks = _first_of([chunk for chunk, _, _ in found])
    text = b"\n".join(unpack(chunk.body) for chunk in chunks)
    packed = packed_text(text, _LEVEL)
    row = _row(chunks, f"jobs/{job_id}/journal/{number}/{chunks[0].first_seq}.ndjson.gz")
    row |= {"size": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
    row["points"] = thinned(_metrics(text) if row["metrics"] else [])
    objects.put(row["key"], io.BytesIO(packed), sha256=row["sha256"])
    return _replace(db, row)


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


def _first_of(chunks: Sequence[JournalChunk]) -> Sequence[JournalChunk]:
    """The fewest chunks that fill a segment, or all; the same whoever asks, and whenever."""
    size = 0
    for count, chunk in enumerate(chunks, start=1):
        size += len(chunk.body)
        lines = chunk.last_seq - chunks[0].first_seq + 1
        if lines >= SEGMENT_LINES or size >= SEGMENT_BYTES:
            return chunks[:count]
    return chunks


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
