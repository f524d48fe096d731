import accelerator_answers as answers

from st_shared.protocol.worker import ProbeWarning
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.registry import Found, find_devices
from st_worker.inventory import take_inventory
from st_worker.model_cache import cached_models


def two_gpus(warnings=()):
    probe = NvidiaProbe.over(answers.nvml_double(2), is_here=True)
    return Found(probe, probe.devices(), list(warnings))


def test_cpu_host_has_one_slot_unless_told_otherwise(tmp_path):
    inventory = take_inventory(tmp_path, find_devices(None, {}))
    assert [(slot.index, slot.accelerator, slot.vendor) for slot in inventory.slots] == [
        (0, "cpu", "cpu")
    ]
    assert [slot.index for slot in take_inventory(tmp_path, find_devices(3, {})).slots] == [0, 1, 2]
    assert inventory.cpus >= 1
    assert inventory.memory_gb > 0
    assert inventory.disk_total_gb >= inventory.disk_free_gb > 0


def test_each_gpu_is_a_slot_with_what_its_driver_tells(tmp_path):
    warning = ProbeWarning(code="amd_driver", message="broken")
    inventory = take_inventory(tmp_path, two_gpus([warning]))
    assert inventory.condition.warnings == [warning]
    first, second = inventory.slots
    assert (first.accelerator, first.memory_gb, first.uuid) == (
        "NVIDIA H100 80GB HBM3",
        80,
        "GPU-0",
    )
    assert (second.uuid, second.vendor, second.driver) == ("GPU-1", "nvidia", "580.95.05")
    assert second.compute_capability == "9.0"


def test_models_that_are_stored_are_told_wherever_the_libraries_keep_them(tmp_path):
    whole = tmp_path / "hub" / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / "a1"
    whole.mkdir(parents=True)
    (whole / "model_index.json").touch()
    (tmp_path / "hub" / "models--half--fetched" / "blobs").mkdir(parents=True)
    (tmp_path / "hub" / "datasets--some--set" / "snapshots" / "b" / "c").mkdir(parents=True)
    expected = ["black-forest-labs/FLUX.1-dev"]
    assert cached_models({"HF_HOME": str(tmp_path)}) == expected
    assert cached_models({"HF_HUB_CACHE": str(tmp_path / "hub")}) == expected
    assert cached_models({"HF_HOME": str(tmp_path / "absent")}) == []
