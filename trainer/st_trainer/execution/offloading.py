"""Frozen weights that wait in the memory of the host or on disk until their turn comes.

Diffusers' group offloading puts weights away after the forward pass and does not bring them back
for the backward pass, which then takes whatever lies in their place. Here a block's weights are
brought whenever it is called; in training that is once to answer and once to compute its
activations anew, which hold the weights that they were made with until their gradients are known.
So offloading needs gradient checkpointing. What is trained never leaves the device.
"""

from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from st_shared.spec.memory import OffloadSpec
from st_trainer.execution.blocks import repeated_blocks


class Group:
    """Frozen tensors that come and go together, and where they wait."""

    def __init__(
        self, modules: Sequence[nn.Module], device: torch.device, file: Path | None
    ) -> None:
        self._device, self._file = device, file
        found: dict[int, Tensor] = {}
        for module in modules:
            for each in (*module.parameters(), *module.buffers()):
                if not each.requires_grad:
                    found[id(each)] = each
        self._tensors = list(found.values())
        self._fetched: tuple[list[Tensor], Any] | None = None
        self._waiting: dict[str, Tensor] = {}
        held = {str(n): each.data.to("cpu").contiguous() for n, each in enumerate(self._tensors)}
        if file:
            save_file(held, file)
        else:
            pinned = device.type == "cuda"
            self._waiting = {n: each.pin_memory() if pinned else each for n, each in held.items()}
        self.put_away()

    @property
    def nbytes(self) -> int:
        """Bytes that come and go."""
        return sum(each.numel() * each.element_size() for each in self._tensors)

    def put_away(self) -> None:
        """Leave one value of each tensor on the device, in the shape of all of them."""
        for each in self._tensors:
            each.data = torch.empty(1, dtype=each.dtype, device=self._device).expand(each.shape)

    def fetch(self, stream: Any) -> None:
        """Begin to copy on ``stream``; ``bring`` waits for it."""
        if self._fetched is None:
            with torch.cuda.stream(stream):
                copies = [each.to(self._device, non_blocking=True) for each in self._read()]
                self._fetched = copies, stream.record_event()

    def bring(self) -> None:
        """Have every tensor on the device before what comes next runs."""
        if self._fetched is None:
            copies = [each.to(self._device) for each in self._read()]
        else:
            copies, event = self._fetched
            self._fetched = None
            present = torch.cuda.current_stream(self._device)
            present.wait_event(event)
            for each in copies:
                each.record_stream(present)
        for each, copy in zip(self._tensors, copies, strict=True):
            each.data = copy

    def _read(self) -> list[Tensor]:
        waiting = load_file(self._file) if self._file else self._waiting
        return [waiting[str(n)] for n in range(len(self._tensors))]


class Offloading:
    """The groups of a model; only the one whose module is called is on the device."""

    def __init__(
        self, modules: Sequence[Sequence[nn.Module]], device: torch.device,
        folder: Path | None, stream: Any,
    ) -> None:  # fmt: skip
        self.groups = [
            Group(each, device, folder / f"{place}.safetensors" if folder else None)
            for place, each in enumerate(modules)
        ]
        self._stream, self._here = stream, 0
        if folder:
            finalize(self, rmtree, folder, ignore_errors=True)
        for place, members in enumerate(modules):
            for member in members:
                member.register_forward_pre_hook(self._hook(place))
        if self.groups:
            self.groups[0].bring()

    @property
    def nbytes(self) -> int:
        """Bytes that wait elsewhere."""
        return sum(group.nbytes for group in self.groups)

    def _hook(self, place: int) -> Any:
        def bring(*_told: Any) -> None:
            if place == self._here:
                return
            step = 1 if place > self._here else -1  # the backward pass goes the other way
            self.groups[self._here].put_away()
            self.groups[place].bring()
            self._here = place
            if self._stream is not None and 0 <= place + step < len(self.groups):
                self.groups[place + step].fetch(self._stream)

        return bring


def offloaded(module: nn.Module, spec: OffloadSpec, device: torch.device) -> Offloading | None:
    """Let the blocks of ``module``, or their layers, wait elsewhere; the rest goes to ``device``.

    Files lie in a folder of their own, which is removed at the end of the run.
    """
    if spec.level is None:
        return None
    streams = device.type == "cuda" and spec.stream is not False
    made = Offloading(
        _together(module, spec),
        device,
        Path(mkdtemp(prefix="st-train-weights-")) if spec.to == "disk" else None,
        torch.cuda.Stream(device) if streams else None,  # type: ignore[no-untyped-call]
    )
    module.to(device)
    return made


def _together(module: nn.Module, spec: OffloadSpec) -> list[list[nn.Module]]:
    """Modules whose frozen weights come and go at once, in the order of the model."""
    blocks = [each for _, each in repeated_blocks(module)]
    if spec.level == "block":
        return [blocks[n : n + spec.blocks] for n in range(0, len(blocks), spec.blocks)]
    leaves = [each for block in blocks for each in block.modules()]
    return [[each] for each in leaves if any(True for _ in each.parameters(recurse=False))]
