"""Files of a checkpoint that each process writes by itself, and that any number of them reads.

Every trained parameter, and what the optimiser and averages keep of it, is flattened to ``(N,)``
and cut into pieces; a file holds those that lie in one process. It is safetensors, as
``torch.distributed.checkpoint``'s ``HuggingFaceStorageWriter`` writes it: the metadata tells where
each piece begins. So a reader takes whichever numbers it wants, however the pieces were cut.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_PATTERN = "rank-*.safetensors"
_PLACES, _START = "DCP_SHARDING_INFO", "saved_offsets"
"""As torch calls them."""


@dataclass(frozen=True)
class Piece:
    """Numbers of a flattened tensor that lie in one process."""

    start: int
    numbers: Tensor
    """``(N,)``."""


def shard_name(rank: int, count: int) -> str:
    """The file of process ``rank`` of ``count``."""
    return f"rank-{rank:05d}-of-{count:05d}.safetensors"


def described(pieces: Mapping[str, Piece]) -> dict[str, str]:
    """The metadata of a file with ``pieces``."""
    places = {name: {_START: [piece.start]} for name, piece in sorted(pieces.items())}
    return {_PLACES: json.dumps(places)}


class Shards:
    """The files of one checkpoint, opened to read pieces of any size; nothing is held."""

    def __init__(self, folder: Path) -> None:
        """Look where each piece lies.

        Raises:
            ValueError: a file does not say so.
        """
        self._pieces: dict[str, list[tuple[int, int, Path]]] = {}
        for path in sorted(folder.glob(_PATTERN)):
            with safe_open(path, framework="pt") as file:
                places = json.loads((file.metadata() or {}).get(_PLACES, "{}"))
                for name in file.keys():  # noqa: SIM118 -- it is no dictionary
                    [start], [length] = _start(places, name), file.get_slice(name).get_shape()
                    self._pieces.setdefault(name, []).append((start, length, path))
        for pieces in self._pieces.values():
            pieces.sort()

    def below(self, kind: str) -> Iterator[str]:
        """Names that begin with ``kind`` and a dot, without them."""
        start = f"{kind}."
        return (name.removeprefix(start) for name in self._pieces if name.startswith(start))

    def read(self, name: str, start: int, length: int) -> Tensor:
        """The ``length`` numbers of ``name`` from ``start``, ``(length,)``, on the CPU.

        Raises:
            KeyError: there is nothing of that name.
            ValueError: some of them are in no file.
        """
        found, end = [], start
        for first, count, path in self._pieces[name]:
            lowest, highest = max(first, end), min(first + count, start + length)
            if lowest >= highest or lowest != end:
                continue
            with safe_open(path, framework="pt") as file:
                found.append(file.get_slice(name)[lowest - first : highest - first])
            end = highest
        if end != start + length:
            raise ValueError(f"{name} is in no file from number {end} on")
        return torch.cat(found) if found else torch.empty(0)

    def length(self, name: str) -> int:
        """Numbers of ``name`` in all files together."""
        return max(start + count for start, count, _ in self._pieces[name])


def _start(places: Mapping[str, Any], name: str) -> list[int]:
    try:
        return [int(place) for place in places[name][_START]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"nothing says where the piece of {name} begins") from error
