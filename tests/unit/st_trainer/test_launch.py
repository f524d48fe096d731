"""Starting several processes: which exit code counts."""

import socket

import pytest
from click.testing import CliRunner

from st_shared.protocol.journal import ExitCode
from st_trainer import launch
from st_trainer.cli import st_train
from st_trainer.errors import DeviceFaultError, OutOfMemoryError, PeerLostError, expected_error
from st_trainer.launch import telling


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([ExitCode.PREEMPTED, ExitCode.PREEMPTED], ExitCode.PREEMPTED),
        ([ExitCode.PEER_LOST, ExitCode.OUT_OF_MEMORY], ExitCode.OUT_OF_MEMORY),
        ([ExitCode.PEER_LOST, ExitCode.CRASHED], ExitCode.CRASHED),
        ([-15, ExitCode.PEER_LOST], ExitCode.PEER_LOST),
        ([-9, -15], 128 + 9),
        ([ExitCode.PEER_LOST, -9], 128 + 9),
        ([-6, ExitCode.CRASHED], ExitCode.CRASHED),
        ([-15, -15], 128 + 15),
        ([ExitCode.NOT_FINITE, ExitCode.DISK_FULL], ExitCode.NOT_FINITE),
        ([], ExitCode.CRASHED),
    ],
)
def test_the_exit_code_that_says_most_counts(codes, told):
    assert telling(codes) == told


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([-15, -15], ExitCode.PREEMPTED),
        ([-15, ExitCode.PEER_LOST], ExitCode.PREEMPTED),
        ([-15, -9], 128 + 9),
        ([-15, ExitCode.CRASHED], ExitCode.CRASHED),
        ([ExitCode.PEER_LOST], ExitCode.PEER_LOST),
    ],
)
def test_processes_that_are_asked_to_stop_before_they_can_take_a_signal_have_stopped(codes, told):
    assert telling(codes, asked=True) == told


def test_hosts_that_do_not_meet_have_lost_each_other(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(launch, "_MEET_SECONDS", 1)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        second = launch.Hosts(2, 1, f"127.0.0.1:{nobody.getsockname()[1]}")
        launcher = launch._Launcher(launch._config(1, second, str(tmp_path)), [])
        launcher._launch()
    assert launcher._code == ExitCode.PEER_LOST
    assert "the hosts did not meet within 1 s" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--processes", "0", "run", "x"], "--processes"),
        (["--processes", "2", "--nodes", "2", "run", "x"], "--rendezvous"),
        (["--processes", "2", "--node-rank", "1", "run", "x"], "--node-rank"),
    ],
)
def test_what_cannot_be_launched_is_refused(arguments, field):
    result = CliRunner().invoke(st_train, ["launch", *arguments])
    assert result.exit_code == 2
    assert field in result.output


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA error: uncorrectable ECC error encountered", DeviceFaultError),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)", PeerLostError),
        ("CUDA error: ECC; Watchdog caught collective operation timeout", DeviceFaultError),
        ("CUDA error: out of memory", OutOfMemoryError),
        ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer", PeerLostError),
    ],
)
def test_faults_of_devices_and_peers_are_expected(text, kind):
    assert type(expected_error(RuntimeError(text))) is kind


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
    ],
)
def test_a_wrong_build_or_kernel_is_no_fault_of_the_device(said):
    assert expected_error(RuntimeError(said)) is None
