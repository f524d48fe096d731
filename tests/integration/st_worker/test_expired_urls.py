"""Signed URLs that ran out while an attempt was prepared, against the real store."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from contract_steps import push_dataset, training

from st_controller.services import claims

pytestmark = pytest.mark.anyio

TRAINER = Path(__file__).parents[2] / "faults" / "scripted_trainer.py"


@pytest.fixture
def agent_settings(agent_settings, monkeypatch):
    monkeypatch.setenv("FAULTS_PACE", "0.001")
    return replace(agent_settings, trainer_command=(sys.executable, str(TRAINER)))


async def test_an_agent_gets_fresh_ones_for_the_lease_that_it_has(
    controller, start_agent, tmp_path, monkeypatch
):
    await push_dataset(controller, tmp_path)
    told, answer = [], claims.claim_reply

    def late_at_first(*arguments):
        with monkeypatch.context() as patched:
            if not told:
                patched.setattr(claims, "DOWNLOAD_SECONDS", -1)
            told.append(answer(*arguments))
        return told[-1]

    monkeypatch.setattr(claims, "claim_reply", late_at_first)
    await start_agent()
    job = await controller.post("/v1/jobs", training("late", 20))
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert (done["state"], done["attempts"]) == ("succeeded", 1), done
    assert len(told) > 1
    assert {(each.attempt_id, each.epoch) for each in told} == {(told[0].attempt_id, 1)}
