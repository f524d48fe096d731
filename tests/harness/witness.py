"""Stands between workers and a controller, and holds what passes to the contract."""

import gzip
import json
import re
from collections.abc import Iterator

from st_shared.protocol.endpoints import ENDPOINTS, PREFIX, STREAM_EVENTS, Endpoint
from st_shared.protocol.journal import journal_event
from st_shared.protocol.sse import EventReader


class Witness:
    """Stands before the application and notes what was called, answered and streamed."""

    def __init__(self) -> None:
        self.succeeded: set[str] = set()
        """Paths of endpoints that were called and answered as the contract says."""
        self.streamed: set[str] = set()
        """Names of events that streams brought."""
        self.journalled: set[str] = set()
        """Kinds of journal lines that the controller took."""
        self.wrong: list[str] = []

    def before(self, app):
        async def witnessed(scope, receive, send):
            if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
                await app(scope, receive, send)
                return
            await self._watch(app, scope, receive, send)

        return witnessed

    async def _watch(self, app, scope, receive, send) -> None:
        endpoint = endpoint_of(scope["method"], scope["path"])
        if endpoint is None:
            self.wrong.append(f"{scope['method']} {scope['path']} is not in the contract")
        asked, answered, status = bytearray(), bytearray(), [0]
        reader = EventReader()

        async def listen():
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def tell(message):
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            elif endpoint is not None and endpoint.is_stream and status[0] == 200:
                self._note_events(reader, message.get("body", b""))
                self.succeeded.add(endpoint.path)
            else:
                answered.extend(message.get("body", b""))
            await send(message)

        await app(scope, listen, tell)
        if endpoint is not None and not endpoint.is_stream and 200 <= status[0] < 300:
            packed = dict(scope["headers"]).get(b"content-encoding") == b"gzip"
            body = gzip.decompress(bytes(asked)) if packed else bytes(asked)
            self._note_call(endpoint, body, bytes(answered), status[0])

    def _note_call(self, endpoint: Endpoint, asked: bytes, answered: bytes, status: int) -> None:
        problems = [
            *differences("body", endpoint.body, asked),
            *differences("answer", endpoint.answer, answered),
            *([f"status {status}"] if status != endpoint.status else []),
        ]
        self.wrong += [f"{endpoint.path}: {problem}" for problem in problems]
        if not problems:
            self.succeeded.add(endpoint.path)
            if "events" in (endpoint.body.model_fields if endpoint.body else ()):
                self._note_lines(json.loads(asked)["events"])

    def _note_lines(self, lines: list[dict[str, object]]) -> None:
        for line in lines:
            try:
                self.journalled.add(journal_event.validate_python(line).kind)
            except ValueError as error:
                self.wrong.append(f"a journal line that is none: {error}")

    def _note_events(self, reader: EventReader, piece: bytes) -> None:
        for event in reader.read(piece.decode().split("\n")):
            kind = STREAM_EVENTS.get(event.event)
            if kind is None:
                self.wrong.append(f"the event {event.event} is not in the contract")
                continue
            self.wrong += differences(f"event {event.event}", kind, event.data.encode())
            self.streamed.add(event.event)


def endpoint_of(method: str, path: str) -> Endpoint | None:
    for endpoint in ENDPOINTS:
        pattern = re.sub(r"{\w+}", "[^/]+", PREFIX + endpoint.path)
        if endpoint.method == method and re.fullmatch(pattern, path):
            return endpoint
    return None


def differences(what: str, model, raw: bytes) -> Iterator[str]:
    """How bytes differ from a model of the contract: keys that it lacks, or a value it refuses."""
    if model is None:
        if raw:
            yield f"the {what} should be empty"
        return
    try:
        model.model_validate_json(raw)
        unknown = set(json.loads(raw)) - set(model.model_fields)
    except ValueError as error:
        yield f"the {what} is no {model.__name__}: {error}"
        return
    if unknown:
        yield f"the {what} has {sorted(unknown)}, which {model.__name__} has not"
