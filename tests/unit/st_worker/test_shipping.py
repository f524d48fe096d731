"""Exactly once, whatever the controller answers: pure units over a mock transport."""

import errno
import gzip
import json

import httpx
import pytest

from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState
from st_shared.protocol.worker import Lease
from st_worker.client import Controller
from st_worker.errors import StaleLease
from st_worker.folder import AttemptFolder
from st_worker.journal import Cursor, Journal
from st_worker.shipping import Shipping

pytestmark = pytest.mark.anyio

LINE = '{{"seq":{seq},"at":"2026-01-01T00:00:00Z","kind":"log","message":"hello"}}'


@pytest.fixture
def ship(tmp_path, agent_settings):
    """Ships a journal of ``count`` lines to ``answer``; gives the shipping and what was sent."""

    async def run(count, answer, *, states=()):
        folder = AttemptFolder(tmp_path / "attempt")
        folder.create()
        folder.journal.write_text("".join(LINE.format(seq=n + 1) + "\n" for n in range(count)))
        batches = []

        def handle(request: httpx.Request) -> httpx.Response:
            batches.append(json.loads(opened(request)))
            return answer(batches)

        controller = Controller(
            "http://controller", agent_settings, transport=httpx.MockTransport(handle)
        )
        stops = []
        shipping = Shipping(
            controller,
            Lease(attempt_id=new_id("att"), epoch=3),
            folder,
            Journal(folder.journal),
            start=0,
            poll_seconds=0.01,
            on_stop=stops.append,
        )
        for state in states:
            shipping.tell(state)
        shipping.seal()
        try:
            await shipping.run()
        finally:
            await controller.close()
        return shipping, batches, stops, folder

    return run


def opened(request: httpx.Request) -> bytes:
    is_packed = request.headers.get("content-encoding") == "gzip"
    return gzip.decompress(request.content) if is_packed else request.content


def _ack(seq, **more):
    return httpx.Response(200, json={"acked_seq": seq, **more})


def _problem(status, code, **more):
    document = {"title": code, "status": status, "detail": code, "code": code, **more}
    return httpx.Response(status, json=document)


async def test_place_moves_to_what_was_acknowledged(ship):
    shipping, batches, stops, folder = await ship(5, lambda _: _ack(5, stop="preempt"))
    assert (len(batches), batches[0]["epoch"], stops) == (1, 3, ["preempt"])
    assert shipping.acked_seq == 5
    assert Cursor.load(folder.shipped) == Journal(folder.journal).end()


async def test_state_goes_without_lines_too(ship):
    _, batches, _, _ = await ship(0, lambda _: _ack(0), states=[AttemptState.UPLOADING])
    assert batches == [{"epoch": 3, "state": "uploading", "used_seconds": None, "events": []}]


async def test_gap_sends_again_from_where_the_controller_is(ship):
    def answer(batches):
        sent = [event["seq"] for event in batches[-1]["events"]]
        if len(batches) == 2:
            return _problem(409, "sequence_gap", acked_seq=2)
        return _ack(sent[-1])

    _, batches, _, _ = await ship(600, answer)
    numbers = [[event["seq"] for event in batch["events"]] for batch in batches]
    assert [(batch[0], batch[-1]) for batch in numbers] == [
        (1, 500),
        (501, 600),
        (3, 502),
        (503, 600),
    ]


async def test_acknowledgement_of_less_or_more_is_believed(ship):
    answers = {1: 4, 2: 9}
    _, batches, _, _ = await ship(10, lambda sent: _ack(answers.get(len(sent), 10)))
    assert [batch["events"][0]["seq"] for batch in batches] == [1, 5, 10]


async def test_stale_lease_is_raised_at_once(ship):
    with pytest.raises(StaleLease):
        await ship(1, lambda _: _problem(409, "stale_lease"))


async def test_a_place_that_the_full_disk_does_not_keep_stops_nothing(ship, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Cursor, "save", full)
    shipping, batches, _, _ = await ship(600, lambda sent: _ack(sent[-1]["events"][-1]["seq"]))
    assert (shipping.acked_seq, len(batches)) == (600, 2)


async def test_every_acknowledgement_is_told(ship):
    shipping, _, _, folder = await ship(3, lambda _: _ack(3))
    assert shipping.offset == folder.journal.stat().st_size
