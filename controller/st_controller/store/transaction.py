"""One unit of change: rows, audit entries and outbox events that are committed together."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session as OrmSession

from st_controller.store.schema import AuditEntry, OutboxEvent

OUTBOX = "outbox"
"""Topic that wakes the relay."""
QUEUE = "queue"
"""Topic that wakes the scheduler."""


class Transaction:
    """A session, the moment at which it happens, and what it will tell whom.

    ``topics`` is announced after the commit and never before, so nobody looks too early.
    """

    def __init__(self, session: OrmSession, now: datetime) -> None:
        self.session = session
        self.now = now
        self.topics: set[str] = set()

    def emit(self, topic: str, kind: str, body: dict[str, Any]) -> None:
        """Send an event to everybody who follows ``topic``, durably and in order."""
        self.session.add(
            OutboxEvent(topic=topic, kind=kind, body=body, created_at=self.now, position=None)
        )
        self.topics.add(OUTBOX)

    def wake(self, topic: str) -> None:
        """Say that ``topic`` has news in tables that its followers read themselves."""
        self.topics.add(topic)

    def audit(self, actor: str, action: str, target: str, **details: Any) -> None:
        """Record who did what; ``details`` is JSON and holds no secret."""
        self.session.add(
            AuditEntry(at=self.now, actor=actor, action=action, target=target, details=details)
        )
