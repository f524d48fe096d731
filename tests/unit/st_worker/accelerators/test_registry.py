import threading

import accelerator_answers as answers
import pytest

from st_worker.accelerators import nvidia
from st_worker.accelerators.amd import AmdProbe
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.probe import ProbeFailed
from st_worker.accelerators.registry import find_devices
from st_worker.accelerators.rocm_smi import RocmSmiProbe
from st_worker.errors import UsageError


def two_gpus():
    return NvidiaProbe.over(answers.nvml_double(2), is_here=True)


def broken():
    raise ProbeFailed("nvidia_driver", "NVML: version mismatch")


def test_the_first_vendor_with_devices_is_taken():
    found = find_devices(None, {"nvidia": lambda: None, "amd": two_gpus, "apple": broken})
    assert (found.probe.vendor, len(found.devices), found.warnings) == ("nvidia", 2, [])


def test_slots_limit_accelerators_or_count_shares_of_the_processors():
    assert len(find_devices(1, {"nvidia": two_gpus}).devices) == 1
    with pytest.raises(UsageError, match="--slots 3: this machine has 2 GPUs"):
        find_devices(3, {"nvidia": two_gpus})
    alone, shared = find_devices(None, {}).devices[0], find_devices(3, {}).devices
    assert len(shared) == 3
    assert shared[0].memory_gb == pytest.approx(alone.memory_gb / 3, abs=0.01)


def test_a_worker_that_has_joined_lends_the_gpus_that_are_left():
    found = find_devices(3, {"nvidia": two_gpus}, has_joined=True)
    assert len(found.devices) == 2
    assert [warning.code for warning in found.warnings] == ["too_few"]
    assert "--slots 3: this machine has 2 GPUs" in found.warnings[0].message


def test_a_probe_that_fails_is_named_and_the_agent_lives():
    def surprised():
        raise OSError("libamd_smi.so: wrong ELF class")

    found = find_devices(None, {"nvidia": broken, "amd": surprised})
    assert found.probe.vendor == "cpu"
    assert [warning.code for warning in found.warnings] == ["nvidia_driver", "amd_probe"]
    assert "wrong ELF class" in found.warnings[1].message


def test_a_driver_that_hangs_is_waited_for_only_so_long():
    released = threading.Event()
    found = find_devices(None, {"nvidia": lambda: released.wait(60) and None}, seconds=0.02)
    released.set()
    assert found.probe.vendor == "cpu"
    assert [warning.code for warning in found.warnings] == ["nvidia_no_answer"]


def test_devices_that_do_not_answer_degrade_as_well():
    def fallen():
        return NvidiaProbe.over(answers.nvml_double(1, lost={0}), is_here=True)

    found = find_devices(None, {"nvidia": fallen})
    assert [warning.code for warning in found.warnings] == ["nvidia_device"]


def test_a_host_without_a_vendors_driver_is_not_warned_of_it(tmp_path):
    assert AmdProbe.open(tmp_path / "kfd") is None
    assert RocmSmiProbe.open(tmp_path / "kfd") is None


def test_a_driver_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    (tmp_path / "driver").touch()
    with pytest.raises(ProbeFailed, match=r"pip install 'st-fleet\[cuda\]'"):
        NvidiaProbe.open(tmp_path / "driver")
    assert NvidiaProbe.open(tmp_path / "absent") is None
    with pytest.raises(ProbeFailed, match="amd-smi-lib or rocm-smi-lib"):
        RocmSmiProbe.open(tmp_path / "driver")
    assert nvidia._DRIVER.is_absolute()
