"""A job on two workers, as real processes on one machine that speak over gloo."""

import signal

import pytest
from fleet import tiny_job, wait_for
from safetensors.torch import load_file

SPREAD = {"strategy": "fsdp2"}


def gang_job(steps, batch_size, nodes, **distributed):
    job = tiny_job(steps, resources={"nodes": nodes})
    job["training"] |= {"batch_size": batch_size, "seed": 3, "distributed": distributed}
    return job


def weights_of(fleet, job_id):
    [artifact] = [
        each for each in fleet.client.artifacts(job_id) if each.path == "output/weights.safetensors"
    ]
    return load_file(fleet.client.download(job_id, artifact, fleet.folder / job_id))


def measured(fleet, job_id):
    """What was measured so far of a job that must not be over."""
    job = fleet.client.job(job_id)
    assert not job.state.is_final, job.reason
    return list(fleet.client.metrics(job_id))


def ended(fleet, job_id):
    return wait_for(
        "the end of the job", lambda: (job := fleet.client.job(job_id)).state.is_final and job
    )


def test_two_workers_learn_what_one_learns(fleet, shades):
    fleet.add_agent("first")
    fleet.add_agent("second")
    fleet.client.push_dataset("shades", shades)
    together = fleet.client.submit(gang_job(20, 2, nodes=2)).id
    assert ended(fleet, together).state == "succeeded"
    alone = fleet.client.submit(gang_job(20, 4, nodes=1)).id
    assert ended(fleet, alone).state == "succeeded"
    ours, theirs = weights_of(fleet, together), weights_of(fleet, alone)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5
    members = list(fleet.client.attempts(together))
    assert [(each.number, each.node, each.outcome) for each in members] == [
        (1, 0, "succeeded"),
        (1, 1, "succeeded"),
    ]
    said = [line.message for line in fleet.client.logs(together)]
    assert any(line.startswith("[node 1] attempt 1 on ") for line in said)
    assert any("2 processes together" in line for line in said)


@pytest.mark.faults
def test_weights_that_are_spread_over_two_workers_learn_what_one_learns(fleet, shades):
    """They share no folder, so the first gathers its checkpoints, and says so."""
    fleet.add_agent("first")
    fleet.add_agent("second")
    fleet.client.push_dataset("shades", shades)
    together = fleet.client.submit(gang_job(20, 2, nodes=2, **SPREAD, processes=2)).id
    assert ended(fleet, together).state == "succeeded"
    alone = fleet.client.submit(gang_job(20, 4, nodes=1)).id
    assert ended(fleet, alone).state == "succeeded"
    ours, theirs = weights_of(fleet, together), weights_of(fleet, alone)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5
    said = [line.message for line in fleet.client.logs(together)]
    for words in ("2 processes together", "not all processes see the folder of the run"):
        assert any(words in line for line in said), words
    kept = {each.path for each in fleet.client.artifacts(together) if "checkpoints/" in each.path}
    assert any(path.endswith("optimizer.safetensors") for path in kept)
    assert not any("rank-" in path for path in kept)


@pytest.mark.faults
@pytest.mark.parametrize("distributed", [{}, SPREAD], ids=["whole", "spread"])
def test_a_gang_whose_host_dies_goes_on_elsewhere(quick_fleet, shades, distributed):
    fleet = quick_fleet
    agents = [fleet.add_agent(f"host-{number}") for number in range(3)]
    fleet.client.push_dataset("shades", shades)
    job_id = fleet.client.submit(gang_job(4000, 2, nodes=2, **distributed)).id
    wait_for("a checkpoint", lambda: fleet.client.job(job_id).checkpoint_step)
    follower = list(fleet.client.attempts(job_id))[1].worker
    [dying] = [agent for agent in agents if agent.name == follower]
    dying.process.send_signal(signal.SIGKILL)  # the power goes: everything at once
    for process in dying.trainers():
        process.kill()
    second = wait_for(
        "another attempt",
        lambda: [each for each in fleet.client.attempts(job_id) if each.number == 2],
    )
    assert follower not in {each.worker for each in second}
    step = fleet.client.job(job_id).checkpoint_step
    wait_for("more steps", lambda: fleet.client.job(job_id).checkpoint_step > step)
    fleet.client.cancel(job_id)
    assert ended(fleet, job_id).state == "cancelled"
    first = [each for each in fleet.client.attempts(job_id) if each.number == 1]
    [lost] = [each for each in first if each.worker == follower]
    [other] = [each for each in first if each.worker != follower]
    assert lost.outcome == "lost"
    # Its trainer may notice that its peer is gone before the controller does.
    assert other.outcome == "lost" or other.failure.kind == "peer_lost"
    for agent in agents:
        wait_for("the end of its processes", lambda agent=agent: not agent.trainers())


def test_an_agent_that_leaves_makes_the_whole_gang_stop_at_one_checkpoint(fleet, shades):
    """Its own processes alone are asked; all ranks agree on the step and stop."""
    agents = [fleet.add_agent(f"host-{number}") for number in range(2)]
    fleet.client.push_dataset("shades", shades)
    job = gang_job(100_000, 2, nodes=2)
    job["training"]["checkpoint"] = {"every": 1_000_000}
    job_id = fleet.client.submit(job).id
    wait_for("some steps", lambda: measured(fleet, job_id))
    follower = list(fleet.client.attempts(job_id))[1].worker
    [leaving] = [agent for agent in agents if agent.name == follower]
    assert leaving.stop() == 0
    found = wait_for(
        "the job in the queue", lambda: (job := fleet.client.job(job_id)).state == "queued" and job
    )
    assert found.checkpoint_step
    members = list(fleet.client.attempts(job_id))
    assert [(each.outcome, each.failure) for each in members] == [("preempted", None)] * 2
