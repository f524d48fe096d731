"""Checkpoints in a bucket: found, and fetched to be restored like those of a run folder."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from st_shared.objectstore import (
    InvalidKeyError,
    ObjectMissingError,
    ObjectStore,
    S3Store,
    StoreUnreachableError,
)
from st_shared.protocol.journal import CheckpointManifest
from st_trainer.checkpoint import MANIFEST_NAME
from st_trainer.errors import BadSpecError, CheckpointError, TrainerError

SCHEME = "s3://"
_PLACE = re.compile(r"(?:step-(\d{1,12})/)?manifest\.json")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class RemoteCheckpoints:
    """What lies at ``s3://bucket/prefix``: one checkpoint, or several ``step-…`` of a run."""

    uri: str
    endpoint_url: str | None = None
    """A server other than AWS that speaks its protocol."""

    @classmethod
    def at(cls, uri: str, environment: Mapping[str, str]) -> "RemoteCheckpoints":
        """Those at ``uri``, at the server that ``environment`` names as AWS's own tools read it."""
        named = (environment[name] for name in _ENDPOINTS if environment.get(name))
        return cls(uri, next(named, None))

    def newest_first(self) -> list[str]:
        """Keys of their manifests.

        Raises:
            BadSpecError: the URI names no bucket, or a prefix that cannot be.
            CheckpointError: the store holds none there.
            TrainerError: it cannot be reached.
        """
        try:
            found = [_PLACE.fullmatch(each.key) for each in self._store.list("")]
        except StoreUnreachableError as error:
            raise TrainerError(f"{self.uri} cannot be read: {error}") from error
        places = [place for place in found if place]
        if not places:
            raise CheckpointError(f"{self.uri} holds neither {MANIFEST_NAME} nor step-…/ with one")
        places.sort(key=lambda place: int(place[1] or 0), reverse=True)
        return [place[0] for place in places]

    def fetch(self, manifest_key: str, folder: Path) -> Path:
        """Bring one checkpoint into a new folder below ``folder``; its manifest comes last.

        Whoever restores it compares the checksums.

        Raises:
            CheckpointError: its manifest makes no sense, or a file is missing or too large.
            TrainerError: the store cannot be reached.
        """
        prefix = manifest_key.removesuffix(MANIFEST_NAME)
        try:
            content = b"".join(self._store.open(manifest_key))
            manifest = CheckpointManifest.model_validate_json(content)
            target = folder / f"step-{manifest.step:06d}"
            shutil.rmtree(target, ignore_errors=True)
            for file in manifest.files:
                self._fetch(prefix + file.path, target / file.path, file.size)
        except ValidationError:
            raise CheckpointError(
                f"{self.uri}: {manifest_key} is damaged: it cannot be read"
            ) from None
        except (ObjectMissingError, InvalidKeyError) as error:
            raise CheckpointError(f"{self.uri}: {manifest_key}: {error}") from error
        except StoreUnreachableError as error:
            raise TrainerError(f"{self.uri} cannot be read: {error}") from error
        (target / MANIFEST_NAME).write_bytes(content)
        return target

    def _fetch(self, key: str, path: Path, size: int) -> None:
        """Copy one object; more bytes than ``size`` are not taken."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in self._store.open(key):
                file.write(piece)
                if file.tell() > size:
                    raise CheckpointError(f"{self.uri}: {key} is damaged: it has another size")

    @cached_property
    def _store(self) -> ObjectStore:
        bucket, _, prefix = self.uri.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise BadSpecError(f"--resume {self.uri}: name a bucket, as in s3://bucket/prefix")
        try:
            return S3Store.connect(bucket, prefix, endpoint_url=self.endpoint_url)
        except (InvalidKeyError, StoreUnreachableError) as error:
            raise BadSpecError(f"--resume {self.uri}: {error}") from error
