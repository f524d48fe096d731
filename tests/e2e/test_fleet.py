"""The whole system in real processes: what is promised when parts of it die."""

import hashlib
import json
import time

import httpx
import psutil
import pytest
from fleet import AgentProcess, tiny_job, wait_for

LONG = 100_000
"""Steps of a job that is ended by something else."""


def steps_seen(fleet, job_id):
    """The step of the newest metric that the controller holds."""
    return max((point.step for point in fleet.client.metrics(job_id)), default=0)


def train_past(fleet, job_id, step):
    wait_for(f"step {step}", lambda: steps_seen(fleet, job_id) >= step)


def release(held):
    for process in held:
        process.resume()


def submit(fleet, folder, steps, **changes):
    fleet.client.push_dataset("shades", folder)
    return fleet.client.submit(tiny_job(steps, **changes)).id


def figures(fleet):
    """What the controller tells Prometheus."""
    lines = httpx.get(f"{fleet.controller.url}/metrics", timeout=60).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def stored_lines(fleet, job_id):
    """What the controller holds, as (attempt, seq, text), logs and metrics together."""
    logs = [(each.attempt, each.seq, each.message) for each in fleet.client.logs(job_id)]
    metrics = [(each.attempt, each.seq, each.values) for each in fleet.client.metrics(job_id)]
    return sorted(logs + metrics, key=lambda line: line[:2])


def written_lines(agent: AgentProcess):
    """The same lines as they stand in the journals of the worker."""
    return [
        (attempt, event["seq"], event.get("message", event.get("values")))
        for attempt, journal in enumerate(agent.journals(), start=1)
        for event in journal
        if event["kind"] in {"log", "metric"}
    ]


def test_a_job_becomes_weights(fleet, shades):
    agent = fleet.add_agent()
    (shades / "torn.png").write_bytes(b"not a picture")
    (shades / "torn.txt").write_text("shade 1")
    before = figures(fleet)
    job_id = submit(fleet, shades, 60)

    events = list(fleet.client.events(job_id))

    job = fleet.client.job(job_id)
    assert (job.state, job.attempts, job.checkpoint_step) == ("succeeded", 1, 60)
    states = [event.state for event in events if type(event).__name__ == "StateChange"]
    assert states == ["queued", "assigned", "running", "succeeded"]
    assert stored_lines(fleet, job_id) == written_lines(agent)
    assert any("torn.png" in line.message for line in fleet.client.logs(job_id))
    kinds = {artifact.kind for artifact in fleet.client.artifacts(job_id)}
    assert kinds == {"sample", "checkpoint", "output"}
    for artifact in fleet.client.artifacts(job_id):
        file = fleet.client.download(job_id, artifact, fleet.folder / "results")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact.sha256
    now = figures(fleet)
    for name in ('st_attempts{outcome="succeeded"}', "st_queue_wait_seconds_count"):
        assert now[name] == before.get(name, 0) + 1
    assert now['st_stream_connections{holder="worker"}'] == 1
    assert agent.stop() == 0
    [worker] = fleet.client.workers()
    assert worker.state == "gone"
    assert fleet.controller.stop() == 0


def test_controller_killed_in_mid_training(fleet, shades):
    agent = fleet.add_agent()
    job_id = submit(fleet, shades, 600)
    held = agent.hold_trainers("metric")

    fleet.controller.kill()
    release(held)
    [journal] = agent.journals()
    wait_for("lines that nobody takes", lambda: len(agent.journals()[0]) > len(journal) + 5)
    fleet.controller.start()
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 1)
    assert stored_lines(fleet, job_id) == written_lines(agent)


def test_agent_killed_in_mid_training_is_adopted_by_the_next(fleet, shades):
    agent = fleet.add_agent()
    job_id = submit(fleet, shades, 600)
    held = agent.hold_trainers("metric")

    agent.kill()
    agent.start()
    wait_for("the adoption", lambda: "program.taken_over" in agent.log)
    release(held)
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 1)
    assert stored_lines(fleet, job_id) == written_lines(agent)


@pytest.mark.faults
def test_host_lost_and_the_job_goes_on_elsewhere_from_its_checkpoint(quick_fleet, shades):
    fleet = quick_fleet
    first = fleet.add_agent("worker-1")
    job_id = submit(fleet, shades, 600)
    held = first.hold_trainers("checkpoint")
    wait_for("a checkpoint", lambda: fleet.client.job(job_id).checkpoint_step)
    second = fleet.add_agent("worker-2")

    first.kill()
    for process in held:
        process.kill()
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 2)
    lost, finished = fleet.client.attempts(job_id)
    assert (lost.outcome, lost.worker) == ("lost", "worker-1")
    assert (finished.outcome, finished.worker) == ("succeeded", "worker-2")
    [journal] = second.journals()
    begun = min(event["step"] for event in journal if event["kind"] == "metric")
    assert begun > 50


def test_cancel_ends_the_process_group_within_ten_seconds(fleet, shades):
    agent = fleet.add_agent()
    job_id = submit(fleet, shades, LONG)
    train_past(fleet, job_id, 20)
    group = agent.trainers()

    begun = time.monotonic()
    fleet.client.cancel(job_id)
    _, alive = psutil.wait_procs(group, timeout=10)
    job = fleet.client.wait(job_id)

    assert group
    assert not alive
    assert time.monotonic() - begun < 10
    assert job.state == "cancelled"
    [worker] = fleet.client.workers()
    assert worker.slots_free == 1


@pytest.mark.faults
def test_valkey_killed_in_mid_training(fleet, shades):
    agent = fleet.add_agent()
    job_id = submit(fleet, shades, 300)
    held = agent.hold_trainers("metric")

    fleet.controller.valkey().kill()
    release(held)
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 1)
    assert stored_lines(fleet, job_id) == written_lines(agent)


def test_a_bad_dataset_fails_the_job_at_once_and_says_so(fleet, shades):
    fleet.add_agent()
    for picture in shades.glob("*.png"):
        picture.write_bytes(b"not a picture")
    job_id = submit(fleet, shades, 10)

    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("failed", 1)
    assert job.reason.code == "bad_data"


@pytest.mark.faults
@pytest.mark.parametrize("attempts", [2])
def test_a_trainer_that_is_killed_is_tried_again(fleet, shades, attempts):
    agent = fleet.add_agent()
    job_id = submit(fleet, shades, 400, retry={"max_attempts": attempts})
    held = agent.hold_trainers("checkpoint")
    wait_for("a checkpoint", lambda: fleet.client.job(job_id).checkpoint_step)

    for process in held:
        process.kill()
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 2)
    first, _ = fleet.client.attempts(job_id)
    assert first.failure.kind == "killed"
    assert json.dumps(job.reason) == "null"
