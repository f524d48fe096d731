import types

import pytest

from st_worker.errors import UsageError
from st_worker.inventory import (
    script_environment,
    slot_use,
    take_inventory,
    trainer_environment,
)


@pytest.fixture
def two_gpus():
    """NVML bindings of a host with two accelerators, the second of which has fallen off."""

    class NVMLError(Exception):
        pass

    def rates(device):
        if device == 1:
            raise NVMLError
        return types.SimpleNamespace(gpu=91)

    nvml = types.ModuleType("pynvml")
    nvml.NVMLError = NVMLError
    nvml.NVML_TEMPERATURE_GPU = 0
    nvml.nvmlDeviceGetCount = lambda: 2
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetName = lambda _device: b"NVIDIA H100 80GB HBM3"
    nvml.nvmlDeviceGetUUID = lambda device: f"GPU-{device}"
    nvml.nvmlDeviceGetMemoryInfo = lambda _device: types.SimpleNamespace(
        total=80 * 2**30, used=2**30
    )
    nvml.nvmlDeviceGetUtilizationRates = rates
    nvml.nvmlDeviceGetTemperature = lambda _device, _sensor: 60
    return nvml


def test_cpu_host_has_one_slot_unless_told_otherwise(tmp_path):
    inventory = take_inventory(tmp_path, None, None)
    assert [(slot.index, slot.accelerator) for slot in inventory.slots] == [(0, "cpu")]
    three = take_inventory(tmp_path, 3, None)
    assert [slot.index for slot in three.slots] == [0, 1, 2]
    assert three.slots[0].memory_gb == pytest.approx(inventory.memory_gb / 3, abs=0.01)
    (use,) = slot_use(inventory.slots, None)
    assert use.memory_used_gb > 0


def test_each_gpu_is_a_slot(tmp_path, two_gpus):
    inventory = take_inventory(tmp_path, None, two_gpus)
    assert [(slot.accelerator, slot.memory_gb, slot.uuid) for slot in inventory.slots] == [
        ("NVIDIA H100 80GB HBM3", 80, "GPU-0"),
        ("NVIDIA H100 80GB HBM3", 80, "GPU-1"),
    ]
    assert len(take_inventory(tmp_path, 1, two_gpus).slots) == 1
    with pytest.raises(UsageError, match="--slots 3: this machine has 2 GPUs"):
        take_inventory(tmp_path, 3, two_gpus)


def test_use_of_gpus_leaves_out_what_cannot_be_measured(tmp_path, two_gpus):
    fine, fallen = slot_use(take_inventory(tmp_path, None, two_gpus).slots, two_gpus)
    assert (fine.utilisation, fine.memory_used_gb, fine.temperature_c) == (91, 1, 60)
    assert fallen.utilisation is None


def test_trainer_sees_its_own_gpus_alone(tmp_path, two_gpus):
    inventory = take_inventory(tmp_path, None, two_gpus)
    base = {"PATH": "/bin", "ST_API_KEY": "secret", "ST_DATASETS_DIR": "/d", "HF_TOKEN": "kept"}
    assert trainer_environment(base, inventory, [1]) == {
        "PATH": "/bin",
        "ST_DATASETS_DIR": "/d",
        "HF_TOKEN": "kept",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
    }


def test_script_gets_no_secret(tmp_path):
    inventory = take_inventory(tmp_path, 2, None)
    secrets = {
        "ST_JOIN_TOKEN": "x",
        "ST_DATABASE_URL": "postgresql://db/st",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "x",
        "HF_TOKEN": "x",
        "PGPASSWORD": "x",
        "PGPASSFILE": "/home/me/.pgpass",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "my_api_key": "x",
        "HTTPS_PROXY": "http://me:word@proxy:3128",
    }
    plain = {"PATH": "/bin", "HOME": "/home/me", "LANG": "C.UTF-8", "HTTP_PROXY": "http://proxy:1"}
    found = script_environment(secrets | plain | {"OMP_NUM_THREADS": "3"}, inventory, [0])
    assert found == plain | {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}
