"""One file of a cache: some entries, each of named tensors, in safetensors.

A tensor is named ``KEY.FIELD``, with the key in hex. The metadata ``crc`` is JSON: a CRC-32 of the
bytes of each. A shard is named by a digest of its keys, so two processes that write the same one
write the same file; it has its name only once it is whole.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from st_shared.durable import move_durably

SUFFIX = ".safetensors"
PARTIAL = ".partial"
_CRC = "crc"

Entry = Mapping[str, Tensor]
"""The tensors of one entry by field."""


class DamagedShardError(Exception):
    """The file is not what was written; the message says what is wrong."""


def write_shard(folder: Path, entries: Mapping[bytes, Entry]) -> Path:
    """Put ``entries``, by key, into a new file in ``folder``; gives its path.

    Raises:
        OSError: there is no room.
    """
    tensors = {
        f"{key.hex()}.{field}": each.detach().cpu().contiguous()
        for key, entry in sorted(entries.items())
        for field, each in sorted(entry.items())
    }
    checksums = {name: _crc(each) for name, each in tensors.items()}
    path = folder / shard_name(sorted(entries))
    aside = folder / f".{path.name}.{uuid4().hex}{PARTIAL}"
    try:
        save_file(tensors, aside, {_CRC: json.dumps(checksums)})
        move_durably(aside, path)
    except SafetensorError as error:
        raise OSError(f"{aside} cannot be written: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def shard_name(keys: list[bytes]) -> str:
    """The name of the file that holds the entries of ``keys``, which are sorted."""
    return hashlib.sha256(b"".join(keys)).hexdigest()[:32] + SUFFIX


class ShardFile:
    """A file of entries, open: mapped, so that memory holds only what is looked at."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Open it; ``name`` is the one that it will have, where that is another.

        Raises:
            DamagedShardError: it is torn, or no file of a cache.
            FileNotFoundError: it is gone.
        """
        self.path = path
        try:
            opened: Any = safe_open
            self._file = opened(os.fspath(path), framework="pt")
            self._checksums: dict[str, int] = json.loads(self._file.metadata()[_CRC])
            fields: dict[bytes, list[str]] = {}
            for tensor in self._file.keys():  # noqa: SIM118 -- it is no dict
                key, _, field = tensor.partition(".")
                fields.setdefault(bytes.fromhex(key), []).append(field)
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedShardError(f"{path.name}: {error}") from None
        self._fields = fields
        if (name or path.name) != shard_name(sorted(fields)):
            raise DamagedShardError(f"{path.name}: it holds other entries than its name says")

    @property
    def keys(self) -> list[bytes]:
        """The keys of its entries."""
        return list(self._fields)

    def entry(self, key: bytes) -> dict[str, Tensor]:
        """The tensors of ``key``, on the CPU.

        Raises:
            DamagedShardError: a bit of them has changed since they were written.
        """
        found = {}
        for field in self._fields[key]:
            name = f"{key.hex()}.{field}"
            tensor = self._file.get_tensor(name)
            if _crc(tensor) != self._checksums.get(name):
                raise DamagedShardError(f"{self.path.name}: {name} has another checksum")
            found[field] = tensor
        return found


def _crc(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)
