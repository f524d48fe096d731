"""What a request makes the database read: its statements, and how each is answered."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import current_thread
from typing import Any

from sqlalchemy import Engine, event

from st_controller.store.database import Database

_PLAIN = re.compile(r"^\s*(SELECT|WITH)\b", re.IGNORECASE)
_WHOLE = re.compile(r"SCAN (?!CONSTANT|json_each|anon)(\w+)$")
_STEPS = 100
"""Steps of SQLite's machine between two counts; a row takes about ten."""
_OF_REQUESTS = "AnyIO"
"""How threads are named that requests are answered in; the leader works in others."""


@dataclass
class Reading:
    """What the statements of one request read."""

    statements: int = 0
    rows: int = 0
    """Looked at, not only given back; of SQLite steps of its machine by ten."""
    whole: set[str] = field(default_factory=set)
    """Tables that were read from one end to the other."""


class Watch:
    """Notes the statements of a process while it is told to."""

    def __init__(self, db: Database) -> None:
        self._engine: Engine = db.engine
        self._is_sqlite = db.is_sqlite
        self._noted: list[tuple[str, Any]] | None = None
        event.listen(self._engine, "before_cursor_execute", self._note)

    def begin(self) -> None:
        """Note what is asked from now on."""
        self._noted = []

    def end(self) -> Reading:
        """Ask the same again, and say what that took."""
        noted, self._noted = self._noted or [], None
        found = Reading(statements=len(noted))
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            for statement, values in noted:
                if _PLAIN.match(statement) and " INTO " not in statement[:40]:
                    (self._sqlite if self._is_sqlite else self._postgresql)(
                        raw, statement, values, found
                    )
        return found

    def _note(self, _connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if self._noted is not None and current_thread().name.startswith(_OF_REQUESTS):
            self._noted.append((statement, values))

    def _sqlite(self, raw: Any, statement: str, values: Any, found: Reading) -> None:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values):
            if scan := _WHOLE.match(row[3]):
                found.whole.add(scan[1])
        raw.set_progress_handler(count, _STEPS)
        try:
            raw.execute(statement, values).fetchall()
        finally:
            raw.set_progress_handler(None, 0)
        found.rows += steps * _STEPS // 10

    def _postgresql(self, raw: Any, statement: str, values: Any, found: Reading) -> None:
        asked = statement.replace(" FOR UPDATE", "").replace(" FOR SHARE", "")
        with raw.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {asked}", values)
            (plan,) = cursor.fetchone()
        tree = plan if isinstance(plan, list) else json.loads(plan)
        for node in _nodes(tree[0]["Plan"]):
            if "Relation Name" not in node:
                continue
            loops = node["Actual Loops"]
            removed = node.get("Rows Removed by Filter", 0)
            removed += node.get("Rows Removed by Index Recheck", 0)
            found.rows += round((node["Actual Rows"] + removed) * loops)
            if node["Node Type"] == "Seq Scan":
                found.whole.add(node["Relation Name"])
        raw.rollback()


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
