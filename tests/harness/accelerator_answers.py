"""Recorded answers of the vendors' tools, and modules that give them as the real ones would."""

import json
import types

GIB = 2**30


class NVMLError(Exception):
    pass


def nvml_double(  # noqa: C901  (one closure a call)
    gpus=2, *, mig=(), lost=(), gone=(), processes=None, used=None, drawing=(), init_error=None
):
    """The part of ``pynvml`` that is used, for ``gpus`` H100s; handles are numbers.

    ``mig``: GPUs that are cut into two instances; ``lost``: GPUs that fell off the bus
    since; ``gone``: before the handles were asked for;
    ``processes``: GPU -> [(pid, bytes or None)]; ``used``: GPU -> bytes;
    ``drawing``: pids of desktops.
    """
    module = types.ModuleType("pynvml")
    processes, used = processes if processes is not None else {}, used if used is not None else {}

    def gpu_of(device):
        return device // 100 if device >= 100 else device

    def check(device):
        if gpu_of(device) in lost:
            raise NVMLError("GPU is lost")

    def nvmlDeviceGetHandleByIndex(index):  # noqa: N802
        if index in gone:
            raise NVMLError("Insufficient Permissions")
        return index

    def nvmlInit():  # noqa: N802
        if init_error:
            raise NVMLError(init_error)

    def nvmlDeviceGetMemoryInfo(handle, version=None):  # noqa: N802
        check(handle)
        return types.SimpleNamespace(total=80 * GIB, used=used.get(handle, GIB // 4))

    def nvmlDeviceGetUtilizationRates(handle):  # noqa: N802
        if handle >= 100:
            raise NVMLError("Not Supported")
        return types.SimpleNamespace(gpu=91, memory=40)

    def nvmlDeviceGetMigMode(device):  # noqa: N802
        return [1, 1] if device in mig else [0, 0]

    def nvmlDeviceGetMigDeviceHandleByIndex(device, index):  # noqa: N802
        if index > 1:
            raise NVMLError("Not Found")
        return device * 100 + 100 + index if device else 100 + index

    def nvmlDeviceGetComputeRunningProcesses(handle):  # noqa: N802
        return [
            types.SimpleNamespace(pid=pid, usedGpuMemory=memory)
            for pid, memory in processes.get(handle, [])
        ]

    module.NVMLError = NVMLError
    module.NVML_TEMPERATURE_GPU = 0
    module.NVML_DEVICE_MIG_ENABLE = 1
    module.nvmlInit = nvmlInit
    module.nvmlSystemGetDriverVersion = lambda: "580.95.05"
    module.nvmlDeviceGetCount = lambda: gpus
    module.nvmlDeviceGetHandleByIndex = nvmlDeviceGetHandleByIndex
    module.nvmlDeviceGetName = lambda handle: b"NVIDIA H100 80GB HBM3"
    module.nvmlDeviceGetUUID = lambda handle: f"{'MIG' if handle >= 100 else 'GPU'}-{handle}"
    module.nvmlDeviceGetMemoryInfo = nvmlDeviceGetMemoryInfo
    module.nvmlDeviceGetUtilizationRates = nvmlDeviceGetUtilizationRates
    module.nvmlDeviceGetTemperature = lambda handle, sensor: 60
    module.nvmlDeviceGetCudaComputeCapability = lambda handle: (9, 0)
    module.nvmlDeviceGetMigMode = nvmlDeviceGetMigMode
    module.nvmlDeviceGetMaxMigDeviceCount = lambda device: 7
    module.nvmlDeviceGetMigDeviceHandleByIndex = nvmlDeviceGetMigDeviceHandleByIndex
    module.nvmlDeviceGetComputeRunningProcesses = nvmlDeviceGetComputeRunningProcesses
    module.nvmlDeviceGetGraphicsRunningProcesses = lambda handle: [
        types.SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in drawing
    ]
    return module


class AmdSmiException(Exception):
    pass


def amdsmi_double(gpus=2, *, lost=(), processes=None, broken=False, hip_uuid=True):
    """The part of ``amdsmi`` 7 that is used, for ``gpus`` MI300X."""
    module = types.ModuleType("amdsmi")

    def amdsmi_init(flag=None):
        if broken:
            raise AmdSmiException("AMDSMI_STATUS_DRIVER_NOT_LOADED")

    def amdsmi_get_gpu_memory_usage(processor_handle, mem_type):
        if processor_handle in lost:
            raise AmdSmiException("AMDSMI_STATUS_NO_DATA")
        return 290 * 2**20

    def amdsmi_get_gpu_memory_total(processor_handle, mem_type):
        if processor_handle in lost:
            raise AmdSmiException("AMDSMI_STATUS_NO_DATA")
        return 192 * GIB

    def amdsmi_get_gpu_enumeration_info(processor_handle):
        if not hip_uuid:
            raise AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED")
        uuid = f"GPU-1fb2c3d4e5f6071{processor_handle}"
        numbers = {"drm_render": 128, "drm_card": 1, "hsa_id": 1, "hip_id": processor_handle}
        return {**numbers, "hip_uuid": uuid}

    module.AmdSmiException = AmdSmiException
    module.AmdSmiMemoryType = types.SimpleNamespace(VRAM=0)
    module.AmdSmiTemperatureType = types.SimpleNamespace(JUNCTION=1)
    module.AmdSmiTemperatureMetric = types.SimpleNamespace(CURRENT=0)
    module.amdsmi_init = amdsmi_init
    module.amdsmi_get_processor_handles = lambda: list(range(gpus))
    module.amdsmi_get_gpu_asic_info = lambda processor_handle: {
        "market_name": "AMD Instinct MI300X",
        "asic_serial": f"0x1FB2C3D4E5F6071{processor_handle}",
        "target_graphics_version": "gfx942",
    }
    module.amdsmi_get_gpu_enumeration_info = amdsmi_get_gpu_enumeration_info
    module.amdsmi_get_gpu_driver_info = lambda processor_handle: {
        "driver_name": "amdgpu",
        "driver_version": "6.12.12",
        "driver_date": "N/A",
    }
    module.amdsmi_get_gpu_memory_total = amdsmi_get_gpu_memory_total
    module.amdsmi_get_gpu_memory_usage = amdsmi_get_gpu_memory_usage
    module.amdsmi_get_gpu_activity = lambda processor_handle: {
        "gfx_activity": 87,
        "umc_activity": 12,
        "mm_activity": "N/A",
    }
    module.amdsmi_get_temp_metric = lambda processor_handle, sensor_type, metric: 48
    module.amdsmi_get_gpu_process_list = lambda processor_handle: [
        {"name": "python3", "pid": pid, "mem": memory, "memory_usage": {"vram_mem": memory}}
        for pid, memory in (processes or {}).get(processor_handle, [])
    ]
    return module


ROCM_SMI = {
    "card0": {
        "Unique ID": "0x9246b1dcdf90b0f8",
        "Card Series": "AMD Instinct MI250X / MI250",
        "Card Model": "0x740c",
        "GFX Version": "gfx90a",
        "VRAM Total Memory (B)": "68702699520",
        "VRAM Total Used Memory (B)": "10960896",
        "GPU use (%)": "13",
        "Temperature (Sensor edge) (C)": "33.0",
        "Temperature (Sensor junction) (C)": "36.0",
    },
    "card1": {
        "Unique ID": "N/A",
        "Card series": "AMD Radeon RX 7900 XTX",
        "VRAM Total Memory (B)": "25753026560",
        "VRAM Total Used Memory (B)": "1073741824",
        "GPU use (%)": "0",
        "Temperature (Sensor edge) (C)": "45.0",
    },
    "system": {"Driver version": "6.8.5"},
}


def rocm_smi_answers(told=None):
    """What ``rocm-smi ... --json`` prints, with a warning before it as it often has."""
    printed = "WARNING: AMD GPU device(s) is/are in a low-power state.\n" + json.dumps(
        ROCM_SMI if told is None else told
    )
    return lambda options: printed


SYSTEM_PROFILER = """{
  "SPDisplaysDataType" : [
    {
      "_name" : "Apple M3 Pro",
      "spdisplays_mtlgpufamilysupport" : "spdisplays_metal3",
      "spdisplays_vendor" : "sppci_vendor_Apple",
      "sppci_bus" : "spdisplays_builtin",
      "sppci_cores" : "18",
      "sppci_device_type" : "spdisplays_gpu",
      "sppci_model" : "Apple M3 Pro"
    }
  ]
}"""


def apple_answers(command):
    return SYSTEM_PROFILER if command[0] == "system_profiler" else "38654705664\n"
