"""What every probe promises, held by the doubles and, where there is one, by the real driver."""

import inspect

import accelerator_answers as answers
import pytest

from st_worker.accelerators.amd import AmdProbe
from st_worker.accelerators.apple import AppleProbe
from st_worker.accelerators.cpu import CpuProbe
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.probe import ProbeFailed
from st_worker.accelerators.registry import PROBES, find_devices
from st_worker.accelerators.rocm_smi import RocmSmiProbe

MADE = {
    "nvidia": lambda: NvidiaProbe.over(answers.nvml_double(), is_here=True),
    "amd": lambda: AmdProbe.over(answers.amdsmi_double()),
    "rocm_smi": lambda: RocmSmiProbe(answers.rocm_smi_answers()),
    "apple": lambda: AppleProbe(answers.apple_answers, "15.5"),
    "cpu": lambda: CpuProbe(2),
}


def real(name):
    try:
        probe = PROBES[name]()
    except ProbeFailed as error:
        pytest.skip(f"the driver of {name} does not answer here: {error}")
    if probe is None:
        pytest.skip(f"this machine has no accelerator that {name} knows")
    return probe


@pytest.fixture(params=[*MADE, *(f"real {name}" for name in PROBES)])
def probe(request):
    name = request.param
    return real(name.removeprefix("real ")) if name.startswith("real ") else MADE[name]()


def test_devices_stay_and_are_whole(probe):
    devices = probe.devices()
    assert devices
    assert devices == probe.devices()
    for device in devices:
        assert device.name
        assert device.memory_gb > 0
    uuids = [device.uuid for device in devices if device.uuid]
    assert len(set(uuids)) == len(uuids)


def test_use_is_told_in_range_and_its_processes_are_numbers(probe):
    for place, device in enumerate(probe.devices()):
        use = probe.use(place)
        assert use.lost is None
        assert use.utilisation is None or 0 <= use.utilisation <= 100
        assert 0 <= use.memory_used_gb <= device.memory_gb / 0.7  # Apple lends a part of it
        assert use.temperature_c is None or -20 < use.temperature_c < 150
        for process in use.processes or ():
            assert process.pid > 0


def test_doubles_have_the_signatures_of_the_real_module():
    pynvml = pytest.importorskip("pynvml")
    double = answers.nvml_double()
    for name in dir(double):
        if name.startswith("nvml"):
            assert _parameters(double, name) == _parameters(pynvml, name), name
        elif name.startswith("NVML_"):
            assert getattr(pynvml, name) == getattr(double, name)


def _parameters(module, name):
    """How many arguments a call must have; the names differ between versions."""
    parameters = inspect.signature(getattr(module, name)).parameters.values()
    return sum(each.default is inspect.Parameter.empty for each in parameters)


def test_nvidia_tells_what_the_driver_calls_things():
    first, _ = MADE["nvidia"]().devices()
    assert (first.name, first.memory_gb, first.uuid) == ("NVIDIA H100 80GB HBM3", 80, "GPU-0")
    assert (first.driver, first.compute_capability) == ("580.95.05", "9.0")


def test_instances_of_a_gpu_that_is_cut_up_are_devices():
    probe = NvidiaProbe.over(answers.nvml_double(2, mig={0}), is_here=True)
    assert [device.uuid for device in probe.devices()] == ["MIG-100", "MIG-101", "GPU-1"]
    assert probe.use(0).utilisation is None  # NVML does not tell it of an instance
    assert probe.use(0).temperature_c == 60


def test_nvidia_leaves_out_desktops_and_tells_a_lost_gpu():
    processes = {0: [(7, None), (4242, 12 * answers.GIB)]}  # 7 draws as well
    nvml = answers.nvml_double(2, lost={1}, processes=processes, drawing=[7])
    probe = NvidiaProbe.over(nvml, is_here=True)
    assert [(each.pid, each.memory_gb) for each in probe.use(0).processes] == [(4242, 12)]
    assert probe.use(0).is_drawn_on
    assert probe.use(1).lost == "the driver says: GPU is lost"


@pytest.mark.parametrize(
    "probe",
    [
        lambda: NvidiaProbe.over(answers.nvml_double(3, gone={1}), is_here=True),
        lambda: NvidiaProbe.over(answers.nvml_double(3, lost={1}), is_here=True),
        lambda: AmdProbe.over(answers.amdsmi_double(3, lost={1})),
    ],
)
def test_one_gpu_that_is_lost_keeps_its_place_and_costs_none_of_the_others(probe):
    found = find_devices(None, {"any": probe})
    assert [device.memory_gb > 0 for device in found.devices] == [True, False, True]
    assert found.devices[2].uuid.endswith("2")
    assert found.devices[1].name.endswith("GPU that does not answer")
    assert [bool(found.probe.use(place).lost) for place in range(3)] == [False, True, False]


def test_nvidia_driver_that_is_loaded_but_broken_is_named():
    broken = answers.nvml_double(init_error="Driver/library version mismatch")
    with pytest.raises(ProbeFailed, match="version mismatch; `nvidia-smi` should work") as caught:
        NvidiaProbe.over(broken, is_here=True)
    assert caught.value.code == "nvidia_driver"
    assert NvidiaProbe.over(broken, is_here=False) is None


def test_amd_names_devices_as_rocm_does():
    first, _ = MADE["amd"]().devices()
    assert (first.name, first.memory_gb) == ("AMD Instinct MI300X", 192)
    assert first.uuid == "GPU-1fb2c3d4e5f60710"
    assert (first.driver, first.compute_capability) == ("6.12.12", "gfx942")
    older = AmdProbe.over(answers.amdsmi_double(hip_uuid=False)).devices()[0]
    assert older.uuid == first.uuid  # made of the serial number
    use = AmdProbe.over(answers.amdsmi_double(lost={1}, processes={0: [(9, 2**30)]}))
    assert [(each.pid, each.memory_gb) for each in use.use(0).processes] == [(9, 1)]
    assert use.use(1).lost
    with pytest.raises(ProbeFailed, match="DRIVER_NOT_LOADED"):
        AmdProbe.over(answers.amdsmi_double(broken=True))


def test_rocm_smi_is_read_whatever_its_version_prints():
    server, home = MADE["rocm_smi"]().devices()
    assert (server.name, server.uuid) == ("AMD Instinct MI250X / MI250", "GPU-9246b1dcdf90b0f8")
    assert (server.driver, server.compute_capability) == ("6.8.5", "gfx90a")
    assert (home.name, home.uuid) == ("AMD Radeon RX 7900 XTX", None)
    use = MADE["rocm_smi"]().use(0)
    assert (use.utilisation, use.temperature_c, use.processes) == (13, 36, None)
    assert MADE["rocm_smi"]().use(5).lost
    with pytest.raises(ProbeFailed, match="no JSON"):
        RocmSmiProbe(lambda options: "ERROR: no permission").devices()
    with pytest.raises(ProbeFailed, match="does not tell 'VRAM Total Memory"):
        RocmSmiProbe(answers.rocm_smi_answers({"card0": {}})).devices()


def test_apple_lends_a_part_of_the_unified_memory():
    (gpu,) = MADE["apple"]().devices()
    assert (gpu.name, gpu.memory_gb, gpu.uuid) == ("Apple M3 Pro", 27, None)
    assert (gpu.driver, gpu.compute_capability) == ("macOS 15.5", "metal3")
    with pytest.raises(ProbeFailed, match="system_profiler"):
        AppleProbe(lambda command: "no JSON", "15.5").devices()
