from datetime import UTC, datetime

import httpx
import pytest

from st_client.client import Client
from st_client.errors import ClientError, ForbiddenError, UnreachableError
from st_client.events import ProgressUpdate
from st_shared.protocol import sse
from st_shared.protocol.resources import LogLine, StateChange

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def line(seq, message="hello"):
    return LogLine(attempt=1, seq=seq, at=NOW, level="info", message=message)


def log(seq, message="hello"):
    return sse.encode("log", line(seq, message).model_dump_json(), f"l{seq}")


def state(version, name):
    change = StateChange(version=version, state=name, at=NOW, reason=None)
    return sse.encode("state", change.model_dump_json(), f"s{version}")


class Broken(httpx.SyncByteStream):
    """Pieces of a stream, then the connection breaks off."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def __iter__(self):
        yield from self.pieces
        raise httpx.ReadError("connection reset")


class Script:
    """Answers each request with the next of its replies."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []

    def __call__(self, request):
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, int):
            return httpx.Response(reply)
        if isinstance(reply, Broken):
            return httpx.Response(200, stream=reply)
        return httpx.Response(200, content=reply)

    @property
    def last_event_ids(self):
        return [request.headers.get("last-event-id") for request in self.requests]


def follow(script, pauses=None, reasons=None):
    pauses = [] if pauses is None else pauses
    reasons = [] if reasons is None else reasons
    with Client(
        "http://st.test", "key", transport=httpx.MockTransport(script), sleep=pauses.append
    ) as client:
        return list(client.events("job_1", on_reconnect=reasons.append))


def test_gives_every_event_until_the_final_state():
    script = Script(state(1, "queued") + b": ping\n\n" + log(1) + state(2, "succeeded"))
    events = follow(script)
    assert [type(event) for event in events] == [StateChange, LogLine, StateChange]
    assert script.requests[0].headers["authorization"] == "Bearer key"
    assert script.last_event_ids == [None]


def test_a_job_that_was_retried_is_followed_past_its_first_end():
    script = Script(state(1, "failed") + state(2, "queued") + log(1) + state(3, "succeeded"))
    events = follow(script)
    assert [event.state for event in events if isinstance(event, StateChange)] == [
        "failed",
        "queued",
        "succeeded",
    ]


def test_a_stream_that_breaks_off_after_the_final_state_is_not_opened_again():
    script = Script(Broken(log(1) + state(2, "failed")))
    assert len(follow(script)) == 2


def test_reconnects_after_the_last_whole_event_and_repeats_nothing():
    script = Script(
        Broken(log(1) + log(2) + b"id: l3\nevent: log\nda"),
        httpx.ConnectError("refused"),
        503,
        Broken(log(2) + log(3)),
        log(4),
        state(9, "failed"),
    )
    pauses, reasons = [], []
    events = follow(script, pauses, reasons)
    assert [event.seq for event in events[:-1]] == [1, 2, 3, 4]
    assert script.last_event_ids == [None, "l2", "l2", "l2", "l3", "l4"]
    assert pauses == [0.5, 1.0, 2.0, 0.5, 0.5]
    assert len(reasons) == 5
    assert "connection reset" in reasons[0]
    assert "refused" in reasons[1]


def test_pauses_have_an_upper_bound():
    script = Script(log(1), *[httpx.ConnectError("no")] * 6, state(1, "succeeded"))
    pauses = []
    follow(script, pauses)
    assert pauses == [0.5, 1, 2, 4, 5, 5, 5]


def test_the_first_connection_must_succeed():
    with pytest.raises(UnreachableError):
        follow(Script(httpx.ConnectError("refused")))


def test_a_refusal_ends_the_following():
    with pytest.raises(ForbiddenError):
        follow(Script(Broken(log(1)), 401))


def test_pieces_may_break_anywhere_and_lines_only_at_line_feeds():
    data = log(1, "é\u2028 \x85 \r") + state(1, "succeeded")
    script = Script(Broken(*(data[index : index + 1] for index in range(len(data)))))
    events = follow(script)
    assert events[0].message == "é\u2028 \x85 \r"


def test_kinds_of_the_future_are_passed_over():
    script = Script(sse.encode("telepathy", "{}") + state(1, "succeeded"))
    assert len(follow(script)) == 1


def test_an_event_of_another_shape_is_an_error():
    with pytest.raises(ClientError, match="another shape"):
        follow(Script(sse.encode("log", "{}")))


def test_progress_is_typed():
    data = '{"attempt":1,"seq":3,"at":"2026-01-01T00:00:00Z","phase":"training","step":1,"steps":2}'
    events = follow(Script(sse.encode("progress", data) + state(1, "succeeded")))
    assert isinstance(events[0], ProgressUpdate)
    assert (events[0].step, events[0].loss) == (1, None)
