"""Metric points for curves: so many at most, however long the run was."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from st_controller.services.journal_pieces import Wanted, chunks_with_metrics
from st_controller.services.journal_reading import JournalLine, JournalReader
from st_controller.store.database import Database
from st_controller.store.schema import Attempt, JournalSegment
from st_shared.curves import Place, as_one_curve

KEPT = 64
"""Points that SQL keeps of a segment."""
KEPT_BYTES = 65_536
_METRICS = Wanted("metric")


def thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some of many metric lines, evenly chosen, the first and the last among them."""
    count = KEPT
    while count > 1:
        chosen = [lines[place] for place in evenly(len(lines), count)]
        if len(json.dumps(chosen)) <= KEPT_BYTES:
            return chosen
        count //= 2
    return list(lines[-1:])


def evenly(total: int, count: int) -> list[int]:
    """Up to ``count`` of the places ``0`` to ``total - 1``, with both ends, evenly apart."""
    if total <= count:
        return list(range(total))
    if count == 1:
        return [total - 1]
    return [index * (total - 1) // (count - 1) for index in range(count)]


def read_points(
    db: Database, reader: JournalReader, job_id: str, count: int
) -> tuple[list[JournalLine], int]:
    """Up to ``count`` metric points over all attempts, first to last, and how many there are.

    What a later attempt measured again counts once; see ``st_shared.curves``.

    Each is a point that was measured. Nothing is read from the object store: of what lies there SQL
    keeps ``KEPT`` points a segment.
    """
    with db.read() as session:
        segments = session.execute(
            select(Attempt.number, JournalSegment.metrics, JournalSegment.points)
            .join(Attempt, Attempt.id == JournalSegment.attempt_id)
            .where(Attempt.job_id == job_id, JournalSegment.metrics > 0)
        ).all()
        pieces = chunks_with_metrics(session, job_id)
    weighed: list[tuple[JournalLine, float]] = []
    for number, metrics, points in segments:
        lines = [JournalLine(number, body["seq"], body) for body in points]
        weighed += [(line, metrics / len(lines)) for line in lines]
    weighed += [(line, 1.0) for line in reader.lines(pieces, wanted=_METRICS)]
    along = as_one_curve(weighed, _place)
    return _spread(along, count), round(sum(weight for _, weight in along))


def _place(weighed: tuple[JournalLine, float]) -> Place:
    line, _ = weighed
    return line.attempt, line.body["step"], line.seq


def _spread(weighed: Sequence[tuple[JournalLine, float]], count: int) -> list[JournalLine]:
    """Lines that lie about evenly among all that they stand for."""
    if len(weighed) <= count:
        return [line for line, _ in weighed]
    step = sum(weight for _, weight in weighed) / max(count - 1, 1)
    chosen: list[JournalLine] = []
    due = end = 0.0
    for line, weight in weighed[:-1]:
        end += weight
        if due < end and len(chosen) < count - 1:
            chosen.append(line)
            due = step * (end // step + 1)
    return [*chosen, weighed[-1][0]]
