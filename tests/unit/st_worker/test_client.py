import asyncio
import io
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from st_shared.ids import new_id
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import ArtifactsStored, FinishRequest, Heartbeat
from st_worker import client
from st_worker.client import Controller
from st_worker.errors import (
    OfferGone,
    Refused,
    RequestRefused,
    SequenceGap,
    StrangeAnswer,
    TemporaryTrouble,
)
from st_worker.serve import describe
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

pytestmark = pytest.mark.anyio


@pytest.fixture
def description(state_folder):
    return describe(state_folder, "tester", 1, {}, False)


FINISH = FinishRequest(epoch=1, outcome=Outcome.SUCCEEDED, last_seq=0)


@pytest.fixture
def answering(agent_settings):
    """A controller that gives ``answers`` one after the other, the last one for ever."""

    def make(*answers):
        left = list(answers)
        made = []

        def handle(request: httpx.Request) -> httpx.Response:
            made.append(request)
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        controller = Controller("http://c", agent_settings, transport=httpx.MockTransport(handle))
        controller.secrets.set("s3cret")
        return controller, made

    return make


def _problem(status, code, **more):
    document = {"title": "", "status": status, "detail": "why", "code": code, **more}
    return httpx.Response(status, json=document)


async def test_durable_calls_are_repeated_until_they_are_answered(answering):
    lost = httpx.ConnectError("no route")
    controller, made = answering(
        lost, httpx.Response(502, text="<html>"), _problem(429, "too_many"), httpx.Response(204)
    )
    await controller.finish(new_id("att"), FINISH)
    assert len(made) == 4
    assert made[0].headers["authorization"] == "Bearer s3cret"


async def test_whether_files_were_verified_is_asked_every_few_seconds_and_never_given_up(answering):
    early = _problem(425, "still_verifying")
    controller, made = answering(httpx.ReadTimeout("silence"), early, early, httpx.Response(204))
    stored = ArtifactsStored(epoch=1, artifact_ids=[new_id("art")])
    await controller.complete_artifacts(new_id("att"), stored)
    assert len(made) == 4
    assert AgentSettings().verify_timeout_seconds <= 10
    assert {each.extensions["timeout"]["read"] for each in made} == {10.0}


async def test_heartbeat_is_tried_once(answering):
    controller, made = answering(httpx.ConnectError("no route"))
    with pytest.raises(TemporaryTrouble, match="no answer from http://c: no route"):
        await controller.heartbeat(Heartbeat())
    assert len(made) == 1


async def test_a_heartbeat_waits_no_longer_than_until_the_next(agent_settings):
    """A connection that died without a word, as behind a router that forgot it."""

    gone = asyncio.Event()

    async def say_nothing(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    settings = replace(agent_settings, joint_timeout_seconds=0.05, call_timeout_seconds=60)
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    controller = Controller(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", settings)
    controller.secrets.set("s3cret")
    try:
        async with asyncio.timeout(120):
            with pytest.raises(TemporaryTrouble, match="ReadTimeout"):
                await controller.heartbeat(Heartbeat(), 0.1)
    finally:
        await controller.close()
        server.close()
    async with asyncio.timeout(120):
        await gone.wait()  # else its socket would be left to a later test


async def test_claim_is_given_up_after_its_patience(agent_settings, monkeypatch):
    moments = iter(range(100))  # a second passes with each call and with each try
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    made = []

    def lose(request: httpx.Request) -> httpx.Response:
        made.append(request)
        raise httpx.ConnectError("no route")

    settings = replace(agent_settings, claim_patience_seconds=4.5)
    controller = Controller("http://c", settings, transport=httpx.MockTransport(lose))
    with pytest.raises(TemporaryTrouble):
        await controller.claim(new_id("att"))
    assert len(made) == 1 + 5  # the one for all who wait, then those of this claim alone


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_problem(401, "not_signed_in"), Refused),
        (_problem(403, "not_permitted"), Refused),
        (_problem(409, "retired"), Refused),
        (_problem(409, "offer_gone"), OfferGone),
        (_problem(404, "not_found"), RequestRefused),
        (_problem(422, "invalid"), RequestRefused),
    ],
)
async def test_refusals_are_told_apart_and_not_repeated(answering, answer, error):
    controller, made = answering(answer)
    with pytest.raises(error) as caught:
        await controller.claim(new_id("att"))
    assert type(caught.value) is error
    assert str(answer.status_code) in str(caught.value)
    assert len(made) == 1


STRANGERS = [
    httpx.Response(200, text="<html>sign in</html>"),
    httpx.Response(302, headers={"location": "/login"}),
    httpx.Response(401, text="proxy"),
    httpx.Response(403, json={"title": "", "status": 403, "detail": "blocked"}),
    httpx.Response(404, text="default backend - 404"),
    httpx.Response(413, text="<html>"),
]
"""Proxies, portals, firewalls, and ingresses that miss their backend while it is exchanged."""


async def test_whoever_answers_in_the_controllers_stead_is_waited_out(answering):
    controller, made = answering(*STRANGERS, httpx.Response(204))
    controller.secrets.set("fresh", "before")
    await controller.finish(new_id("att"), FINISH)
    shown = {request.headers["authorization"] for request in made}
    assert (len(made), shown) == (len(STRANGERS) + 1, {"Bearer fresh"})
    assert controller.secrets.previous is None  # the controller has taken it at last


async def test_strangers_prove_no_credential(answering):
    controller, _ = answering(*STRANGERS)
    controller.secrets.set("fresh", "before")
    for stranger in STRANGERS:
        with pytest.raises(StrangeAnswer, match=r"look at the address|another shape"):
            await controller.heartbeat(Heartbeat())
        assert controller.secrets.previous == "before", stranger


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_the_first_to_answer_a_join_token_has_to_be_a_controller(
    answering, description, stranger
):
    controller, made = answering(stranger)
    with pytest.raises(StrangeAnswer, match=r"/v1/worker/register"):
        await controller.register(description, is_first=True)
    assert len(made) == 1


async def test_gap_tells_where_the_controller_is(answering):
    controller, _ = answering(_problem(409, "sequence_gap", acked_seq=17))
    with pytest.raises(SequenceGap) as caught:
        await controller.finish(new_id("att"), FINISH)
    assert caught.value.acked_seq == 17


def packed_wrongly():
    """As a proxy answers that packs its own pages, or says so of those of others."""
    stream = httpx.ByteStream(b"<h1>Bad gateway</h1>")
    return httpx.Response(502, headers={"Content-Encoding": "gzip"}, stream=stream)


async def test_an_answer_that_cannot_be_unpacked_counts_as_none(answering):
    controller, made = answering(packed_wrongly(), httpx.Response(204))
    await controller.finish(new_id("att"), FINISH)
    assert len(made) == 2
    controller, _ = answering(packed_wrongly())
    with pytest.raises(TemporaryTrouble, match="no answer from http://c: "):
        await controller.heartbeat(Heartbeat())


async def test_a_store_whose_answer_cannot_be_unpacked_is_tried_again(agent_settings):
    answer = httpx.MockTransport(lambda _: packed_wrongly())
    transfer = Transfer("http://c", agent_settings, transport=answer)
    with pytest.raises(TemporaryTrouble, match="the store does not answer"):
        await transfer.send(io.BytesIO(b"w"), 1, "http://s/w", {})


async def test_answer_of_another_shape_counts_as_none(answering):
    controller, _ = answering(httpx.Response(200, text="<html>sign in</html>"))
    with pytest.raises(TemporaryTrouble, match="an answer of another shape"):
        await controller.heartbeat(Heartbeat())


async def test_a_call_that_hangs_holds_no_other_up_for_long(agent_settings):
    """The first try is short; then each goes on alone."""
    hung, made = [], []

    def handle(request: httpx.Request) -> httpx.Response:
        made.append(request)
        timeout = request.extensions["timeout"]["read"]
        if timeout < agent_settings.call_timeout_seconds:
            hung.append(timeout)
            raise httpx.ReadTimeout("no answer")
        return httpx.Response(204)

    controller = Controller("http://c", agent_settings, transport=httpx.MockTransport(handle))
    await asyncio.gather(*(controller.finish(new_id("att"), FINISH) for _ in range(3)))
    assert hung == [agent_settings.joint_timeout_seconds]
    assert [request.url.path.rpartition("/")[2] for request in made] == ["finishes"] + [
        "finish"
    ] * 3
