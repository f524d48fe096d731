"""What deleted jobs left in the object store is removed, in two steps that each may be repeated.

First the rows of a job's files go, page by page, and the keys of their objects are doomed. A doomed
object is removed after ``SETTLED``, if no file names its key: others of the organisation that have
the same content refer to it. Whoever was about to refer to it when its last file went has written
that by then, and nobody can begin to: content is found by the files that name it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from st_controller.store.database import Database
from st_controller.store.schema import (
    Artifact,
    Attempt,
    DoomedObject,
    Job,
    JournalChunk,
    JournalSegment,
)
from st_controller.store.transaction import Transaction
from st_shared.objectstore import ObjectStore

MOST = 200
"""Files whose rows are removed in one transaction, and objects that are removed before one."""
SETTLED = timedelta(minutes=10)
"""Longer than any transaction takes."""

_DOOM = text(
    "INSERT INTO doomed_objects (key, doomed_at) VALUES (:key, :at)"
    " ON CONFLICT (key) DO UPDATE SET doomed_at = excluded.doomed_at"
)


class _Left(NamedTuple):
    """A page of what a job left."""

    artifacts: Sequence[Artifact]
    segments: Sequence[JournalSegment]

    @property
    def keys(self) -> list[str]:
        """Of the objects, each once."""
        return sorted({*(row.key for row in self.artifacts), *(row.key for row in self.segments)})

    @property
    def size(self) -> int:
        """Bytes of what was stored."""
        stored = [row.size for row in self.artifacts if row.stored_at is not None]
        return sum([*stored, *(row.size for row in self.segments)])


def due(session: Session, before: datetime, most: int = 100) -> list[str]:
    """Jobs that were deleted by then and have files; their lines have all been moved to objects."""
    unmoved = (
        select(JournalChunk.attempt_id)
        .join(Attempt, Attempt.id == JournalChunk.attempt_id)
        .where(Attempt.job_id == Job.id)
    )
    query = (
        select(Job.id)
        .where(Job.deleted_at <= before, Job.purged_at.is_(None), ~unmoved.exists())
        .order_by(Job.deleted_at, Job.id)
        .limit(most)
    )
    return list(session.scalars(query))


def purge(tx: Transaction, job_id: str) -> bool:
    """Remove the next rows of files of a deleted job and doom their objects; whether more are left.

    Its row, its attempts and what it was charged stay: they are the record of what was used.
    """
    job = tx.session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.deleted_at is None or job.purged_at is not None:
        return False
    left = _left(tx.session, job_id)
    for key in left.keys:
        tx.session.connection().execute(_DOOM, {"key": key, "at": tx.now})
    for row in (*left.artifacts, *left.segments):
        tx.session.delete(row)
    is_more = max(len(left.artifacts), len(left.segments)) == MOST
    if not is_more:
        job.purged_at, job.checkpoint_id = tx.now, None
    if left.keys or not is_more:
        counts = {"artifacts": len(left.artifacts), "segments": len(left.segments)}
        tx.audit("system", "job.purged", job_id, **counts, bytes=left.size, done=not is_more)
    return is_more


def _left(session: Session, job_id: str) -> _Left:
    artifacts = select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.id)
    segments = (
        select(JournalSegment)
        .join(Attempt, Attempt.id == JournalSegment.attempt_id)
        .where(Attempt.job_id == job_id)
        .order_by(JournalSegment.attempt_id, JournalSegment.first_seq)
    )
    return _Left(
        session.scalars(artifacts.limit(MOST)).all(), session.scalars(segments.limit(MOST)).all()
    )


def remove_doomed(db: Database, objects: ObjectStore) -> int:
    """Remove the objects that were doomed long enough ago, those that nobody names; how many.

    Raises:
        StoreUnreachableError: the store does not answer; what is left is removed the next time.
    """
    removed, page = 0, MOST
    while page == MOST:
        before = db.clock() - SETTLED
        with db.read() as session:
            doomed = _doomed(session, before)
            named = _named(session, doomed)
        gone = [key for key in doomed if key not in named]
        for key in gone:
            objects.delete(key)
        if doomed:
            with db.write() as tx:
                done = DoomedObject.key.in_(doomed) & (DoomedObject.doomed_at <= before)
                tx.session.execute(delete(DoomedObject).where(done))  # not what was doomed anew
                if gone:
                    tx.audit("system", "objects.removed", "objects", count=len(gone))
        removed, page = removed + len(gone), len(doomed)
    return removed


def _doomed(session: Session, before: datetime) -> list[str]:
    query = select(DoomedObject.key).where(DoomedObject.doomed_at <= before)
    return list(
        session.scalars(query.order_by(DoomedObject.doomed_at, DoomedObject.key).limit(MOST))
    )


def _named(session: Session, keys: Sequence[str]) -> set[str]:
    """Those keys that some file names."""
    return set(session.scalars(select(Artifact.key).where(Artifact.key.in_(keys)).distinct()))
