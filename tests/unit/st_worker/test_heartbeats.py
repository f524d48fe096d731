"""Heartbeats go whatever trainers and drivers do, and tell who else uses the accelerators."""

import asyncio
import os
import threading
import traceback
from dataclasses import replace
from types import SimpleNamespace

import accelerator_answers as answers
import psutil
import pytest
from structlog.testing import capture_logs

from st_shared.protocol.states import Outcome
from st_worker import agent, datasets
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.registry import Found
from st_worker.credential import Credential
from st_worker.folder import StateFolder
from st_worker.trainer import TrainerProcess

pytestmark = pytest.mark.anyio

STRANGER = 1
"""The first process of this machine is none of an agent's."""


def found_of(nvml):
    probe = NvidiaProbe.over(nvml, is_here=True)
    return Found(probe, probe.devices(), [])


async def test_beats_go_while_the_trainer_stalls_and_the_driver_hangs(
    double, start_agent, agent_settings
):
    nvml, released = answers.nvml_double(1), threading.Event()
    found = found_of(nvml)
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: released.wait(60)
    await start_agent(
        found=found,
        settings=replace(agent_settings, sample_seconds=0.01, first_sample_seconds=0.01),
    )
    attempt = double.offer([["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 5)
    released.set()
    assert all(beat.usage is None for beat in double.heartbeats)
    assert double.heartbeats[-1].holding[0].attempt_id == attempt.claim.attempt_id


async def test_beats_go_while_a_trainer_that_was_taken_over_cannot_be_looked_at(
    double, start_agent, tmp_path, monkeypatch
):
    first = await start_agent()
    attempt = double.offer([["wait", str(tmp_path / "go")]])
    await double.until(lambda: "running" in attempt.states)
    started = await first.let_go()
    looked, released = threading.Event(), threading.Event()
    is_alive = TrainerProcess._is_alive

    def hangs(process):
        looked.set()
        return released.wait(60) and is_alive(process)

    monkeypatch.setattr(TrainerProcess, "_is_alive", hangs)
    await start_agent(token=None)
    await double.until(looked.is_set)
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 3)
    released.set()
    (tmp_path / "go").touch()
    await double.until(lambda: attempt.finish)
    started.wait()


async def test_beats_go_while_what_is_abandoned_does_not_end_and_its_slot_waits(
    double, start_agent, monkeypatch
):
    first = await start_agent()
    attempt = double.offer([["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    started = await first.let_go()
    with monkeypatch.context() as patched:
        patched.setattr(TrainerProcess, "kill", lambda process: None)
        patched.setattr(TrainerProcess, "members", lambda process: [process.pid])
        double.abandon = [attempt.claim.attempt_id]
        await start_agent(token=None)
        count = len(double.heartbeats)
        after = double.offer([])
        await double.until(lambda: after.is_claimed and len(double.heartbeats) >= count + 3)
        assert "running" not in after.states
    await double.until(lambda: after.finish)
    assert (after.finish.outcome, attempt.finish) == (Outcome.SUCCEEDED, None)
    started.wait()


@pytest.fixture
def hung():
    """A call that does not return before the test is over."""
    released = threading.Event()
    yield lambda *_, **__: released.wait(60)
    released.set()


async def test_beats_go_while_the_disks_of_cache_and_state_hang(
    double, start_agent, agent_settings, monkeypatch, hung
):
    """Caches may be shared over a network, whose servers go away."""
    await start_agent(settings=replace(agent_settings, sample_seconds=0.01))
    await double.until(lambda: double.heartbeats)
    monkeypatch.setattr(datasets, "nlargest", hung)
    monkeypatch.setattr(Credential, "load", hung)
    monkeypatch.setattr(StateFolder, "pulse", SimpleNamespace(touch=hung))
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 5)
    assert all(beat.cached is None for beat in double.heartbeats)


async def test_a_disk_that_takes_no_pulse_costs_no_agent(double, start_agent, state_folder):
    state_folder.pulse.symlink_to(state_folder.root / "gone" / "pulse")
    hands = await start_agent()
    with capture_logs() as logs:
        await double.until(lambda: any(line["event"] == "disk.failed" for line in logs))
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 3)
    assert not hands.task.done()


async def test_what_keeps_the_agent_from_working_is_told(monkeypatch):
    monkeypatch.setattr(agent, "STALLED_SECONDS", 0.05)
    with capture_logs() as logs:
        pause = asyncio.create_task(agent._sleep(0.01))
        await asyncio.sleep(0)
        threading.Event().wait(0.1)  # holds the loop
        await pause
    (line,) = (line for line in logs if line["event"] == "agent.stalled")
    assert line["log_level"] == "warning"
    assert line["seconds"] >= 0.1


async def test_beats_carry_load_memory_and_temperature(double, start_agent):
    await start_agent(found=found_of(answers.nvml_double(2)), slots=None)
    await double.until(lambda: double.heartbeats)
    first, second = double.heartbeats[0].usage.slots
    assert (first.utilisation, first.memory_used_gb, first.temperature_c) == (91, 0.25, 60)
    assert second.index == 1


async def test_somebody_else_is_told_once_and_when_they_have_gone(double, start_agent):
    processes = {}
    await start_agent(found=found_of(answers.nvml_double(2, processes=processes)), slots=None)
    await double.until(lambda: double.heartbeats)
    assert double.registered[0].inventory.condition.busy == []
    processes[1] = [(STRANGER, 30 * answers.GIB)]
    await double.until(lambda: told(double))
    (busy,) = told(double)[0].busy
    assert (busy.index, busy.code) == (1, "foreign_process")
    assert busy.message == f"process 1 ({psutil.Process(1).name()}), 30 GiB"
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 3)
    assert len(told(double)) == 1
    processes.clear()
    await double.until(lambda: len(told(double)) == 2)
    assert told(double)[1].busy == []


async def test_models_that_jobs_have_fetched_are_told_when_they_are_seen(
    double, start_agent, agent_settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("st_worker.sampling.MODELS_SECONDS", 0.0)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    await start_agent(settings=replace(agent_settings, shares_models=True))
    await double.until(lambda: double.heartbeats)
    revision = tmp_path / "models--acme--tiny" / "snapshots" / "a1"
    revision.mkdir(parents=True)
    (revision / "model_index.json").touch()
    await double.until(lambda: double.heartbeats[-1].cached_models is not None)
    assert double.heartbeats[-1].cached_models == ["acme/tiny"]
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 1)
    assert sum(beat.cached_models is not None for beat in double.heartbeats) == 1


async def test_a_trainer_that_was_taken_over_is_not_somebody_else(double, start_agent, tmp_path):
    processes = {}
    nvml = answers.nvml_double(1, processes=processes, used={0: 40 * answers.GIB})
    first = await start_agent(found=found_of(nvml))
    attempt = double.offer([["grandchild"], ["wait", str(tmp_path / "go")]])
    await double.until(lambda: attempt.messages[-1:] and "grandchild" in attempt.messages[-1])
    child = int(attempt.messages[-1].split()[-1])
    trainer = psutil.Process(child).parent()
    processes[0] = [(trainer.pid, None), (child, 2**30)]
    started = await first.let_go()
    await start_agent(found=found_of(nvml), token=None)
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 3)
    assert trainer.is_running()
    assert double.registered[1].inventory.condition.busy == []
    assert [condition for condition in told(double) if condition.busy] == []
    (tmp_path / "go").touch()
    await double.until(lambda: attempt.finish)
    started.wait()


def told(double):
    return [beat.condition for beat in double.heartbeats if beat.condition is not None]


async def test_no_beat_waits_for_a_disk_that_is_busy_with_checkpoints(
    double, start_agent, pack_dataset, monkeypatch, state_folder
):
    """Forcing a file to a disk takes as long as all that is on its way there."""
    await start_agent(slots=2)
    await double.until(lambda: double.streams)
    waited, here, fsync = [], threading.get_ident(), os.fsync

    def watched(descriptor):
        if threading.get_ident() == here:
            waited.append(traceback.format_stack(limit=8))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    dataset = pack_dataset("digits", {"a.txt": b"a"})
    script = [["log", "begun"], ["checkpoint", 3], ["sample", "a.png"], ["until_stopped"]]
    training = double.offer(script, datasets=[dataset])
    shell = double.offer(slots=[1], command={"run": "echo done"})
    await double.until(lambda: "a.png" in training.artifacts and training.artifacts["a.png"])
    double.push("rotate", '{"ordered_at":"2026-01-01T00:00:00Z"}')
    await double.until(lambda: known(state_folder) == ("credential-1", None))
    double.order_stop(training, "preempt")
    await double.until(lambda: training.finish and shell.finish)
    assert not waited, "".join(waited[0])


def known(folder):
    credential = Credential.load(folder)
    return credential.secret, credential.previous
