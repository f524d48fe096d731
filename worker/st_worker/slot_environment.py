"""The environment of a job: its own slots are all that it sees, and none of our secrets."""

from collections.abc import Mapping, Sequence

from st_shared.protocol.worker import Inventory, Slot
from st_shared.secret_likeness import looks_secret

VISIBILITY = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
)
"""What runtimes read; each is given anew or removed, whatever the agent was started with."""

_SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")


def visible_devices(slots: Sequence[Slot]) -> dict[str, str]:
    """The variables that show a process these slots alone.

    By UUID where there is one, since CUDA numbers devices by speed and NVML by their place on the
    bus. ROCm: ``ROCR_VISIBLE_DEVICES`` alone, since ``HIP_VISIBLE_DEVICES`` (and, on ROCm, CUDA's)
    would count within what it leaves. Apple's one GPU needs nothing. A share of the CPU sees no
    accelerator of any kind.
    """
    names = ",".join(slot.uuid or str(slot.index) for slot in slots)
    vendors = {slot.vendor for slot in slots}
    if vendors == {"nvidia"}:
        return {"CUDA_VISIBLE_DEVICES": names}
    if vendors == {"amd"}:
        return {"ROCR_VISIBLE_DEVICES": names}
    if vendors == {"apple"}:
        return {}
    return {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}


def trainer_environment(
    base: Mapping[str, str], inventory: Inventory, slots: Sequence[int]
) -> dict[str, str]:
    """The environment of a trainer that may use ``slots`` alone and knows none of our secrets."""
    mine = [slot for slot in inventory.slots if slot.index in slots]
    environment = {
        name: value for name, value in base.items() if name not in VISIBILITY and not _is_ours(name)
    }
    environment |= visible_devices(mine)
    if all(slot.vendor == "cpu" for slot in mine):
        threads = max(1, inventory.cpus * len(mine) // len(inventory.slots))
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment


def script_environment(
    base: Mapping[str, str], inventory: Inventory, slots: Sequence[int]
) -> dict[str, str]:
    """The environment of a script: as a trainer's, without anything of ours or like a secret."""
    return {
        name: value
        for name, value in trainer_environment(base, inventory, slots).items()
        if not name.startswith("ST_") and not looks_secret(name, value)
    }


def _is_ours(name: str) -> bool:
    return name.startswith("ST_") and any(word in name for word in _SECRET_WORDS)
