"""What kinds of workers there are, to warn whoever asks for what none of them has."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from sqlalchemy import Text, cast, select

from st_controller.domain.scheduling.model import Shape, SlotKind, WorkerCapacity
from st_controller.domain.scheduling.near_miss import near_miss
from st_controller.services.capacities import STATIC
from st_controller.store.database import Database, ReadSession
from st_controller.store.schema import Worker
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import WorkerDesired, WorkerState
from st_shared.spec.job import ResourceRequest

FRESH = timedelta(seconds=1)
"""How long what was seen of the workers is believed where it leads to a warning."""
TRUSTED = timedelta(seconds=60)
"""How long a shape is known to be satisfiable without looking again, if no worker went meanwhile
or nobody told of it."""
_MOST_SHAPES = 10_000


@dataclass(slots=True)
class _Seen:
    """The workers as they were at one time, and what they were found to satisfy."""

    satisfiable: dict[Shape, datetime] = field(default_factory=dict)
    hopeless: dict[Shape, Reason] = field(default_factory=dict)
    """Of the workers as they were at ``looked_at``."""
    kinds: list[WorkerCapacity] = field(default_factory=list)
    looked_at: datetime | None = None


class Survey:
    """Answers whether any worker could ever run a request; remembers what it saw for a while.

    Workers that drain, are silent or have not been heard yet count: they may come back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen = _Seen()

    def forget(self) -> None:
        """A worker went, or has less than before; look again. From any thread, without waiting.

        Whoever looks just now notes what it finds in a place that nobody reads any more.
        """
        self._seen = _Seen()

    def warnings(self, db: Database, requests: Iterable[ResourceRequest]) -> list[list[Reason]]:
        """For each request the warning that it is hopeless, or none; seconds old at most."""
        now = db.clock()
        with self._lock:
            return [_warnings(self._seen, db, _shape(request), now) for request in requests]

    def known(self, request: ResourceRequest, now: datetime) -> list[Reason] | None:
        """The warnings of one request where they are known already; none: they are to be asked."""
        seen, shape = self._seen, _shape(request)
        if _fits(seen, shape, now):
            return []
        is_fresh = seen.looked_at is not None and now - seen.looked_at < FRESH
        found = seen.hopeless.get(shape) if is_fresh else None
        return [found] if found else None


def _fits(seen: _Seen, shape: Shape, now: datetime) -> bool:
    known = seen.satisfiable.get(shape)
    return known is not None and now - known < TRUSTED


def _warnings(seen: _Seen, db: Database, shape: Shape, now: datetime) -> list[Reason]:
    if _fits(seen, shape, now):
        return []
    if seen.looked_at is None or now - seen.looked_at >= FRESH:
        with db.read() as session:
            seen.kinds, seen.hopeless, seen.looked_at = _kinds(session), {}, now
    found = seen.hopeless.get(shape) or near_miss(shape, seen.kinds)
    if found:
        if len(seen.hopeless) < _MOST_SHAPES:
            seen.hopeless[shape] = found
        return [found]
    if len(seen.satisfiable) >= _MOST_SHAPES:
        seen.satisfiable.clear()
    seen.satisfiable[shape] = now
    return []


def _shape(request: ResourceRequest) -> Shape:
    return Shape(
        slots=request.slots,
        accelerator=request.accelerator,
        min_memory_gb=request.min_memory_gb,
        nodes=request.nodes,
        labels=tuple(sorted(request.labels.items())),
        provider=request.provider,
    )


def _kinds(session: ReadSession) -> list[WorkerCapacity]:
    """Every worker that is here or may come back; how many are alike matters for gangs only."""
    rows = session.execute(
        select(
            Worker.id,
            cast(Worker.inventory["slots"], Text).label("slots"),
            cast(Worker.own_labels, Text).label("own"),
            cast(Worker.set_labels, Text).label("given"),
        ).where(Worker.observed != WorkerState.GONE, Worker.desired != WorkerDesired.RETIRED)
    )
    slots: dict[str, dict[int, SlotKind]] = {}
    found = []
    for row in rows:
        if row.slots not in slots:
            slots[row.slots] = _slots(json.loads(row.slots))
        labels: Mapping[str, str] = {**json.loads(row.own), **json.loads(row.given)}
        provider = labels.get("provider", STATIC)
        found.append(WorkerCapacity(row.id, slots[row.slots], dict(labels), provider))
    return found


def _slots(listed: list[dict[str, Any]]) -> dict[int, SlotKind]:
    return {slot["index"]: SlotKind.told(slot) for slot in listed}
