"""What a report tells of a run, gathered from its journal in bounded memory."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from st_shared.protocol.journal import JournalEvent, LogEvent, MetricEvent, journal_event
from st_trainer.history import LossHistory

_MOST_REMARKS = 100
_MOST_METRICS = 128
"""Metrics by name that are drawn; further ones are counted only."""


@dataclass(frozen=True)
class Remark:
    """A line of the log that a reader of the report should see."""

    at: datetime
    level: str
    text: str


@dataclass
class Record:
    """What has happened so far."""

    metrics: dict[str, LossHistory] = field(default_factory=dict)
    """Each metric over the steps, in the order in which they first came."""
    remarks: deque[Remark] = field(default_factory=lambda: deque(maxlen=_MOST_REMARKS))
    """Warnings, errors, and what scripts did; the newest."""
    began: datetime | None = None
    latest: datetime | None = None
    metrics_left_out: int = 0

    def hear(self, event: JournalEvent) -> None:
        """Take ``event`` in."""
        self.began = self.began or event.at
        self.latest = event.at
        if isinstance(event, MetricEvent):
            for name, value in event.values.items():
                self._add(name, event.step, value)
        elif isinstance(event, LogEvent) and _is_remark(event):
            self.remarks.append(Remark(event.at, event.level, event.message))

    def read(self, journal: Path) -> None:
        """Take in what earlier processes of the run have written."""
        if not journal.is_file():
            return
        with journal.open("rb") as lines:
            for line in lines:
                self.hear(journal_event.validate_json(line))

    def points(self, name: str) -> list[tuple[int, float]]:
        """``(step, value)`` of a metric, oldest first."""
        return self.metrics[name].points if name in self.metrics else []

    def begin_with(self, name: str, points: Iterable[tuple[int, float]]) -> None:
        """Take in what a checkpoint of a run in another folder brought along."""
        if name not in self.metrics:
            for step, value in points:
                self._add(name, step, value)

    def _add(self, name: str, step: int, value: float) -> None:
        if name not in self.metrics and len(self.metrics) >= _MOST_METRICS:
            self.metrics_left_out += 1
            return
        self.metrics.setdefault(name, LossHistory()).add(step, value)


def _is_remark(event: LogEvent) -> bool:
    own = event.message.startswith(("hooks.", "validation.script", "resumed ", "publish."))
    return event.level in {"warning", "error"} or own
