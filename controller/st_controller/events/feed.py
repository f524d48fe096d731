"""The newest events in memory, so that not every follower asks the database for them."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

from st_controller.services.outbox import PlacedEvent
from st_controller.store.places import RowOfEvent

MOST = 8192
"""Events that are kept."""


class Stretch(NamedTuple):
    """What a follower missed."""

    events: list[PlacedEvent]
    upto: int
    """Place up to which these are all that there are for it."""


class EventFeed:
    """An unbroken stretch of the global order: whatever got a place in it is here.

    It grows by what this process placed itself and by what others placed, as ``events/tail.py``
    reads it. Before that has begun, and after it has ended, nothing is to be read here.
    """

    def __init__(self, most: int = MOST) -> None:
        self.is_tailed = False
        """Whether somebody fills its gaps, so that what is not here is not placed."""
        self._most = most
        self._lock = Lock()
        self._order: deque[tuple[int, str]] = deque()
        """Place and topic of all events that are here, oldest first."""
        self._events: dict[str, deque[PlacedEvent]] = defaultdict(deque)
        self._begins = 1
        """Place of the first event that is here."""
        self._ends: int | None = None
        """Place of the last one; none: nothing is here yet."""

    @property
    def ends(self) -> int | None:
        """Place of its last event, or where it was begun; none: it was not yet."""
        return self._ends

    def begin(self, place: int) -> None:
        """Begin after a place, unless it has begun already; before that it takes nothing."""
        with self._lock:
            if self._ends is None:
                self._begins, self._ends = place + 1, place

    def take(self, rows: Sequence[RowOfEvent], *, are_next: bool = False) -> bool:
        """Add committed events, in the order of their places and without gaps; from any thread.

        What is here already is left out. False: there is a gap before them, which whoever tails
        the feed has to fill; they are left out as well. ``are_next``: they are what the database
        has after the end of the feed, so what a gap would hold was lost in a crash.
        """
        with self._lock:
            if self._ends is None:
                return False
            fresh = [row for row in rows if row["position"] > self._ends]
            if not fresh:
                return True
            if not are_next and fresh[0]["position"] != self._ends + 1:
                return False
            for row in fresh:
                self._order.append((row["position"], row["topic"]))
                self._events[row["topic"]].append(
                    PlacedEvent(row["position"], row["kind"], row["body"])
                )
            self._ends = fresh[-1]["position"]
            while len(self._order) > self._most:
                self._drop_oldest()
            return True

    def after(self, topics: Iterable[str], place: int) -> Stretch | None:
        """Events of these topics after ``place``, in order; none: the database has to be asked."""
        with self._lock:
            if not self.is_tailed or self._ends is None or place < self._begins - 1:
                return None
            found = [
                event
                for topic in topics
                for event in self._events.get(topic, ())
                if event.position > place
            ]
            upto = self._ends
        return Stretch(sorted(found, key=lambda event: event.position), upto)

    def _drop_oldest(self) -> None:
        place, topic = self._order.popleft()
        events = self._events[topic]
        events.popleft()
        if not events:
            del self._events[topic]
        self._begins = place + 1
