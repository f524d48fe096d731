"""What workers have, as the scheduler knows it; made anew only of those that changed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

from sqlalchemy import Text, bindparam, cast, select
from sqlalchemy.orm import Session

from st_controller.domain.scheduling.model import SlotKind, WorkerCapacity
from st_controller.services import faulty_slots
from st_controller.services.slot_prices import SlotPrices
from st_controller.store.requests import base_content
from st_controller.store.schema import Worker
from st_shared.protocol.resources import FaultySlot
from st_shared.protocol.states import WorkerDesired, WorkerState

STATIC = "static"
"""Provider of workers that do not say where they come from."""
_PAGE = 500
"""Rows that are in memory at one time, where all are looked at."""
_LEAST = 100
"""Rows of a part, where parts of all are looked at one after the other."""

# As text: what has not changed need not be parsed.
_TAKING = select(
    Worker.id,
    Worker.name,
    cast(Worker.inventory, Text).label("inventory"),
    cast(Worker.own_labels, Text).label("own_labels"),
    cast(Worker.set_labels, Text).label("set_labels"),
).where(
    Worker.observed == WorkerState.ONLINE,
    Worker.desired == WorkerDesired.ACTIVE,
    Worker.revoked_at.is_(None),
)
_SOME = _TAKING.where(Worker.id.in_(bindparam("ids", expanding=True)))
_PART = _TAKING.where(Worker.id > bindparam("after")).order_by(Worker.id).limit(bindparam("most"))


class Look(NamedTuple):
    """What a look at workers found."""

    changed: list[WorkerCapacity]
    """Those that take jobs now and did not at the last look, or have something else since."""
    gone: set[str]
    """Ids of those that take none now and did at the last look."""


class Capacities:
    """Reads workers for one scheduler, and remembers a mark of each."""

    def __init__(self, prices: SlotPrices) -> None:
        self._prices = prices
        self._marks: dict[str, int] = {}
        self._place = ""
        """Id after which the next part begins."""

    def look(self, session: Session, only: Sequence[str] | None = None) -> Look:
        """Look at these workers, or at all."""
        if only is None:
            rows = session.execute(_TAKING, execution_options={"yield_per": _PAGE})
        else:
            rows = session.execute(_SOME, {"ids": list(only)})
        known = self._marks.keys() if only is None else self._marks.keys() & set(only)
        return self._compare(rows, known, faulty_slots.cordoned(session, only))

    def look_on(self, session: Session, parts: int) -> Look:
        """Look at the next part of all; after so many such looks all were looked at."""
        after, most = self._place, max(_LEAST, ceil(len(self._marks) / parts))
        rows = session.execute(_PART, {"after": after, "most": most}).all()
        self._place = rows[-1].id if len(rows) == most else ""
        last = self._place
        known = {each for each in self._marks if each > after and (not last or each <= last)}
        faulty = faulty_slots.cordoned(session, [row.id for row in rows])
        return self._compare(rows, known, faulty)

    def _compare(
        self,
        rows: Iterable[Any],
        known: Iterable[str],
        faulty: Mapping[str, Sequence[FaultySlot]],
    ) -> Look:
        """What changed in these rows, which are all that there are of those that are known."""
        before = set(known)
        changed: list[WorkerCapacity] = []
        taking: set[str] = set()
        for row in rows:
            taking.add(row.id)
            faults = faulty.get(row.id, ())
            mark = hash((*row, *faults))
            if self._marks.get(row.id) != mark:
                self._marks[row.id] = mark
                changed.append(_capacity(row, self._prices, faults))
        for gone in before - taking:
            del self._marks[gone]
        return Look(changed, before - taking)


def _capacity(row: Any, prices: SlotPrices, faulty: Iterable[FaultySlot]) -> WorkerCapacity:
    inventory = json.loads(row.inventory)
    labels = {**json.loads(row.own_labels), **json.loads(row.set_labels)}
    provider = labels.get("provider", STATIC)
    slots = {slot["index"]: _shared(SlotKind.told(slot)) for slot in inventory["slots"]}
    costs = {index: prices.of(kind.accelerator, provider) for index, kind in slots.items()}
    dearest = max(costs.values())
    models = map(base_content, inventory.get("cached_models", ()))
    holds = frozenset([*inventory.get("cached", ()), *models])
    taken = {each["index"]: each["message"] for each in _busy(inventory)}
    taken |= {each.index: f"failed again and again: {each.message}" for each in faulty}
    busy = {index: (kind, taken[index]) for index, kind in slots.items() if index in taken}
    offered = {index: kind for index, kind in slots.items() if index not in taken}
    room = inventory.get("condition", {}).get("content_room_gb")
    return WorkerCapacity(
        row.id,
        offered,
        labels,
        provider,
        dearest,
        holds,
        row.name,
        busy,
        float("inf") if room is None else room,
        {index: price for index, price in costs.items() if price < dearest},
    )


def _busy(inventory: dict[str, Any]) -> list[dict[str, Any]]:
    """The slots that somebody who is no job uses; see ``Condition``."""
    found: list[dict[str, Any]] = inventory.get("condition", {}).get("busy", [])
    return found


@lru_cache(maxsize=1000)
def _shared(kind: SlotKind) -> SlotKind:
    """One object for equal kinds: thousands of workers have the same."""
    return kind
