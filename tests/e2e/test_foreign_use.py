"""A GPU that somebody else uses: from the driver's answer to the reason that people read."""

import json

import pytest
from fleet import AgentProcess, wait_for

PYNVML = """
import json, os
from pathlib import Path
import accelerator_answers


class Processes:
    def get(self, handle, default):
        told = json.loads(Path(os.environ["GPU_PROCESSES"]).read_text())
        return told.get(str(handle), default)


globals().update(vars(accelerator_answers.nvml_double(1, processes=Processes())))
"""
"""Stands in the place of the driver's bindings, as the file of processes says."""


@pytest.fixture
def gpu_host(fleet, tmp_path, pytestconfig):
    """Starts a worker with one GPU; gives the file that says who computes on it."""
    (tmp_path / "pynvml.py").write_text(PYNVML)
    processes = tmp_path / "processes.json"
    processes.write_text(json.dumps({"0": [[1, 30 * 2**30]]}))
    token = fleet.client.create_join_token().token
    agent = AgentProcess(tmp_path, fleet.controller.url, "gpu-7", token)
    harness = pytestconfig.rootpath / "tests" / "harness"
    agent._environment |= {
        "PYTHONPATH": f"{tmp_path}:{harness}",
        "GPU_PROCESSES": str(processes),
    }
    agent.start()
    fleet.agents.append(agent)
    return processes


def test_a_gpu_in_use_is_not_offered_and_everybody_is_told_by_whom(fleet, gpu_host):
    worker = wait_for("who uses its GPU", lambda: next(in_use(fleet), None))
    (slot,), (busy,) = worker.inventory.slots, worker.inventory.condition.busy
    assert (slot.uuid, slot.driver, worker.slots_free) == ("GPU-0", "580.95.05", 0)
    assert busy.message.startswith("process 1 (")
    job = fleet.client.submit(
        {
            "name": "where",
            "resources": {"accelerator": "nvidia*"},
            "command": {"run": "echo devices: $CUDA_VISIBLE_DEVICES"},
        }
    ).id
    reason = wait_for("a reason", lambda: _settled(fleet.client.explain(job).reason))
    assert reason.code == "slots_in_use"
    assert f"gpu-7 slot 0: {busy.message}" in reason.message
    gpu_host.write_text("{}")
    wait_for("the end", lambda: fleet.client.job(job).state == "succeeded")
    assert "devices: GPU-0" in [line.message for line in fleet.client.logs(job)]


def in_use(fleet):
    """Workers that have told of somebody else on their slots."""
    return (each for each in fleet.client.workers() if each.inventory.condition.busy)


def _settled(reason):
    return reason if reason and reason.code not in {"new", "no_workers"} else None
