import asyncio

import httpx
import pytest

from st_worker.client import Controller
from st_worker.errors import Refused
from st_worker.settings import AgentSettings
from st_worker.stream import Stream

pytestmark = pytest.mark.anyio


class Pieces(httpx.AsyncByteStream):
    def __init__(self, *pieces):
        self._pieces = pieces

    async def __aiter__(self):
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


STREAM = {"content-type": "text/event-stream; charset=utf-8"}


def problem(status, code):
    return httpx.Response(status, json={"title": "", "status": status, "detail": "", "code": code})


async def _followed(settings, *answers):
    """Events taken and ids sent until the answers run out, whereupon the credential is void."""
    left, ids, taken = list(answers), [], []

    def handle(request: httpx.Request) -> httpx.Response:
        ids.append(request.headers.get("last-event-id"))
        if not left:
            return problem(401, "bad_worker_credential")
        answer = left.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, headers=STREAM, stream=answer)

    controller = Controller("http://c", settings, transport=httpx.MockTransport(handle))
    stream = Stream(controller, settings, lambda event: taken.append((event.event, event.data)))
    with pytest.raises(Refused):
        await asyncio.wait_for(stream.run(), 120)
    await controller.close()
    return taken, ids


async def test_event_cut_in_the_middle_is_asked_for_again(agent_settings):
    cut = httpx.ReadError("cut")
    taken, ids = await _followed(
        agent_settings,
        Pieces(b"id: 1\nevent: offer\ndata: a\n\nid: 2\nevent: offer\ndata: ", cut),
        Pieces(b": ping\n\nid: 2\nevent: offer\ndata: b\n\n"),
    )
    assert taken == [("offer", "a"), ("offer", "b")]
    assert ids == [None, "1", "2"]


async def test_id_that_is_refused_is_dropped(agent_settings):
    taken, ids = await _followed(
        agent_settings,
        Pieces(b"id: 9\nevent: stop\ndata: a\n\n"),
        httpx.Response(503),
        problem(410, "no_such_id"),
        Pieces(b"event: sync\ndata: b\n\n"),
    )
    assert taken == [("stop", "a"), ("sync", "b")]
    assert ids == [None, "9", "9", None, None]


async def test_pages_of_proxies_are_no_streams_and_cost_no_place(agent_settings):
    taken, ids = await _followed(
        agent_settings,
        Pieces(b"id: 9\nevent: stop\ndata: a\n\n"),
        httpx.Response(200, text="event: stop\ndata: b\n\n"),
        httpx.Response(404, text="default backend - 404"),
        Pieces(b"id: 10\nevent: stop\ndata: c\n\n"),
    )
    assert taken == [("stop", "a"), ("stop", "c")]
    assert ids == [None, "9", "9", "9", "10"]


@pytest.mark.parametrize(("steady", "beginnings"), [(3600.0, 1), (0.0, 4)])
async def test_pauses_grow_until_a_connection_has_lasted(agent_settings, steady, beginnings):
    """What is cut each time it has brought something, as by a proxy, is not asked all the time."""
    begun = []

    class Counted(AgentSettings):
        def pauses(self):
            begun.append(self)
            return iter([0.0] * 10)

    settings = Counted(**(vars(agent_settings) | {"steady_stream_seconds": steady}))
    taken, ids = await _followed(
        settings, *(Pieces(b"id: %d\nevent: stop\ndata: a\n\n" % number) for number in range(3))
    )
    assert (len(taken), ids) == (3, [None, "0", "1", "2"])
    assert len(begun) == beginnings
