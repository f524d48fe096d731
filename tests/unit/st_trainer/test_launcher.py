"""The launcher by itself: what torchrun is told, and what becomes of signals and failures."""

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psutil
import pytest
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from st_shared.protocol.journal import ExitCode
from st_trainer import launch
from st_trainer.launch import Hosts, _config, _Launcher

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ARGUMENTS = ["run", "job.yaml"]


@pytest.fixture(autouse=True)
def signals_as_before():
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, taken in zip(numbers, before, strict=True):
        signal.signal(number, taken)


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Makes a launcher whose processes are ``work``; and what they were started with."""

    def make(work):
        started = []

        def elastic_launch(config, program):
            def run(*arguments):
                started.append((config.nproc_per_node, program, arguments))
                work()

            return run

        monkeypatch.setattr(launch, "elastic_launch", elastic_launch)
        return _Launcher(_config(2, Hosts(), str(tmp_path)), ARGUMENTS), started

    return make


def failed(*codes):
    """The error of processes that ended with ``codes``, the last of them first."""
    return ChildFailedError(
        "run",
        {
            rank: SimpleNamespace(exitcode=code, timestamp=(NOW - timedelta(seconds=rank)))
            for rank, code in enumerate(codes)
        },
    )


@pytest.fixture(autouse=True)
def failures_without_a_report(monkeypatch):
    monkeypatch.setattr(ChildFailedError, "format_msg", lambda self: self.name)


def raising(error):
    def work():
        raise error

    return work


def test_one_host_meets_by_itself_and_beside_others(tmp_path):
    first, second = (_config(3, Hosts(), str(tmp_path)) for _ in range(2))
    assert (first.min_nodes, first.max_nodes, first.nproc_per_node) == (1, 1, 3)
    assert (first.rdzv_backend, first.rdzv_endpoint) == ("c10d", "localhost:0")
    assert first.local_addr == "localhost"
    assert first.run_id != second.run_id  # two trainings on one host do not meet
    assert first.max_restarts == 0  # whether to start again is for the queue


def test_several_hosts_meet_at_the_first_under_one_name(tmp_path):
    found = [_config(2, Hosts(3, rank, "10.0.0.7:29500"), str(tmp_path)) for rank in range(3)]
    for rank, each in enumerate(found):
        assert (each.min_nodes, each.max_nodes, each.nproc_per_node) == (3, 3, 2)
        assert (each.rdzv_backend, each.rdzv_endpoint) == ("static", "10.0.0.7:29500")
        assert each.rdzv_configs["rank"] == rank
        assert each.rdzv_configs["timeout"] == 300
        assert (each.local_addr, each.max_restarts) == (None, 0)
    assert len({each.run_id for each in found}) == 1


def test_every_process_is_the_trainer_with_the_arguments_given(launched):
    launcher, started = launched(lambda: None)
    assert launcher.run() == ExitCode.SUCCEEDED
    [(processes, program, arguments)] = started
    assert (processes, arguments) == (2, ("-m", "st_trainer", *ARGUMENTS))
    assert "python" in program


def test_of_two_causes_the_first_is_told(launched):
    launcher, _ = launched(raising(failed(ExitCode.DISK_FULL, ExitCode.NOT_FINITE)))
    assert launcher.run() == ExitCode.NOT_FINITE


def test_an_end_without_a_cause_is_a_crash(launched):
    launcher, _ = launched(lambda: None)
    launcher._launch = lambda: None  # as where its thread dies
    assert launcher.run() == ExitCode.CRASHED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_reaches_every_process_once(launched, monkeypatch, number):
    children = [Child(pid) for pid in (11, 12, 13)]
    children[1].is_gone = True
    alive = [children[:2], children, children]
    rounds = iter(alive)
    all_asked = threading.Event()

    def now_alive():
        found = next(rounds, None)
        if found is None:
            all_asked.set()
        return found or children

    ourselves = SimpleNamespace(children=now_alive)
    seen = SimpleNamespace(Process=lambda: ourselves, NoSuchProcess=psutil.NoSuchProcess)
    monkeypatch.setattr(launch, "psutil", seen)

    def work():
        os.kill(os.getpid(), number)
        assert all_asked.wait(60)
        raise failed(-signal.SIGTERM, ExitCode.PEER_LOST)

    launcher, _ = launched(work)
    assert launcher.run() == ExitCode.PREEMPTED
    assert [each.asked for each in children] == [1, 1, 1]  # a second time it would end at once


class Child:
    """A process; as much of one as is asked to stop."""

    def __init__(self, pid):
        self.pid, self.asked, self.is_gone = pid, 0, False

    def terminate(self):
        self.asked += 1
        if self.is_gone:
            raise psutil.NoSuchProcess(self.pid)


@pytest.mark.parametrize(
    ("asked", "told"), [(False, ExitCode.PEER_LOST), (True, ExitCode.PREEMPTED)]
)
def test_hosts_that_do_not_meet_because_they_were_to_stop_have_stopped(launched, asked, told):
    def work():
        launcher._stopping = asked
        raise DistError("nobody came")

    launcher, _ = launched(work)
    launcher._launch()
    assert launcher._code == told


def test_processes_that_end_by_themselves_in_the_way_of_a_stop_are_not_taken_for_one(launched):
    launcher, _ = launched(raising(failed(-signal.SIGTERM, ExitCode.PEER_LOST)))
    assert launcher.run() == ExitCode.PEER_LOST
