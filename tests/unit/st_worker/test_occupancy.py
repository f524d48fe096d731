"""Somebody else on a GPU is told apart from our own attempts, with real processes."""

import os
import subprocess
import sys

import pytest

from st_worker.accelerators.probe import DeviceProcess, DeviceUse
from st_worker.occupancy import ATTEMPT_VARIABLE, Judge, Ours

SLEEP = [sys.executable, "-S", "-c", "print(flush=True); import sys; sys.stdin.read()"]


@pytest.fixture
def start():
    started = []

    def start(command=SLEEP, *, session=False, **environment):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=session,
            env=os.environ | environment,
        )
        process.stdout.readline()  # it is the program now, no copy of this one
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def using(*pids, memory=3.0, used=None):
    processes = tuple(DeviceProcess(pid, memory) for pid in pids)
    return DeviceUse(memory_used_gb=used or memory * len(pids), processes=processes)


def judged(use, ours=None, *, is_gpu=True, **fields):
    found = Judge(1.0, **fields).busy(0, use, ours or Ours(), is_gpu=is_gpu)
    return found and found.code


def test_processes_of_our_attempts_are_ours_however_they_are_related(start):
    leader = start(session=True)
    child = start(ST_ATTEMPT_ID="att_1")
    ours = Ours(supervisors=frozenset({leader.pid}), attempts=frozenset({"att_1"}))
    assert ours.owns(leader.pid)
    assert ours.owns(os.getpid())
    assert ours.owns(child.pid)  # it has left the family, but is told by its environment
    assert not Ours(attempts=frozenset({"att_2"})).owns(child.pid)
    assert not ours.owns(start().pid)
    assert ATTEMPT_VARIABLE == "ST_ATTEMPT_ID"


def test_a_grandchild_in_a_session_of_its_own_is_ours(start):
    fork = (
        "import subprocess, sys;"
        f"p = subprocess.Popen({SLEEP!r}, start_new_session=True, stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read(); p.kill()"
    )
    leader = subprocess.Popen(
        [sys.executable, "-S", "-c", fork],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    grandchild = int(leader.stdout.readline())
    assert Ours(supervisors=frozenset({leader.pid})).owns(grandchild)
    leader.communicate()


def test_somebody_else_is_named_by_pid_program_and_memory(start):
    stranger = start()
    found = Judge(1.0).busy(0, using(stranger.pid), Ours(), is_gpu=True)
    assert found.code == "foreign_process"
    assert found.message.startswith(f"process {stranger.pid} (python")
    assert found.message.endswith(", 3 GiB")


def test_our_own_process_does_not_make_a_slot_busy_but_a_second_one_does(start):
    mine, stranger = start(session=True), start()
    ours = Ours(supervisors=frozenset({mine.pid}), slots=frozenset({0}))
    assert judged(using(mine.pid), ours) is None
    assert judged(using(mine.pid, stranger.pid), ours) == "foreign_process"


def test_our_own_process_on_a_slot_that_it_does_not_hold_keeps_others_from_it(start):
    # The GPUs got other numbers under it, such as by MIG, and the next agent counts anew.
    mine = start(session=True)
    ours = Ours(supervisors=frozenset({mine.pid}), slots=frozenset({1}))
    assert judged(using(mine.pid), ours) == "foreign_process"
    assert judged(using(os.getpid()), ours) is None  # the agent itself is no job


def test_the_memory_of_a_desktop_is_nobodys_computing(start):
    assert judged(DeviceUse(memory_used_gb=2.5, processes=(), is_drawn_on=True)) is None
    computing = (DeviceProcess(start().pid, 1.0),)
    drawn_on = DeviceUse(memory_used_gb=2.5, processes=computing, is_drawn_on=True)
    assert judged(drawn_on) == "foreign_process"


def test_pids_that_cannot_be_seen_are_ours_while_we_hold_the_slot():
    # Inside a container the driver gives the host's numbers.
    held, unseen = Ours(slots=frozenset({0})), {"exists": lambda pid: False}
    assert judged(using(2**22 + 5), held, **unseen) is None
    assert judged(using(2**22 + 5), **unseen) == "foreign_process"


def test_memory_without_a_process_counts_from_a_threshold_on_where_nothing_of_ours_runs():
    assert judged(DeviceUse(memory_used_gb=0.6)) is None
    assert judged(DeviceUse(memory_used_gb=1.6)) == "foreign_memory"
    assert judged(DeviceUse(memory_used_gb=40), Ours(slots=frozenset({0}))) is None
    assert judged(DeviceUse(memory_used_gb=40), is_gpu=False) is None


def test_a_lost_device_is_never_offered():
    assert judged(DeviceUse(lost="GPU is lost"), Ours(slots=frozenset({0}))) == "lost"
