"""Artifacts as files: streamed, verified, and whole or absent."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from st_client.connection import Connection
from st_client.errors import ClientError, ForbiddenError, UnreachableError
from st_shared.durable import sha256_of
from st_shared.objectstore.key import InvalidKeyError, check_key
from st_shared.protocol.resources import ArtifactView

_TRIES = 3
_PIECE_BYTES = 1 << 20


def download_artifact(
    connection: Connection,
    artifact: ArtifactView,
    folder: Path,
    *,
    renew: Callable[[], ArtifactView],
) -> Path:
    """Store an artifact below ``folder`` under its own path; what is already there stays.

    ``renew`` gives the artifact with a fresh URL, for when its URL has expired. A transfer that
    breaks off is tried again twice.

    Raises:
        ClientError: the bytes are not those that the controller announced.
    """
    path = folder / _safe(artifact.path)
    if path.is_file() and sha256_of(path) == artifact.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(_TRIES)):
        try:
            _fetch(connection, artifact, path)
        except (UnreachableError, ForbiddenError):
            if not left:
                raise
            artifact = renew()
        else:
            break
    return path


def _fetch(connection: Connection, artifact: ArtifactView, path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    try:
        with aside.open("wb") as file, connection.signed_get(artifact.url) as reply:
            for piece in reply.iter_bytes(_PIECE_BYTES):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != artifact.sha256:
            raise ClientError(
                f"{artifact.path} arrived damaged",
                detail=f"SHA-256 is {digest.hexdigest()}, not {artifact.sha256}",
                hint="try again; if it stays so, the stored object is damaged",
                code="digest_mismatch",
            )
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _safe(path: str) -> str:
    try:
        return check_key(path)
    except InvalidKeyError as error:
        raise ClientError(
            "the controller names an artifact that cannot be a file",
            detail=str(error),
            code="unexpected_answer",
        ) from None
