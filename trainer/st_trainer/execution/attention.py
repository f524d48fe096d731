"""The code that computes attention, as Diffusers offers it."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from st_shared.spec.memory import AttentionBackend
from st_trainer.errors import BadSpecError

_FIELD = "training.speed.attention"
_ANY = frozenset({"cpu", "cuda", "xpu", "mps"})
_CUDA = frozenset({"cuda"})


@dataclass(frozen=True)
class Code:
    """One backend: its name in Diffusers, and where its backward pass runs."""

    name: str
    devices: frozenset[str] = _CUDA


BACKENDS: dict[AttentionBackend, Code] = {
    "native": Code("native", _ANY),
    "native_math": Code("_native_math", _ANY),
    "native_flash": Code("_native_flash"),
    "native_efficient": Code("_native_efficient"),
    "native_cudnn": Code("_native_cudnn"),
    "flash": Code("flash"),
    "flash_3": Code("_flash_3"),
    "flex": Code("flex"),
    "xformers": Code("xformers"),
}
"""Sage is not among them: it has no backward pass."""


def available(device: str) -> list[str]:
    """Backends that are installed and train on a type of device."""
    return [
        name for name, code in BACKENDS.items() if device in code.devices and _missing(code) is None
    ]


def set_attention(module: nn.Module, backend: AttentionBackend, device: str) -> None:
    """Let ``module`` compute attention with ``backend``.

    Raises:
        BadSpecError: it is not there, does not train on ``device``, or the model has no choice.
    """
    code = BACKENDS[backend]
    there = ", ".join(available(device))
    if device not in code.devices:
        raise BadSpecError(f"{_FIELD}: {backend} does not train on {device}: use one of {there}")
    if reason := _missing(code):
        raise BadSpecError(f"{_FIELD}: {backend} is not there ({reason}): use one of {there}")
    if not _choosers(module):
        raise BadSpecError(f"{_FIELD}: {type(module).__name__} has no choice of it: drop the key")
    module.set_attention_backend(code.name)  # type: ignore[operator]


def _missing(code: Code) -> str | None:
    """What a backend lacks, in Diffusers' words; None: nothing."""
    from diffusers.models import attention_dispatch as dispatch  # noqa: PLC0415 -- seconds

    try:
        dispatch._check_attention_backend_requirements(  # noqa: SLF001 -- there is no public way
            dispatch.AttentionBackendName(code.name)
        )
    except (ImportError, RuntimeError, ValueError, AssertionError) as error:
        return str(error).split(". ")[0]
    return None


def _choosers(module: nn.Module) -> list[Any]:
    """Parts whose attention goes through Diffusers' dispatcher."""
    processors = (getattr(each, "processor", None) for each in module.modules())
    return [each for each in processors if hasattr(each, "_attention_backend")]
