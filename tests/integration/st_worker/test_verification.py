"""Files that take long to verify, and answers to that which are lost: neither is waited for."""

import threading
from dataclasses import replace

import pytest
from served import served

from st_shared.protocol import endpoints

pytestmark = pytest.mark.anyio

SILENCE = 0.2
"""Seconds after which this agent asks again."""


@pytest.fixture
def agent_settings(agent_settings):
    return replace(agent_settings, verify_timeout_seconds=SILENCE)


@pytest.fixture
def reads(controller, monkeypatch):
    """Keys that were verified in the store; the first waits until its worker has asked again."""
    asked_again, keys = threading.Event(), []
    objects, held = controller.platform.objects, controller.platform.verifications
    stat, alone = objects.stat, held.alone

    def slowly(key):
        keys.append(key)
        assert asked_again.wait(120)
        return stat(key)

    def watched(artifact_ids):
        ids = list(artifact_ids)
        if held._under_way & set(ids):
            asked_again.set()
        return alone(ids)

    monkeypatch.setattr(objects, "stat", slowly)
    monkeypatch.setattr(held, "alone", watched)
    return keys


def job_with_a_file(name):
    return {"name": name, "command": {"run": f"echo {name} > outputs/{name}.txt"}}


async def test_what_is_being_verified_is_asked_after_and_read_once(controller, reads, start_agent):
    await start_agent()
    job = await controller.post("/v1/jobs", job_with_a_file("slow"))
    assert (await controller.job_in(job["id"], "succeeded", "failed"))["state"] == "succeeded"
    assert len(reads) == 1
    page = await controller.get(f"/v1/jobs/{job['id']}/artifacts")
    assert [each["path"] for each in page["items"]] == ["outputs/slow.txt"]


class Swallower:
    """Lets calls that say that files were PUT be carried out, and answers some of them nothing."""

    def __init__(self):
        self.calls, self.to_swallow = 0, 0

    def before(self, app):
        path = endpoints.ARTIFACTS_STORED.path.rpartition("}")[2]

        async def swallowing(scope, receive, send):
            is_it = scope["type"] == "http" and scope["path"].endswith(path)
            self.calls += is_it
            if not is_it or self.calls > self.to_swallow:
                await app(scope, receive, send)
                return
            await app(scope, receive, _nowhere)
            while (await receive())["type"] != "http.disconnect":
                pass

        return swallowing


async def _nowhere(_message):
    pass


@pytest.fixture
def swallower():
    return Swallower()


@pytest.fixture
async def controller(settings, swallower):
    async with served(settings, wrap=swallower.before) as running:
        yield running


async def test_an_answer_that_was_lost_costs_one_silence(controller, swallower, start_agent):
    swallower.to_swallow = 1
    await start_agent()
    job = await controller.post("/v1/jobs", job_with_a_file("lost"))
    assert (await controller.job_in(job["id"], "succeeded", "failed"))["state"] == "succeeded"
    assert swallower.calls == 2
