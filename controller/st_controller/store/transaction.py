"""One unit of change: rows, audit entries and outbox events that are committed together."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.orm import Session as OrmSession

from st_controller.store.bulk import insert_together
from st_controller.store.places import AUDIT, EVENTS, Places, RowOfEvent

CREDENTIALS = "credentials"
"""Topic that says that a credential of some person, or what it permits, has ended."""
CREDENTIALS_OF = "credentials/worker/"
"""Before a worker's id: topic that says that a credential of this worker has ended."""
OUTBOX = "outbox"
"""Topic that wakes the relay."""
QUEUE = "queue"
"""Topic that wakes the scheduler."""
QUEUE_JOB = "queue/job/"
"""Before a job's id: topic that tells the scheduler which job changed."""
QUEUE_WORKER = "queue/worker/"
"""Before a worker's id: topic that tells the scheduler which worker changed."""
FLEET_LESS = "fleet/less"
"""Topic that says that a worker went for good, or has other slots or labels than before."""
QUEUE_RULES = "queue/rules"
"""Topic that tells the scheduler that its policy, a share or a cap changed."""
QUEUE_RELOAD = "queue/reload"
"""Topic that tells the scheduler that many jobs changed at once."""


class Closing(Protocol):
    """Something that is gathered in a transaction and written at its end."""

    def write(self, tx: "Transaction") -> None:
        """Write it; what this raises undoes the transaction."""


class Transaction:
    """A session, the moment at which it happens, and what it will tell whom.

    ``topics`` is announced after the commit and never before, so nobody looks too early.
    """

    def __init__(self, session: OrmSession, now: datetime) -> None:
        self.session = session
        self.now = now
        self.topics: set[str] = set()
        self.events: list[RowOfEvent] = []
        """What was emitted and is not written yet; it is at the end, together."""
        self.placed: list[RowOfEvent] = []
        """Events that got their places in this transaction, without gaps."""
        self.closing: dict[str, Closing] = {}
        """What many have a part in and is written once, before the events: whoever locks rows there
        locks them last, in one order."""
        self._audit: list[dict[str, Any]] = []

    def emit(self, topic: str, kind: str, body: dict[str, Any]) -> None:
        """Send an event to everybody who follows ``topic``, durably and in order."""
        self.emit_all(topic, kind, [body])

    def emit_all(self, topic: str, kind: str, bodies: Iterable[dict[str, Any]]) -> None:
        """Send many events to everybody who follows ``topic``, in this order."""
        self.events += [
            {"topic": topic, "kind": kind, "body": body, "created_at": self.now, "position": None}
            for body in bodies
        ]

    def wake(self, topic: str) -> None:
        """Say that ``topic`` has news in tables that its followers read themselves."""
        self.topics.add(topic)

    def audit(self, actor: str, action: str, target: str, **details: Any) -> None:
        """Record who did what; ``details`` is JSON and holds no secret."""
        self.audit_all(actor, action, [(target, details)])

    def audit_all(
        self, actor: str, action: str, entries: Iterable[tuple[str, dict[str, Any]]]
    ) -> None:
        """Record one action on many targets, each with its details."""
        self._audit += [
            {"at": self.now, "actor": actor, "action": action, "target": target, "details": details}
            for target, details in entries
        ]

    def settle(self, places: Places | None) -> None:
        """Write all that is not written yet; the last thing before the commit.

        Events get their places from ``places``; without it, from the relay after the commit.
        """
        for closing in self.closing.values():
            closing.write(self)
        self.session.flush()
        connection = self.session.connection()
        entries, self._audit = self._audit, []
        events, self.events = self.events, []
        if places is None:
            insert_together(connection, (AUDIT, entries), (EVENTS, events))
            self.topics.update([OUTBOX] if events else [])
            return
        places.write(connection, entries, events)
        self.placed += events
        self.topics.update(event["topic"] for event in events)
