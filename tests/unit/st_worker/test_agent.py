"""The life of an agent: joining, orders, leaving, and being taken over after a kill -9."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time

import psutil
import pytest

from st_shared.protocol.states import FailureKind, Outcome
from st_worker.agent import Departure
from st_worker.attempts import Attempts
from st_worker.credential import Credential
from st_worker.errors import Refused, UsageError
from st_worker.folder import AttemptFolder, StateFolder
from st_worker.record import AttemptRecord
from st_worker.status import is_healthy, read_status

pytestmark = pytest.mark.anyio

DRIVER = """
import json, sys
from pathlib import Path
from st_shared import logging
from st_worker.folder import StateFolder
from st_worker.serve import describe, end_with, serve
from st_worker.settings import AgentSettings

url, state, token, settings = sys.argv[1:]
logging.configure(format="json")
fields = json.loads(settings)
fields["trainer_command"] = tuple(fields["trainer_command"])
folder = StateFolder(Path(state))
folder.create()
description = describe(folder, "tester", 1, {}, False)
end_with(serve(url, folder, token or None, description, AgentSettings(**fields)))
"""


@pytest.fixture
def spawn_agent(double, agent_settings, state_folder, tmp_path):
    """Starts agents as processes of their own; none outlives the test."""
    started = []

    def spawn(token: str = "join-token-of-the-tests") -> subprocess.Popen[bytes]:
        fields = json.dumps(vars(agent_settings))
        command = [sys.executable, "-c", DRIVER, double.url, str(state_folder.root), token, fields]
        with (tmp_path / f"agent-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        started.append(process)
        return process

    yield spawn
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
    for record in state_folder.attempts.glob("*/attempt.json"):
        pid = AttemptRecord.load(AttemptFolder(record.parent)).pid
        if pid and psutil.pid_exists(pid):
            os.killpg(pid, signal.SIGKILL)


async def _ended(process: subprocess.Popen[bytes], seconds: float = 120) -> int:
    return await asyncio.to_thread(process.wait, seconds)


@pytest.mark.parametrize("departure", [Departure.HANDOVER, Departure.FAULT])
async def test_no_thread_keeps_an_agent_from_making_way(departure):
    code = (
        "import asyncio, time\n"
        "from st_worker.serve import end_with\n"
        "async def work():\n"
        "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)\n"
        f"    return {departure.exit_code}\n"
        "end_with(work())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        assert await asyncio.wait_for(process.wait(), 120) == departure.exit_code
    except TimeoutError:
        process.kill()
        raise


async def test_credential_is_kept_privately_and_used_the_next_time(
    double, start_agent, state_folder
):
    hands = await start_agent()
    await double.until(lambda: double.streams)
    mode = stat.S_IMODE(state_folder.credential.stat().st_mode)
    assert (mode, stat.S_IMODE(state_folder.root.stat().st_mode)) == (0o600, 0o700)
    hands.agent.leave(Departure.SIGNAL)
    assert (await hands.left()).exit_code == 0
    await start_agent(token=None)
    await double.until(lambda: len(double.registered) == 2)
    assert double.registered_with == ["token", "credential"]
    assert double.registered[0].labels == {"rack": "7"}
    assert double.registered[0].inventory.slots[0].accelerator == "cpu"


async def test_void_credential_falls_back_to_a_token(double, start_agent, state_folder):
    stale = Credential(controller=double.url, worker_id="wrk_x", name="tester", secret="void")
    stale.save(state_folder)
    await start_agent()
    await double.until(lambda: double.streams)
    assert double.registered_with == ["token"]
    assert Credential.load(state_folder).secret == "credential-0"


async def test_void_credential_without_a_token_is_refused(double, start_agent, state_folder):
    stale = Credential(controller=double.url, worker_id="wrk_x", name="tester", secret="void")
    stale.save(state_folder)
    hands = await start_agent(token=None)
    with pytest.raises(Refused, match="401"):
        await hands.left()


async def test_bad_token_is_refused(double, start_agent):
    hands = await start_agent(token="wrong")
    with pytest.raises(Refused):
        await hands.left()


async def test_no_credential_and_no_token(start_agent):
    hands = await start_agent(token=None)
    with pytest.raises(UsageError, match="no join token: give --token"):
        await hands.left()


async def test_leaving_while_the_controller_is_away(double, start_agent):
    double.url = "http://127.0.0.1:9"  # discard: nobody listens
    hands = await start_agent()
    await asyncio.sleep(0)
    hands.agent.leave(Departure.SIGNAL)
    assert await hands.left() is Departure.SIGNAL


async def test_draining_ephemeral_worker_finishes_its_attempt_and_leaves(
    double, start_agent, tmp_path
):
    hands = await start_agent(ephemeral=True)
    attempt = double.offer([["wait", str(tmp_path / "go")]])
    await double.until(lambda: "running" in attempt.states)
    double.desired = "draining"
    double.push("desired", '{"desired":"draining"}')
    late = double.offer([])
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 2)
    (tmp_path / "go").touch()
    assert await hands.left() is Departure.DRAINED
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    assert not late.is_claimed


@pytest.mark.parametrize("by_stream", [True, False], ids=["by the stream", "by the heartbeat"])
async def test_retired_worker_ends_its_trainer_and_forgets_its_credential(
    double, start_agent, state_folder, by_stream
):
    hands = await start_agent()
    attempt = double.offer([["grandchild"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    grandchild = int(attempt.messages[-2].split()[1])
    double.desired = "retired"
    if by_stream:
        double.push("desired", '{"desired":"retired"}')
    departure = await hands.left()
    assert (departure, departure.exit_code) == (Departure.RETIRED, 3)
    assert not state_folder.credential.exists()
    assert list(state_folder.attempts.iterdir()) == []
    assert _is_gone(grandchild)


async def test_revoked_credential_ends_agent_and_trainer(double, start_agent):
    hands = await start_agent()
    attempt = double.offer([["grandchild"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    double.credentials.clear()
    departure = await hands.left()
    assert (departure, departure.exit_code) == (Departure.REFUSED, 3)
    assert _is_gone(int(attempt.messages[-2].split()[1]))


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_stream_goes_on_after_the_last_event_it_took(double, start_agent):
    await start_agent()
    first = double.offer([["log", "one"]])
    await double.until(lambda: first.finish)
    double.cut_streams()
    await double.until(lambda: len(double.streams) == 2)
    assert double.streams == [None, "1"]
    second = double.offer([["log", "two"]])
    await double.until(lambda: second.finish)


async def test_offer_that_is_gone_is_forgotten(double, start_agent):
    await start_agent()
    gone = double.offer([])
    gone.is_stale = True
    real = double.offer([["log", "real"]])
    await double.until(lambda: real.finish)
    assert gone.lines == []


async def test_unreadable_event_is_passed_over(double, start_agent):
    await start_agent()
    await double.until(lambda: double.streams)
    double.push("offer", "{}")
    double.push("news", "{}")
    attempt = double.offer([["log", "still here"]])
    await double.until(lambda: attempt.finish)


async def test_killed_agent_is_followed_by_one_that_takes_the_training_over(
    double, spawn_agent, state_folder, tmp_path
):
    first = spawn_agent()
    go = tmp_path / "go"
    attempt = double.offer([["logs", 50], ["wait", str(go)], ["logs", 50], ["sample", "a.png"]])
    await double.until(lambda: "49" in attempt.messages)
    status = read_status(state_folder)
    pid = status["attempts"][0]["pid"]
    assert (status["agent_running"], status["attempts"][0]["phase"]) == (True, "running")
    first.kill()
    await _ended(first)
    assert psutil.pid_exists(pid)
    assert read_status(state_folder)["agent_running"] is False
    second = spawn_agent(token="")
    await double.until(lambda: len(double.registered) == 2)
    assert double.registered[1].holding[0].attempt_id == attempt.claim.attempt_id
    go.touch()
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    assert [line["seq"] for line in attempt.lines] == list(range(1, attempt.finish.last_seq + 1))
    assert [text for text in attempt.messages if text.isdigit()] == [str(n) for n in range(50)] * 2
    assert attempt.completed == ["a.png"]
    second.terminate()
    assert await _ended(second) == 0


async def test_an_agent_that_is_exchanged_leaves_its_training_running(
    double, spawn_agent, state_folder, tmp_path
):
    first, go = spawn_agent(), tmp_path / "go"
    attempt = double.offer([["log", "up"], ["wait", str(go)]])
    await double.until(lambda: "up" in attempt.messages)
    assert is_healthy(state_folder, time.time())
    assert not is_healthy(state_folder, time.time() + 61)
    pid = read_status(state_folder)["attempts"][0]["pid"]
    first.send_signal(signal.SIGHUP)  # as `systemctl reload` does
    assert await _ended(first) == 75
    assert not is_healthy(state_folder, time.time())
    assert psutil.Process(pid).is_running()
    assert not any(beat.leaving for beat in double.heartbeats)  # it keeps its leases
    second = spawn_agent(token="")
    await double.until(lambda: len(double.registered) == 2)
    go.touch()
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    second.terminate()
    assert await _ended(second) == 0


@pytest.mark.parametrize(
    "departure",
    [each for each in Departure if each is not Departure.UNREPORTED],
    ids=lambda each: each.name,
)
async def test_a_beat_that_is_made_while_another_agent_takes_over_gives_no_lease_back(
    double, start_agent, departure
):
    agent = (await start_agent()).agent
    await double.until(lambda: double.heartbeats)
    agent.leave(departure)
    kept = {Departure.HANDOVER, Departure.FAULT, Departure.REFUSED, Departure.RETIRED}
    assert (await agent._heartbeat()).leaving is (departure not in kept)


async def test_exit_code_is_known_though_the_trainer_ended_while_no_agent_ran(
    double, spawn_agent, state_folder, tmp_path
):
    first = spawn_agent()
    go = tmp_path / "go"
    attempt = double.offer([["log", "up"], ["wait", str(go)], ["error", "nan"], ["exit", 5]])
    await double.until(lambda: "up" in attempt.messages)
    pid = read_status(state_folder)["attempts"][0]["pid"]
    first.kill()
    await _ended(first)
    go.touch()
    await double.until(lambda: _is_gone(pid))
    spawn_agent(token="")
    await double.until(lambda: attempt.finish)
    assert attempt.finish.failure.kind == FailureKind.NOT_FINITE
    assert attempt.finish.failure.exit_code == 5
    assert attempt.messages.count("nan") == 1


async def test_trainer_that_was_killed_with_its_supervisor_is_noticed(
    double, spawn_agent, state_folder
):
    first = spawn_agent()
    attempt = double.offer([["grandchild"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    grandchild = int(attempt.messages[-2].split()[1])
    supervisor = read_status(state_folder)["attempts"][0]["pid"]
    first.kill()
    await _ended(first)
    os.kill(supervisor, signal.SIGKILL)
    await double.until(lambda: _is_gone(supervisor))
    spawn_agent(token="")
    await double.until(lambda: attempt.finish)
    assert attempt.finish.failure.kind == FailureKind.KILLED
    assert _is_gone(grandchild)  # the trainer itself lived on without its supervisor


async def test_attempt_to_abandon_is_ended_and_not_reported(double, spawn_agent, state_folder):
    first = spawn_agent()
    attempt = double.offer([["grandchild"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    grandchild = int(attempt.messages[-2].split()[1])
    first.kill()
    await _ended(first)
    double.abandon = [attempt.claim.attempt_id]
    spawn_agent(token="")
    await double.until(lambda: not list(state_folder.attempts.iterdir()))
    assert _is_gone(grandchild)
    assert attempt.finish is None


async def test_an_agent_of_another_version_takes_over_what_an_old_one_began(
    double, spawn_agent, state_folder, tmp_path
):
    first = spawn_agent()
    go = tmp_path / "go"
    attempt = double.offer([["log", "before"], ["wait", str(go)], ["log", "after"]])
    await double.until(lambda: "before" in attempt.messages)
    pid = read_status(state_folder)["attempts"][0]["pid"]
    first.kill()
    await _ended(first)
    [folder] = state_folder.known_attempts()
    record = json.loads(folder.record.read_text())
    old = {key: value for key, value in record.items() if key not in {"format", "root", "process"}}
    folder.record.write_text(json.dumps(old | {"pid": pid}))  # as format 1 had it
    spawn_agent(token="")
    await double.until(lambda: len(double.registered) == 2)
    assert psutil.pid_exists(pid)
    go.touch()
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    assert attempt.messages[1:] == ["before", "after"]


async def test_a_folder_that_was_moved_from_under_a_program_is_refused_until_it_is_back(
    double, spawn_agent, state_folder, tmp_path
):
    first = spawn_agent()
    go = tmp_path / "go"
    attempt = double.offer([["log", "up"], ["wait", str(go)]])
    await double.until(lambda: "up" in attempt.messages)
    first.kill()
    await _ended(first)
    moved = state_folder.root.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"the state folder was moved from .*state while att_"):
        await Attempts(StateFolder(moved), None, None, None).recall()
    moved.rename(state_folder.root)
    spawn_agent(token="")
    await double.until(lambda: len(double.registered) == 2)
    go.touch()
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.SUCCEEDED


async def test_second_agent_on_the_same_folder_is_refused(double, spawn_agent, tmp_path):
    first = spawn_agent()
    await double.until(lambda: double.streams)
    second = spawn_agent()
    assert await _ended(second) == 1  # the driver shows the traceback; the command exits with 2
    assert "another agent runs on" in (tmp_path / "agent-1.log").read_text()
    first.terminate()
    assert await _ended(first) == 0


async def test_no_secret_in_the_log(double, spawn_agent, tmp_path):
    agent = spawn_agent()
    attempt = double.offer([["sample", "a.png"]])
    await double.until(lambda: attempt.finish)
    agent.terminate()
    await _ended(agent)
    text = (tmp_path / "agent-0.log").read_text()
    assert "attempt.claimed" in text
    assert "join-token-of-the-tests" not in text
    assert "credential-0" not in text


async def test_what_has_left_the_session_and_its_parents_is_ended_too(double, start_agent):
    await start_agent()
    attempt = double.offer([["grandchild"], ["escaped"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    pids = [
        int(text.split()[1]) for text in attempt.messages if " " in text and "attempt" not in text
    ]
    assert len(pids) == 2
    double.order_stop(attempt, "cancel")
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.CANCELLED
    assert all(_is_gone(pid) for pid in pids)


async def test_what_has_escaped_is_ended_when_the_trainer_ends_by_itself(double, start_agent):
    await start_agent()
    attempt = double.offer([["escaped"], ["exit", 0]])
    await double.until(lambda: attempt.finish)
    [pid] = [int(text.split()[1]) for text in attempt.messages if text.startswith("escaped")]
    assert _is_gone(pid)


async def test_a_job_of_several_slots_is_launched_as_as_many_processes(double, start_agent):
    await start_agent(slots=4)
    attempt = double.offer([["arguments"], ["environment", "OMP_NUM_THREADS"]], slots=[1, 3])
    await double.until(lambda: attempt.finish)
    [arguments] = [json.loads(text) for text in attempt.messages if text.startswith("[")]
    assert arguments[:4] == ["launch", "--processes", "2", "run"]


async def test_a_job_of_one_slot_is_started_without_a_launcher(double, start_agent):
    await start_agent(slots=4)
    attempt = double.offer([["arguments"]], slots=[2])
    await double.until(lambda: attempt.finish)
    [arguments] = [json.loads(text) for text in attempt.messages if text.startswith("[")]
    assert arguments[0] == "run"
