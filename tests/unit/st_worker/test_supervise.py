"""The supervisor as a real process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from st_worker.supervise import oom_kills
from st_worker.trainer import TrainerExit, TrainerProcess


def _supervised(folder: Path, *command: str, **options) -> subprocess.Popen[bytes]:
    supervisor = [sys.executable, "-m", "st_worker.supervise", str(folder), "--", *command]
    return subprocess.Popen(supervisor, start_new_session=True, **options)


def _note(folder: Path) -> dict:
    return json.loads((folder / "exit.json").read_text())


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code_is_noted(tmp_path, code):
    assert _supervised(tmp_path, "/bin/sh", "-c", f"exit {code}").wait(120) == 0
    note = _note(tmp_path)
    assert (note["code"], note["signal"], note["error"]) == (code, None, None)
    assert note["ended_at"].endswith("+00:00")
    assert [path.name for path in tmp_path.iterdir()] == ["exit.json"]


def test_signal_is_noted(tmp_path):
    _supervised(tmp_path, "/bin/sh", "-c", "kill -9 $$").wait(120)
    assert (_note(tmp_path)["code"], _note(tmp_path)["signal"]) == (None, 9)


def test_command_that_is_not_there_is_noted(tmp_path):
    _supervised(tmp_path, "/no/such").wait(120)
    assert _note(tmp_path)["error"] == "cannot start /no/such: No such file or directory"


def test_request_to_stop_reaches_the_child_once(tmp_path):
    script = (
        "import signal,sys,time; got=[]; "
        "signal.signal(signal.SIGTERM, lambda *_: got.append(1)); print('up', flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.2); sys.exit(40 + len(got))"
    )
    process = _supervised(tmp_path, sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGTERM)
    process.wait(120)
    process.stdout.close()
    assert _note(tmp_path)["code"] == 41


def test_only_the_standard_library_is_imported():
    listing = "import sys, st_worker.supervise; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pydantic", "httpx", "psutil", "structlog"} & set(found)


def test_trainer_is_found_by_another_and_ended_whole(tmp_path):
    command = ["/bin/sh", "-c", "sleep 600 & echo up; wait; exec sleep 600"]
    output = tmp_path / "output.log"
    mine = TrainerProcess.start(tmp_path, command, os.environ, output)
    try:
        while b"up" not in output.read_bytes():
            assert mine.exit() is None
        theirs = TrainerProcess.find(tmp_path)
        assert theirs.pid == mine.pid
        assert len(theirs.members()) == 3
        assert TrainerProcess.find(tmp_path / "other") is None
    finally:
        mine.kill()
    while (ended := mine.exit()) is None:
        pass
    assert ended.monotonic is not None
    assert ended == TrainerExit(signal=9, monotonic=ended.monotonic)
    while mine.members():  # what was killed may take a moment to go
        pass
    assert output.stat().st_mode & 0o777 == 0o600


def test_pid_that_a_stranger_has_now_is_left_alone(tmp_path):
    stranger = TrainerProcess(tmp_path, os.getpid())
    assert stranger.exit() == TrainerExit()
    stranger.kill()
    stranger.ask()
    assert stranger.members() == []


def test_what_the_kernel_ended_for_want_of_memory_is_counted(tmp_path):
    assert oom_kills(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "vmstat").write_text("pgfault 12\noom_kill 2\n")
    assert oom_kills(tmp_path) == 2
    events = tmp_path / "sys" / "fs" / "cgroup" / "memory.events"
    events.parent.mkdir(parents=True)
    events.write_text("low 0\noom 5\noom_kill 4\noom_group_kill 1\n")
    assert oom_kills(tmp_path) == 4


def test_the_note_says_how_many_while_it_ran(tmp_path):
    _supervised(tmp_path, "/bin/true").wait(120)
    assert _note(tmp_path)["oom_kills"] >= 0


def test_a_session_that_has_the_pid_of_a_supervisor_from_before_is_left_alone(tmp_path):
    """Its leader is gone, as a daemon's often is, and it is older or of a later boot."""
    script = "sleep 600 & echo $!; kill -9 $$"
    leader = subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    stranger = psutil.Process(int(leader.stdout.readline()))
    leader.stdout.close()
    leader.wait(120)
    begun = stranger.create_time()
    try:
        later = TrainerProcess(tmp_path, leader.pid, started=begun + 60)
        before_boot = TrainerProcess(tmp_path, leader.pid, started=psutil.boot_time() - 60)
        own = TrainerProcess(tmp_path, leader.pid, started=begun)
        assert (later.members(), before_boot.members()) == ([], [])
        assert own.members() == [stranger.pid]
    finally:
        stranger.kill()


def test_a_supervisor_knows_when_it_was_started(tmp_path):
    mine = TrainerProcess.start(tmp_path, ["/bin/sleep", "600"], os.environ, tmp_path / "o.log")
    try:
        assert mine.started == psutil.Process(mine.pid).create_time()
    finally:
        mine.kill()
    while mine.exit() is None:
        pass
