"""With what a run was made: programs, packages, devices."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from st_shared import __version__
from st_trainer.session import Session

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy")


def environment(session: Session) -> dict[str, str]:
    """Names and values, in the order in which they are read."""
    device = session.accelerator.device
    found = {
        "st-train": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "device": _device(device),
        "processes": str(session.ranks.count),
        "threads of torch": str(torch.get_num_threads()),
    }
    if torch.version.cuda:
        found["CUDA"] = torch.version.cuda
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
