"""Measuring never delays whoever asks, and what is known is told."""

import threading

import accelerator_answers as answers
import pytest

from st_shared.protocol.worker import ProbeWarning
from st_worker.accelerators.cpu import CpuProbe
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.probe import DeviceUse, ProbeFailed
from st_worker.accelerators.registry import Found
from st_worker.inventory import slots_of
from st_worker.occupancy import Judge, Ours
from st_worker.room import Room
from st_worker.sampling import Sampler

pytestmark = pytest.mark.anyio


def sampler_of(probe, tmp_path, **fields):
    slots = slots_of(Found(probe, probe.devices(), []))
    return Sampler(probe, slots, tmp_path, Judge(1.0, exists=lambda pid: True), **fields)


async def test_all_is_told_of_a_gpu_and_who_else_uses_it(tmp_path):
    double = answers.nvml_double(2, processes={1: [(2**22 + 1, 5 * 2**30)]})
    sampler = sampler_of(NvidiaProbe.over(double, is_here=True), tmp_path)
    sample = await sampler.take(Ours(), 60)
    first, _ = sample.usage.slots
    assert (first.utilisation, first.memory_used_gb, first.temperature_c) == (91, 0.25, 60)
    assert sample.usage.disk_free_gb > 0
    assert [(busy.index, busy.code) for busy in sample.condition.busy] == [(1, "foreign_process")]


async def test_a_full_disk_withdraws_every_slot_of_which_nothing_else_is_said(tmp_path):
    double = answers.nvml_double(2, processes={1: [(2**22 + 1, 5 * 2**30)]})
    free = [0]
    room = Room(tmp_path, 2.0, free=lambda folder: free[0])
    sampler = sampler_of(NvidiaProbe.over(double, is_here=True), tmp_path, room=room)
    busy = (await sampler.take(Ours(), 60)).condition.busy
    assert sorted((each.index, each.code) for each in busy) == [
        (0, "disk_full"),
        (1, "foreign_process"),
    ]
    free[0] = 2**40
    busy = (await sampler.take(Ours(), 60)).condition.busy
    assert [(each.index, each.code) for each in busy] == [(1, "foreign_process")]


async def test_a_slot_that_was_ours_a_moment_ago_is_not_somebody_elses_memory(tmp_path):
    used = {0: 40 * 2**30}
    probe = NvidiaProbe.over(answers.nvml_double(1, used=used), is_here=True)
    sampler = sampler_of(probe, tmp_path)
    held = Ours(slots=frozenset({0}))
    assert (await sampler.take(held, 60)).condition.busy == []
    assert (await sampler.take(Ours(), 60)).condition.busy == []  # the driver may be slow
    assert [busy.code for busy in (await sampler.take(Ours(), 60)).condition.busy] == [
        "foreign_memory"
    ]
    used.clear()
    assert (await sampler.take(Ours(), 60)).condition.busy == []


class HangingProbe:
    vendor = "nvidia"

    def __init__(self):
        self.asked, self.released, self.calls = threading.Event(), threading.Event(), 0

    def devices(self):
        return NvidiaProbe.over(answers.nvml_double(2), is_here=True).devices()

    def use(self, place):
        self.calls += 1
        self.asked.set()
        self.released.wait(60)
        return DeviceUse(utilisation=5, memory_used_gb=0)


async def test_a_driver_that_hangs_is_asked_once_and_its_slots_are_withdrawn(tmp_path):
    probe, now = HangingProbe(), [0.0]
    sampler = sampler_of(probe, tmp_path, patience=15, clock=lambda: now[0])
    ours = Ours(slots=frozenset({1}))
    early = await sampler.take(ours, 0.01)
    assert (early.usage, early.condition.busy) == (None, [])
    now[0] = 15
    late = await sampler.take(ours, 0.01)
    assert [(busy.index, busy.code) for busy in late.condition.busy] == [(0, "no_answer")]
    assert [warning.code for warning in late.condition.warnings] == ["nvidia_no_answer"]
    assert probe.asked.wait(60)
    assert probe.calls == 1
    probe.released.set()
    healed = await sampler.take(ours, 60)
    assert healed.condition.busy == []
    assert healed.condition.warnings == []
    assert healed.usage.slots[0].utilisation == 5


class FailingProbe(CpuProbe):
    def use(self, place):
        raise ProbeFailed("amd_answer", "rocm-smi printed no JSON")


async def test_a_probe_that_fails_is_named_and_what_was_known_stands(tmp_path):
    kept = ProbeWarning(code="amd_library", message="missing")
    sampler = sampler_of(FailingProbe(1), tmp_path, warnings=[kept])
    sample = await sampler.take(Ours(), 60)
    assert sample.usage is None
    assert [warning.code for warning in sample.condition.warnings] == ["amd_library", "amd_answer"]
