"""Command and noop jobs in real processes, also when the agent is killed beside them."""

import hashlib
import time

import psutil
from fleet import wait_for


def submit(fleet, script, **changes):
    return fleet.client.submit({"name": "script", "command": {"run": script}, **changes}).id


def printed(fleet, job_id):
    """What the controller holds of the script's own lines, in its order."""
    return [line.message for line in fleet.client.logs(job_id)][1:]


def numbers(first, last):
    return [str(number) for number in range(first, last + 1)]


def test_a_script_and_a_noop_run_to_success(fleet):
    fleet.add_agent()
    script = "seq 3000; echo done >&2; seq 5 > $ST_RUN_DIR/outputs/five.txt"
    job_id = submit(fleet, script)
    nothing = fleet.client.submit({"name": "nothing", "noop": {"seconds": 0.2}}).id

    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 1)
    assert printed(fleet, job_id) == [*numbers(1, 3000), "done"]
    [artifact] = fleet.client.artifacts(job_id)
    assert (artifact.kind, artifact.path) == ("output", "outputs/five.txt")
    file = fleet.client.download(job_id, artifact, fleet.folder / "results")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact.sha256
    assert file.read_text().split() == numbers(1, 5)
    assert fleet.client.wait(nothing).state == "succeeded"
    [attempt] = fleet.client.attempts(nothing)
    assert (attempt.finished_at - attempt.claimed_at).total_seconds() >= 0.2


def test_a_failed_script_is_tried_as_often_as_it_says(fleet):
    fleet.add_agent()
    script = "echo attempt $ST_ATTEMPT; test $ST_ATTEMPT = 2"
    job_id = submit(fleet, script, retry={"max_attempts": 2, "backoff": "0.1s"})

    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 2)
    first, _ = fleet.client.attempts(job_id)
    assert (first.failure.kind, first.failure.exit_code) == ("crashed", 1)
    assert "attempt 1" in first.failure.message


def test_cancel_ends_a_script_within_its_grace(fleet):
    agent = fleet.add_agent()
    job_id = submit(fleet, "sleep 1000 & echo up; sleep 1000")
    wait_for("the script", lambda: "up" in printed(fleet, job_id))
    group = [
        child
        for process in agent.trainers()
        for child in (process, *process.children(recursive=True))
    ]
    assert len({process.pid for process in group}) >= 5  # supervisor, runner, shell, two sleeps

    begun = time.monotonic()
    fleet.client.cancel(job_id)
    _, alive = psutil.wait_procs(group, timeout=10)

    assert not alive
    assert time.monotonic() - begun < 5
    assert fleet.client.wait(job_id).state == "cancelled"


def test_agent_killed_beside_a_script_that_goes_on(fleet, tmp_path):
    agent = fleet.add_agent()
    script = f"""
        i=0
        while [ $i -lt 400 ]; do
            echo $i
            i=$((i + 1))
            [ $i -ne 200 ] || while [ ! -e {tmp_path}/go ]; do sleep 0.01; done
        done
    """
    job_id = submit(fleet, script)
    wait_for("lines", lambda: len(printed(fleet, job_id)) > 10)

    agent.kill()
    agent.start()
    (tmp_path / "go").touch()
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 1)
    assert printed(fleet, job_id) == numbers(0, 399)


def test_a_script_that_ends_while_no_agent_is_there(fleet, tmp_path):
    agent = fleet.add_agent()
    script = f"seq 100; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; seq 101 200; exit 6"
    job_id = submit(fleet, script, retry={"max_attempts": 1})
    wait_for("lines", lambda: len(printed(fleet, job_id)) > 10)

    agent.kill()
    (tmp_path / "go").touch()
    wait_for("the end of the script", lambda: list(agent.state.glob("attempts/*/run/exit.json")))
    agent.start()
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("failed", 1)
    assert printed(fleet, job_id)[:-1] == numbers(1, 200)
    [attempt] = fleet.client.attempts(job_id)
    assert attempt.failure.exit_code == 6


def test_agent_killed_beside_a_noop(fleet):
    agent = fleet.add_agent()
    job_id = fleet.client.submit({"name": "nothing", "noop": {"seconds": 3}}).id
    wait_for("the noop", lambda: fleet.client.job(job_id).state in {"running", "succeeded"})

    agent.kill()
    agent.start()
    job = fleet.client.wait(job_id)

    assert (job.state, job.attempts) == ("succeeded", 1)
    [attempt] = fleet.client.attempts(job_id)
    assert 3 <= (attempt.finished_at - attempt.claimed_at).total_seconds() < 10
