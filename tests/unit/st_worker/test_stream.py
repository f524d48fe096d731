import asyncio

import httpx
import pytest

from st_worker.client import Controller
from st_worker.errors import Refused
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


async def _followed(settings, *answers):
    """Events taken and ids sent until the answers run out, whereupon the credential is void."""
    left, ids, taken = list(answers), [], []

    def handle(request: httpx.Request) -> httpx.Response:
        ids.append(request.headers.get("last-event-id"))
        if not left:
            return httpx.Response(401)
        answer = left.pop(0)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, stream=answer)

    controller = Controller("http://c", settings, transport=httpx.MockTransport(handle))
    stream = Stream(controller, settings, lambda event: taken.append((event.event, event.data)))
    with pytest.raises(Refused):
        await asyncio.wait_for(stream.run(), 10)
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
        httpx.Response(410),
        Pieces(b"event: sync\ndata: b\n\n"),
    )
    assert taken == [("stop", "a"), ("sync", "b")]
    assert ids == [None, "9", "9", None, None]
