from st_shared.protocol import sse
from st_shared.protocol.sse import EventReader, ServerSentEvent


def test_what_is_encoded_is_read_back() -> None:
    raw = sse.encode("log", '{"a":1}', "7") + sse.PING + sse.encode("state", "{}")

    events = list(EventReader().read(raw.decode().split("\n")))

    assert events == [
        ServerSentEvent("log", '{"a":1}', "7"),
        ServerSentEvent("state", "{}", "7"),
    ]


def test_an_event_is_complete_only_at_its_empty_line() -> None:
    reader = EventReader()

    assert reader.feed("id: 7") is None
    assert reader.feed("event: log") is None
    assert reader.feed("data: half") is None
    assert reader.last_id is None

    assert reader.feed("") == ServerSentEvent("log", "half", "7")
    assert reader.last_id == "7"


def test_several_data_lines_are_joined() -> None:
    lines = ["data: a", "data:b", ""]

    assert list(EventReader().read(lines)) == [ServerSentEvent("message", "a\nb", None)]
