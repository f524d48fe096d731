"""Reads journal lines, wherever they lie, without Redis."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any, NamedTuple

import structlog
from pydantic import TypeAdapter

from st_controller.errors import Unavailable
from st_controller.services.journal_lines import unpack
from st_controller.services.journal_pieces import ALL, Piece, Place, Wanted, following, preceding
from st_controller.store.database import Database
from st_shared.objectstore import ObjectMissingError, ObjectStore, StoreUnreachableError
from st_shared.protocol.message import Moment

log = structlog.get_logger(__name__)

REMEMBERED_BYTES = 32 * 2**20
"""Lines of segments that are kept in memory: who reads one page wants the next."""
PAGE_BYTES = 4 * 2**20
"""Of lines in one answer; the one that goes beyond is its last."""
_moment: TypeAdapter[datetime] = TypeAdapter(Moment)


@dataclass(frozen=True)
class JournalLine:
    """A stored line with its place."""

    attempt: int
    seq: int
    body: dict[str, Any]
    size: int = field(default=0, compare=False)
    """Bytes of its JSON."""

    @property
    def at(self) -> datetime:
        """When it was written, by the clock of the worker."""
        return _moment.validate_python(self.body["at"])


class LinePage(NamedTuple):
    """Some lines, and the place to go on from; none where no more are stored."""

    lines: list[JournalLine]
    after: Place | None


class JournalReader:
    """Lines from SQL while they are young, and from the object store afterwards.

    What is in the object store is read outside of any transaction.
    """

    def __init__(self, db: Database, objects: ObjectStore) -> None:
        self._db, self._objects = db, objects
        self._remembered: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def read(
        self, job_id: str, *, after: Place = (0, 0), wanted: Wanted = ALL, limit: int = 1000
    ) -> list[JournalLine]:
        """Up to ``limit`` lines after a place, in order over all attempts; fewer at the end only.

        Raises:
            Unavailable: the object store does not give what it holds.
        """
        found: list[JournalLine] = []
        while len(found) < limit:
            page = self.page(job_id, after=after, wanted=wanted, limit=limit - len(found))
            found += page.lines
            if page.after is None:
                break
            after = page.after
        return found

    def page(
        self, job_id: str, *, after: Place = (0, 0), wanted: Wanted = ALL, limit: int = 1000
    ) -> LinePage:
        """Up to ``limit`` lines after a place, and fewer where they are long or far between."""
        with self._db.read() as session:
            found = following(session, job_id, wanted, after, limit)
        lines: list[JournalLine] = []
        room = PAGE_BYTES
        for piece in found.pieces:
            for line in self._lines_of(piece, after):
                if _is_wanted(line, wanted):
                    lines.append(line)
                    room -= line.size
                    if len(lines) == limit or room <= 0:
                        return LinePage(lines, (line.attempt, line.seq))
        return LinePage(lines, None if found.is_all else found.pieces[-1].end)

    def last(
        self, job_id: str, count: int, *, before: Place | None = None, wanted: Wanted = ALL
    ) -> list[JournalLine]:
        """The last ``count`` lines before a place, or of all, oldest first; fewer where long.

        There is none before those that are given only if none is given.
        """
        newest_first: list[JournalLine] = []
        room = PAGE_BYTES
        while len(newest_first) < count and room > 0:
            with self._db.read() as session:
                pieces = preceding(session, job_id, wanted, before, count - len(newest_first))
            if not pieces:
                break
            for piece in reversed(pieces):
                for line in self._backwards(piece, before):
                    if _is_wanted(line, wanted):
                        newest_first.append(line)
                        room -= line.size
                        if len(newest_first) == count or room <= 0:
                            return newest_first[::-1]
            before = (pieces[0].number, pieces[0].first_seq)
        return newest_first[::-1]

    def lines(
        self,
        pieces: Sequence[Piece],
        *,
        wanted: Wanted = ALL,
        after: Place = (0, 0),
        limit: int | None = None,
    ) -> list[JournalLine]:
        """The wanted lines of pieces after a place, ``limit`` at most."""
        found: list[JournalLine] = []
        for piece in pieces:
            for line in self._lines_of(piece, after):
                if _is_wanted(line, wanted):
                    found.append(line)
                    if len(found) == limit:
                        return found
        return found

    def _lines_of(self, piece: Piece, after: Place) -> Iterator[JournalLine]:
        number, seq = after
        # Lines follow each other without gaps, so those before the place need not be read.
        first = max(piece.first_seq, seq + 1) if piece.number == number else piece.first_seq
        for raw in self._raw_of(piece)[first - piece.first_seq :]:
            yield _line(piece, raw)

    def _backwards(self, piece: Piece, before: Place | None) -> Iterator[JournalLine]:
        """Last to first, from the last one before a place on."""
        raws = self._raw_of(piece)
        if before and before[0] == piece.number:
            raws = raws[: max(before[1] - piece.first_seq, 0)]
        for raw in reversed(raws):
            yield _line(piece, raw)

    def _raw_of(self, piece: Piece) -> list[bytes]:
        text = unpack(piece.body) if piece.body is not None else self._fetched(piece)
        return text.split(b"\n")

    def _fetched(self, piece: Piece) -> bytes:
        key = piece.key or ""
        with self._lock:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
                return known
        text = unpack(self._object(key, piece.sha256))
        with self._lock:
            self._remembered[key] = text
            while sum(map(len, self._remembered.values())) > REMEMBERED_BYTES:
                self._remembered.popitem(last=False)
        return text

    def _object(self, key: str, sha256: str | None) -> bytes:
        try:
            packed = b"".join(self._objects.open(key))
        except (ObjectMissingError, StoreUnreachableError) as error:
            log.warning("a journal segment cannot be read", key=key, why=str(error))
            raise Unavailable(f"the object store does not give {key}: {error}") from error
        if hashlib.sha256(packed).hexdigest() != sha256:
            log.error("a journal segment is damaged", key=key)
            raise Unavailable(
                f"{key} in the object store is not what was put there",
                code="object_damaged",
                hint="restore that object from a backup of the store",
            )
        return packed


def _line(piece: Piece, raw: bytes) -> JournalLine:
    body = json.loads(raw)
    return JournalLine(piece.number, body["seq"], body, len(raw))


def _is_wanted(line: JournalLine, wanted: Wanted) -> bool:
    if wanted.kind is not None and line.body["kind"] != wanted.kind:
        return False
    return wanted.since is None or line.at >= wanted.since
