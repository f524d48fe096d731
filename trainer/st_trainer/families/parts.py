"""The parts of a pretrained model, of which some may be set down and come back when asked for."""

import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_WORTH_COLLECTING = 64 << 20
"""Bytes for which garbage is looked for; without cycles they are free anyway."""


class Parts(dict[str, Any]):
    """Parts by name. One that was set down takes no memory, and is loaded again when it is used."""

    def __init__(self, parts: dict[str, Any], load: Callable[[str], Any]) -> None:
        """``load`` gives the part of a name as it was at first, on the CPU."""
        super().__init__(parts)
        self._load = load
        self.made_ready: Callable[[str, Any], None] = _as_it_is
        """Done to a part that comes back, as it was done at first."""
        self._device = torch.device("cpu")
        self._configs: dict[str, Any] = {}
        """Of the parts that were set down at least once."""

    def __missing__(self, name: str) -> Any:
        """Load the part of ``name`` to where the others are; ``KeyError`` where there is none."""
        if name not in self._configs:
            raise KeyError(name)
        part = self._load(name)
        self.made_ready(name, part)
        self[name] = part.to(self._device)
        return part

    def to(self, device: torch.device) -> None:
        """Move the networks there, also those that come back later."""
        self._device = device
        for part in self.modules().values():
            part.to(device)

    def config(self, name: str) -> Any:
        """The options of a part, which stay known while it is set down."""
        return self._configs[name] if name not in self else self[name].config

    def set_down(self, names: Iterable[str]) -> int:
        """Let go of these parts, as far as they are here; gives the bytes that they took."""
        freed = 0
        for name in names:
            part = self.pop(name, None)
            if part is not None:
                freed += module_bytes(part)
                self._configs[name] = part.config
                del part
        if freed >= _WORTH_COLLECTING:
            gc.collect()  # a library may have tied modules into cycles; it takes a moment
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return freed

    def modules(self) -> dict[str, nn.Module]:
        """The parts that are networks and are here now."""
        return {name: part for name, part in self.items() if isinstance(part, nn.Module)}


def _as_it_is(_name: str, _part: Any) -> None:
    pass


def module_bytes(module: nn.Module) -> int:
    """What the weights of ``module`` take, bytes."""
    return sum(each.nbytes for each in (*module.parameters(), *module.buffers()))
