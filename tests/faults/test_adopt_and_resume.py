"""Trainings that outlive their agents, and jobs that go on elsewhere, in real processes."""

import re

import pytest
from fleet import wait_for

from faults.campaign import EVERY, LOG_EVERY, submit_training
from faults.invariants import Wanted, settled, violations
from faults.rig import Rig

pytestmark = pytest.mark.faults

STEPS = 200
LONG = pytest.mark.parametrize("pace", [0.1])
"""So long that it trains on while agents come back, or leases end, on a busy machine."""


@pytest.fixture
def pace():
    """Seconds of a step at least."""
    return 0.02


@pytest.fixture
def rig(tmp_path, pace):
    made = Rig(tmp_path / "rig", {}, slots=1, pace=pace)
    yield made
    made.close(keeps=False)


@pytest.fixture
def job(rig):
    """A training that runs and has stored a checkpoint."""
    made = submit_training(rig, 7, STEPS)
    wait_for("a checkpoint", lambda: rig.client.job(made.id).checkpoint_step)
    return made


def holder(rig, job: Wanted):
    """The agent that has the newest attempt, and the other one."""
    name = list(rig.client.attempts(job.id))[-1].worker
    first, second = rig.agents
    return (first, second) if first.name == name else (second, first)


def pids(agent):
    return sorted(process.pid for process in agent.trainers())


@LONG
def test_an_upgraded_agent_finds_the_training_that_runs_and_goes_on_with_it(rig, job):
    agent, _ = holder(rig, job)
    running = pids(agent)

    agent.kill()
    agent.renamed("9.9.9")
    agent.start()
    wait_for(
        "the upgraded agent",
        lambda: any(each.agent_version == "9.9.9" for each in rig.client.workers()),
    )

    assert pids(agent) == running
    assert rig.client.wait(job.id).attempts == 1
    assert violations(rig, job) == []
    assert "program.taken_over" in agent.log
    assert settled(rig) == []


def test_a_second_agent_on_the_folder_says_who_is_there_and_harms_nothing(rig, job):
    agent, _ = holder(rig, job)
    running, first = pids(agent), agent.process

    agent.start()
    assert agent.process.wait(30) == 2
    agent.process = first

    assert f"another agent runs on {agent.state}" in agent.log
    assert pids(agent) == running
    assert rig.client.wait(job.id).attempts == 1
    assert violations(rig, job) == []


@pytest.mark.parametrize("way", ["loss", "shutdown", "retire", "drain"])
def test_a_job_goes_on_elsewhere_from_its_last_checkpoint(rig, job, way):
    agent, other = holder(rig, job)
    reached = rig.client.job(job.id).progress.step

    if way == "loss":
        agent.break_("host", "kill")
    elif way == "shutdown":
        assert agent.stop() == 0
    elif way == "retire":
        rig.client.order_worker(rig.client.find_worker(agent.name).id, "retire")
    else:
        rig.client.drain_worker(rig.client.find_worker(agent.name).id, grace_seconds=0)
    ended = rig.client.wait(job.id)

    first, second = rig.client.attempts(job.id)
    assert (ended.state, second.worker) == ("succeeded", other.name)
    assert first.outcome == ("lost" if way == "loss" else "preempted")
    assert violations(rig, job) == []
    begun = resumed_at(rig, job, 2)
    assert begun > 0
    assert reached - begun <= EVERY + LOG_EVERY
    if way in {"shutdown", "drain"}:
        assert begun >= reached  # it was asked, and stopped at a checkpoint
    wait_for("the end of the old processes", lambda: not agent.trainers())


def test_a_checkpoint_that_was_damaged_in_the_store_is_passed_over(rig, job):
    agent, _ = holder(rig, job)
    wait_for("two checkpoints", lambda: (rig.client.job(job.id).checkpoint_step or 0) >= 2 * EVERY)

    agent.break_("host", "stop")
    newest = rig.client.job(job.id).checkpoint_step
    stored = rig.controller.data / "objects"
    weights = max(
        stored.rglob(f"step-{newest:06d}/weights.safetensors"), key=lambda file: file.stat().st_size
    )
    weights.write_bytes(bytes(weights.stat().st_size))
    wait_for("the next attempt", lambda: len(list(rig.client.attempts(job.id))) == 2)
    wait_for("its first step", lambda: resumed_at(rig, job, 2) is not None)

    assert resumed_at(rig, job, 2) == newest - EVERY
    said = [line.message for line in rig.client.logs(job.id) if line.level == "warning"]
    assert any(f"the checkpoint of step {newest} cannot be used" in text for text in said)
    agent.mend()
    assert rig.client.wait(job.id).state == "succeeded"


def resumed_at(rig, job: Wanted, attempt: int):
    for line in rig.client.logs(job.id):
        found = re.fullmatch(r"resumed at step (\d+)", line.message)
        if found and line.attempt == attempt:
            return int(found[1])
    return None


@LONG
def test_an_orphan_is_ended_once_its_agent_hears_that_the_lease_is_void(rig, job):
    agent, other = holder(rig, job)

    agent.break_("network", "stall")
    wait_for("the job elsewhere", lambda: holder(rig, job)[0] is other)
    assert agent.trainers()
    agent.mend()

    wait_for("the end of the orphan", lambda: not agent.trainers())
    assert rig.client.wait(job.id).state == "succeeded"
    assert violations(rig, job) == []
