from st_shared.protocol.worker import Inventory, Slot
from st_worker.slot_environment import script_environment, trainer_environment


def host(vendor, *, uuid=True, slots=2):
    return Inventory(
        hostname="host",
        slots=[
            Slot(
                index=index,
                accelerator=vendor,
                memory_gb=80,
                vendor=vendor,
                uuid=f"GPU-{index}a" if uuid else None,
            )
            for index in range(slots)
        ],
        cpus=8,
        memory_gb=64,
        disk_free_gb=100,
        platform="Linux",
    )


LEAKY = {
    "PATH": "/bin",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "HIP_VISIBLE_DEVICES": "0",
    "ROCR_VISIBLE_DEVICES": "3",
}


def test_trainer_sees_its_own_gpus_alone():
    base = {**LEAKY, "ST_API_KEY": "secret", "ST_DATASETS_DIR": "/d", "HF_TOKEN": "kept"}
    assert trainer_environment(base, host("nvidia"), [1]) == {
        "PATH": "/bin",
        "ST_DATASETS_DIR": "/d",
        "HF_TOKEN": "kept",
        "CUDA_VISIBLE_DEVICES": "GPU-1a",
    }


def test_rocm_is_told_by_one_variable_alone():
    # HIP's and CUDA's would count within what ROCr leaves.
    found = trainer_environment(LEAKY, host("amd"), [0, 1])
    assert found == {"PATH": "/bin", "ROCR_VISIBLE_DEVICES": "GPU-0a,GPU-1a"}
    numbered = trainer_environment({}, host("amd", uuid=False), [1])
    assert numbered == {"ROCR_VISIBLE_DEVICES": "1"}


def test_apple_needs_nothing_and_a_share_of_the_cpu_sees_no_accelerator():
    assert trainer_environment(LEAKY, host("apple", slots=1), [0]) == {"PATH": "/bin"}
    assert trainer_environment(LEAKY, host("cpu", uuid=False), [0]) == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "",
        "ROCR_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "4",
    }


def test_script_gets_no_secret():
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
    found = script_environment(secrets | plain, host("nvidia"), [0])
    assert found == plain | {"CUDA_VISIBLE_DEVICES": "GPU-0a"}
