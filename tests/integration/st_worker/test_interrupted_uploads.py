"""Uploads as a whole: agents, a controller and its store. What is there is not sent again."""

import asyncio
from dataclasses import replace
from hashlib import sha256

import pytest

from st_shared.objectstore import multipart
from st_worker.agent import Departure
from st_worker.transfer import Transfer

pytestmark = pytest.mark.anyio

PART = 1 << 20
PARTS = 5
SCRIPT = f"head -c {PART * PARTS - 7} /dev/urandom > outputs/weights.bin; sha256sum outputs/*"


@pytest.fixture
def agent_settings(agent_settings):
    return replace(agent_settings, parts_at_once=1)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", PART)
    monkeypatch.setattr(multipart, "PART_BYTES", PART)


class Wire:
    """Carries so many parts and then no more."""

    def __init__(self, monkeypatch, most: int = 2) -> None:
        self.sent: list[int] = []
        self.most = most
        self.is_stuck = asyncio.Event()
        send_part = Transfer.send_part

        async def watched(transfer, path, start, size, url, headers):
            if len(self.sent) == self.most:
                self.is_stuck.set()
                await asyncio.Event().wait()
            self.sent.append(start // PART + 1)
            return await send_part(transfer, path, start, size, url, headers)

        monkeypatch.setattr(Transfer, "send_part", watched)


async def test_the_next_agent_sends_the_parts_that_are_missing(
    controller, start_agent, until, monkeypatch
):
    wire = Wire(monkeypatch)
    first = await start_agent()
    job = await controller.post("/v1/jobs", {"name": "large", "command": {"run": SCRIPT}})
    await asyncio.wait_for(wire.is_stuck.wait(), 120)

    async def says_so():
        reason = (await controller.get(f"/v1/jobs/{job['id']}"))["reason"]
        return reason is not None and reason["code"] == "uploading"

    await until(says_so)
    assert wire.sent == [1, 2]

    first.agent.leave(Departure.FAULT)  # as one that is killed it leaves all as it is
    assert await first.left() is Departure.FAULT
    wire.most = PARTS
    await start_agent()

    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert (done["state"], done["attempts"], done["reason"]) == ("succeeded", 1, None)
    assert wire.sent == [1, 2, 3, 4, 5]
    await must_be_stored(controller, job["id"])


async def test_content_that_the_organisation_has_is_not_sent_again(
    controller, start_agent, monkeypatch
):
    wire, whole, send = Wire(monkeypatch, most=99), [], Transfer.send

    async def watched(transfer, source, size, url, headers):
        whole.append(size)
        await send(transfer, source, size, url, headers)

    monkeypatch.setattr(Transfer, "send", watched)
    await start_agent()
    large = f"yes large | head -c {PART + 5} > outputs/weights.bin; sha256sum outputs/*"
    script = f"{large}; echo small > outputs/card.txt"
    for _ in range(2):
        job = await controller.post("/v1/jobs", {"name": "twice", "command": {"run": script}})
        done = await controller.job_in(job["id"], "succeeded", "failed")
        assert (done["state"], done["reason"]) == ("succeeded", None)
        await must_be_stored(controller, job["id"])
    assert (wire.sent, whole) == ([1, 2], [6])


async def must_be_stored(controller, job_id) -> None:
    """What is downloaded is what the script saw on its disk."""
    logs = (await controller.get(f"/v1/jobs/{job_id}/logs"))["items"]
    (digest,) = [line["message"].split()[0] for line in logs if "weights.bin" in line["message"]]
    page = await controller.get(f"/v1/jobs/{job_id}/artifacts")
    (stored,) = [each for each in page["items"] if each["path"].endswith("weights.bin")]
    content = (await controller.admin.get(stored["url"])).content
    assert sha256(content).hexdigest() == stored["sha256"] == digest
