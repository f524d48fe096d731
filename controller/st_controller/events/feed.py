"""The newest events in memory, so that not every follower asks the database for them."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from threading import Lock

from st_controller.services.outbox import PlacedEvent
from st_controller.store.places import RowOfEvent

MOST = 8192
"""Events that are kept."""


class EventFeed:
    """An unbroken stretch of the global order: whatever got a place in it is here.

    It grows by what this process placed itself. Where another process placed something in between,
    the stretch begins anew behind the gap.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = Lock()
        self._topics: deque[str] = deque()
        """Topics of all events that are here, oldest first."""
        self._events: dict[str, deque[PlacedEvent]] = defaultdict(deque)
        self._begins = 1
        """Place of the first event that is here."""
        self._ends: int | None = None
        """Place of the last one; none: nothing is here yet."""

    def take(self, rows: Sequence[RowOfEvent]) -> None:
        """Add committed events, in the order of their places and without gaps; from any thread.

        A stretch that comes late, after the one behind it, is left out: the database has it.
        """
        with self._lock:
            if self._ends is not None and rows[0]["position"] <= self._ends:
                return
            if self._ends is None or rows[0]["position"] != self._ends + 1:
                self._topics.clear()
                self._events.clear()
                self._begins = rows[0]["position"]
            for row in rows:
                self._topics.append(row["topic"])
                self._events[row["topic"]].append(
                    PlacedEvent(row["position"], row["kind"], row["body"])
                )
            self._ends = rows[-1]["position"]
            while len(self._topics) > self._most:
                self._drop_oldest()

    def after(self, topics: Iterable[str], place: int) -> list[PlacedEvent]:
        """Events of these topics after ``place``, in order; every one up to the last of them.

        Empty where there are none, and where the database has to be asked.
        """
        with self._lock:
            if place < self._begins - 1:
                return []
            found = [
                event
                for topic in topics
                for event in self._events.get(topic, ())
                if event.position > place
            ]
        return sorted(found, key=lambda event: event.position)

    def _drop_oldest(self) -> None:
        topic = self._topics.popleft()
        events = self._events[topic]
        events.popleft()
        if not events:
            del self._events[topic]
        self._begins += 1
