"""Audit entries as lines of a file."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Literal

from st_shared.protocol.audit import AuditEntryView

Format = Literal["jsonl", "csv"]
COLUMNS = ("id", "place", "at", "actor", "action", "target", "details", "code")


def lines(entries: Iterable[AuditEntryView], form: Format) -> Iterator[str]:
    """The file, line by line, each with its end."""
    if form == "jsonl":
        for entry in entries:
            yield entry.model_dump_json() + "\n"
        return
    yield _row(COLUMNS)
    for entry in entries:
        told = entry.model_dump(mode="json")
        told["details"] = json.dumps(told["details"], sort_keys=True, ensure_ascii=False)
        yield _row([_cell(told[name]) for name in COLUMNS])


def _cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _row(cells: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()
