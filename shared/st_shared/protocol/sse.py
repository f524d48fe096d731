"""Server-sent events (WHATWG HTML, section 9.2): text written and read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PING = b": ping\n\n"
"""A comment that keeps proxies from closing an idle stream."""


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a stream."""

    event: str
    data: str
    id: str | None = None


def encode(event: str, data: str, id: str | None = None) -> bytes:
    """The bytes of one event; ``data`` is JSON without raw line breaks."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {event}\ndata: {data}\n\n".encode()


class EventReader:
    """Turns lines of a stream into events; ``last_id`` is that of the last complete one."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._id: str | None = None
        self._event = ""
        self._data: list[str] = []

    def feed(self, line: str) -> ServerSentEvent | None:
        """Take one line without its break; give the event that an empty line completes."""
        if not line:
            return self._complete()
        if line.startswith(":"):
            return None
        field, _, value = line.partition(":")
        self._take(field, value.removeprefix(" "))
        return None

    def read(self, lines: Iterable[str]) -> Iterator[ServerSentEvent]:
        """All complete events of ``lines``."""
        for line in lines:
            event = self.feed(line)
            if event is not None:
                yield event

    def _take(self, field: str, value: str) -> None:
        if field == "event":
            self._event = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value

    def _complete(self) -> ServerSentEvent | None:
        # A stream that is cut between an id and the end of its event must bring that event again.
        event, data = self._event or "message", self._data
        self._event, self._data, self.last_id = "", [], self._id
        return ServerSentEvent(event, "\n".join(data), self.last_id) if data else None
