"""Files of a cache in a bucket, so that another machine need not make them again.

Nothing is trusted for its name alone: a file is taken once its entries are those that its name is a
digest of, and each tensor is compared with its checksum when it is used.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

from st_shared.objectstore import (
    InvalidKeyError,
    ObjectMissingError,
    ObjectStore,
    S3Store,
    StoreUnreachableError,
)
from st_shared.spec.cache import CacheSpec
from st_trainer.caching.room import Room
from st_trainer.caching.shard_file import PARTIAL, SUFFIX, ShardFile
from st_trainer.errors import BadSpecError

_SCHEME = "s3://"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_MOST_HEADER_BYTES = 64 << 20


def connect_share(spec: CacheSpec, environment: Mapping[str, str]) -> ObjectStore | None:
    """What lies at ``cache.share``, with the keys that AWS's own tools find; none: not shared.

    Raises:
        BadSpecError: the prefix cannot be.
    """
    if spec.share is None:
        return None
    named = (environment[name] for name in _ENDPOINTS if environment.get(name))
    bucket, _, prefix = spec.share.removeprefix(_SCHEME).partition("/")
    try:
        endpoint = spec.endpoint_url or next(named, None)
        return S3Store.connect(bucket, prefix, endpoint_url=endpoint)
    except (InvalidKeyError, StoreUnreachableError) as error:
        raise BadSpecError(f"training.cache.share: {spec.share}: {error}") from error


class SharedShards:
    """The files of one encoder in a bucket, below ``prefix``; a bucket that fails stops no run."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._troubles: list[str] = []
        self._keeps = True

    def troubles(self) -> list[str]:
        """What went wrong since this was asked last."""
        found, self._troubles = self._troubles, []
        return found

    def names(self) -> list[str]:
        """The files that are there."""
        try:
            found = [each.key.removeprefix(self._prefix) for each in self._store.list(self._prefix)]
        except StoreUnreachableError as error:
            self._troubles.append(f"cache.share cannot be read, and is done without: {error}")
            return []
        return [name for name in found if name.endswith(SUFFIX) and "/" not in name]

    def keys(self, name: str) -> list[bytes]:
        """The entries of a file, read from its first bytes alone; none where it makes no sense."""
        try:
            header = _header(self._store.open(self._prefix + name))
            return [bytes.fromhex(each) for each in {key.partition(".")[0] for key in header}]
        except (ObjectMissingError, StoreUnreachableError, ValueError) as error:
            self._troubles.append(f"cache.share: {name} cannot be read: {error}")
            return []

    def fetch(self, name: str, folder: Path, room: Room) -> bool:
        """Bring a file into ``folder``; False where there is no room, or it cannot be had.

        Raises:
            DamagedShardError: it is not what its name says.
        """
        aside = folder / f".{uuid4().hex}{PARTIAL}"
        try:
            with aside.open("wb") as file:
                for piece in self._store.open(self._prefix + name):
                    file.write(piece)
                size = file.tell()
            ShardFile(aside, name)
            if not room.admit(size):
                return False
            aside.replace(folder / name)
        except (ObjectMissingError, StoreUnreachableError) as error:
            self._troubles.append(f"cache.share: {name} cannot be fetched: {error}")
            return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    def keep(self, path: Path) -> None:
        """Put a file into the bucket; once that fails, nothing more is sent there."""
        if not self._keeps:
            return
        try:
            with path.open("rb") as file:
                self._store.put(self._prefix + path.name, file)
        except StoreUnreachableError as error:
            self._keeps = False
            self._troubles.append(f"cache.share takes nothing, so others will not find it: {error}")


def _header(pieces: Iterator[bytes]) -> dict[str, object]:
    """The names in a safetensors file, of which no more is read; ``ValueError`` without any."""
    content = b""
    for piece in pieces:
        content += piece
        size = int.from_bytes(content[:8], "little")
        if len(content) >= 8 and size > _MOST_HEADER_BYTES:
            raise ValueError("its header is too large")
        if len(content) >= 8 + size > 8:
            found: dict[str, object] = json.loads(content[8 : 8 + size])
            found.pop("__metadata__", None)
            return found
    raise ValueError("it has no header")
