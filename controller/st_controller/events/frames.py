"""Journal lines as events of a job's stream."""

import json
from dataclasses import dataclass

from st_controller.services.journal_reading import JournalLine


@dataclass(frozen=True)
class Frame:
    """Name and JSON of one event."""

    event: str
    data: str


def frame_of(line: JournalLine) -> Frame:
    """The event that tells of a journal line: its kind, and its fields with the attempt."""
    fields = {key: value for key, value in line.body.items() if key != "kind"}
    body = json.dumps({"attempt": line.attempt, **fields}, separators=(",", ":"))
    return Frame(line.body["kind"], body)
