"""``st workers show``: what a worker has, who uses it, and what is wrong."""

import json
from datetime import UTC, datetime

import pytest

from st_shared.protocol.resources import FaultySlot, WorkerView
from st_shared.protocol.states import WorkerDesired, WorkerState
from st_shared.protocol.worker import (
    BusySlot,
    Condition,
    Inventory,
    ProbeWarning,
    Slot,
    SlotUse,
    Usage,
)


def slot(index):
    return Slot(
        index=index,
        accelerator="NVIDIA H100",
        memory_gb=80,
        uuid=f"GPU-{index}",
        vendor="nvidia",
        driver="580.95.05",
        compute_capability="9.0",
    )


@pytest.fixture
def worker(fake_controller):
    busy = BusySlot(index=1, code="foreign_process", message="process 42 (python), 12 GiB")
    view = WorkerView(
        id="wrk_1",
        name="gpu-7",
        state=WorkerState.ONLINE,
        desired=WorkerDesired.ACTIVE,
        ephemeral=False,
        labels={"region": "eu"},
        inventory=Inventory(
            hostname="host",
            slots=[slot(0), slot(1)],
            cpus=16,
            memory_gb=128,
            disk_free_gb=900,
            disk_total_gb=1000,
            platform="Linux",
            cached=["0" * 64],
            cached_models=["black-forest-labs/FLUX.1-dev"],
            condition=Condition(
                busy=[busy], warnings=[ProbeWarning(code="amd_driver", message="AMD SMI: broken")]
            ),
        ),
        agent_version="1",
        joined_at=datetime.now(UTC),
        last_heartbeat_at=datetime.now(UTC),
        usage=Usage(
            slots=[SlotUse(index=0, utilisation=91, memory_used_gb=30.5, temperature_c=60)],
            disk_free_gb=512,
        ),
        slots_free=1,
        jobs=["job_1"],
    )
    fake_controller.workers = [view]
    return view


def test_everything_that_is_known_is_shown(st_run, worker):
    code, out, _ = st_run("workers", "show", "gpu-7")
    assert code == 0
    assert "16 CPUs, 128 GiB memory" in out
    assert "512 of 1000 GiB" in out
    assert "1 datasets; models: black-forest-labs/FLUX.1-dev" in out
    first, second = (line for line in out.splitlines() if "NVIDIA H100 (9.0)" in line)
    assert first.split()[-7:] == ["GiB", "91", "%", "60", "°C", "580.95.05", "ok"]
    assert second.endswith("process 42 (python), 12 GiB [foreign_process]")
    assert "warning: AMD SMI: broken [amd_driver]" in out


def test_the_list_says_which_slots_others_use(st_run, worker):
    _, line = st_run("workers")[1].splitlines()
    assert line.endswith("slot 1: process 42 (python), 12 GiB")


def test_as_json_and_by_id(st_run, worker):
    code, out, _ = st_run("workers", "show", "wrk_1", "--json")
    assert (code, json.loads(out)) == (0, worker.model_dump(mode="json"))


def test_a_worker_that_is_not_there_is_named(st_run, worker):
    code, _, err = st_run("workers", "show", "gpu-8")
    assert code != 0
    assert "gpu-8" in err


def test_a_slot_that_fails_again_and_again_says_so(st_run, worker, fake_controller):
    faulty = FaultySlot(index=0, message="CUDA error: ECC", at=datetime.now(UTC))
    fake_controller.workers = [worker.model_copy(update={"faulty": [faulty]})]
    _, out, _ = st_run("workers", "show", "gpu-7")
    first, _ = (line for line in out.splitlines() if "NVIDIA H100 (9.0)" in line)
    assert first.endswith("failed again and again, last: CUDA error: ECC [faulty]")
