"""Artifacts: announced by a worker, stored by signed URL, verified, and then visible."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.errors import Conflict, InvalidRequest
from st_controller.services import artifact_uploads, topics
from st_controller.services.uploads import sign_upload
from st_controller.store.parts import parts
from st_controller.store.schema import Artifact, Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.objectstore import ObjectStore, part_bytes
from st_shared.protocol.journal import CheckpointManifest
from st_shared.protocol.worker import ArtifactFile, ArtifactTicket

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 4_000_000


class Announced(NamedTuple):
    """An artifact that a worker will store, and whether the organisation has such content."""

    artifact: Artifact
    is_known: bool


def announce(tx: Transaction, attempt: Attempt, files: Sequence[ArtifactFile]) -> list[Announced]:
    """Record the files, in order; ``tickets`` says how to store them.

    Raises:
        Conflict: one is stored with other content.
        InvalidRequest: the path of one makes no key.
    """
    known = {
        artifact.path: artifact
        for artifact in tx.session.scalars(
            select(Artifact).where(
                Artifact.attempt_id == attempt.id,
                Artifact.path.in_([file.path for file in files]),
            )
        )
    }
    stored = _stored(tx.session, attempt, files)
    announced = []
    for file in files:
        place = _place(attempt, file, stored)
        artifact = known.get(file.path)
        if artifact is None:
            artifact = known[file.path] = _new_artifact(tx, attempt, file, place)
        else:
            _must_agree(artifact, file, place)
        announced.append(Announced(artifact, (file.sha256, file.size) in stored))
    return announced


def tickets(objects: ObjectStore, announced: Sequence[Announced]) -> list[ArtifactTicket]:
    """How to store each; one that is already stored needs no upload. Outside any transaction."""
    return [_ticket(objects, *each) for each in announced]


def _new_artifact(tx: Transaction, attempt: Attempt, file: ArtifactFile, place: str) -> Artifact:
    artifact = Artifact(
        id=new_id("art"),
        job_id=attempt.job_id,
        attempt_id=attempt.id,
        attempt=attempt.number,
        key=place,
        created_at=tx.now,
        stored_at=None,
        **file.model_dump(),
    )
    tx.session.add(artifact)
    return artifact


Stored = Mapping[tuple[str, int], Mapping[str, str]]
"""SHA-256 and size of a content -> what proves that somebody has it -> the key of its object."""


def _place(attempt: Attempt, file: ArtifactFile, stored: Stored) -> str:
    """The key of the same content, where the organisation has stored it; else a new one.

    A digest alone opens nothing: the worker must tell what only one who has the bytes can, and
    what another organisation stored is never looked at.
    """
    own = artifact_uploads.key_of(attempt.job_id, attempt.number, file.sha256, file.path)
    if file.possession is None:
        return own
    return stored.get((file.sha256, file.size), {}).get(file.possession, own)


def _stored(session: Session, attempt: Attempt, files: Sequence[ArtifactFile]) -> Stored:
    """What the organisation has stored of those contents of which it makes a difference."""
    asked = {each.sha256 for each in files if each.possession or part_bytes(each.size)}
    org = select(Job.org).where(Job.id == attempt.job_id).scalar_subquery()
    found: dict[tuple[str, int], dict[str, str]] = {}
    for part in parts(sorted(asked)):
        rows = session.execute(
            select(Artifact.sha256, Artifact.size, Artifact.possession, func.min(Artifact.key))
            .join(Job, Job.id == Artifact.job_id)
            .where(
                Artifact.sha256.in_(part),
                Artifact.possession.is_not(None),
                Artifact.stored_at.is_not(None),
                Job.org == org,
            )
            .group_by(Artifact.sha256, Artifact.size, Artifact.possession)
        )
        for sha256, size, possession, key in rows:
            found.setdefault((sha256, size), {})[possession or ""] = key
    return found


def _must_agree(artifact: Artifact, file: ArtifactFile, place: str) -> None:
    if artifact.stored_at is None:
        artifact.size, artifact.sha256 = file.size, file.sha256
        artifact.possession, artifact.key = file.possession, place
    elif (artifact.size, artifact.sha256) != (file.size, file.sha256):
        raise Conflict(
            f"{file.path} is already stored with other content",
            code="artifact_exists",
            hint="stored artifacts never change; use another path",
        )


def _ticket(objects: ObjectStore, artifact: Artifact, is_known: bool) -> ArtifactTicket:
    if artifact.stored_at is not None or not artifact_uploads.is_own(artifact):
        return ArtifactTicket(artifact_id=artifact.id, path=artifact.path, url=None)
    if each := part_bytes(artifact.size):
        return ArtifactTicket(
            artifact_id=artifact.id,
            path=artifact.path,
            url=None,
            part_bytes=each,
            is_known=is_known and artifact.possession is None,
        )
    upload = sign_upload(objects, artifact.key, size=artifact.size, sha256=artifact.sha256)
    return ArtifactTicket(
        artifact_id=artifact.id, path=artifact.path, url=upload.url, headers=upload.headers
    )


def unstored(session: Session, attempt_id: str, artifact_ids: Sequence[str]) -> list[Artifact]:
    """Those of the announced artifacts that still have to be verified."""
    found = list(
        session.scalars(
            select(Artifact).where(Artifact.attempt_id == attempt_id, Artifact.id.in_(artifact_ids))
        )
    )
    if len(found) != len(set(artifact_ids)):
        raise InvalidRequest.of("artifact_ids", "an artifact id is not one of this attempt")
    return [artifact for artifact in found if artifact.stored_at is None]


def verify(objects: ObjectStore, artifacts: Sequence[Artifact]) -> None:
    """Refuse what is not in the store as announced; network work, outside any transaction."""
    for artifact in artifacts:
        stat = objects.stat(artifact.key)
        if stat is None:
            raise Conflict(f"{artifact.path} has not arrived in the store", code="not_uploaded")
        if (stat.size, stat.sha256 or artifact.sha256) != (artifact.size, artifact.sha256):
            raise Conflict(f"{artifact.path} arrived damaged; send it again", code="checksum")


def read_manifest(objects: ObjectStore, artifacts: Sequence[Artifact]) -> CheckpointManifest | None:
    """The checkpoint manifest among the artifacts, parsed; none when there is none."""
    manifests = list(filter(is_manifest, artifacts))
    if not manifests:
        return None
    if len(manifests) > 1:
        raise InvalidRequest.of(
            "artifact_ids", "complete one checkpoint a call: more than one manifest was named"
        )
    manifest = manifests[0]
    if manifest.size > MAX_MANIFEST_BYTES:
        raise InvalidRequest.of("artifact_ids", f"{manifest.path} is too large for a manifest")
    raw = b"".join(objects.open(manifest.key))
    if hashlib.sha256(raw).hexdigest() != manifest.sha256:
        raise Conflict(f"{manifest.path} arrived damaged; send it again", code="checksum")
    try:
        return CheckpointManifest.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidRequest.of(
            "artifact_ids", f"{manifest.path} is not a checkpoint manifest: {error}"
        ) from None


def is_manifest(artifact: Artifact) -> bool:
    """Whether this file makes its checkpoint complete."""
    return artifact.kind == "checkpoint" and artifact.path.rsplit("/", 1)[-1] == MANIFEST_NAME


def complete(
    tx: Transaction,
    attempt: Attempt,
    job: Job,
    artifact_ids: Sequence[str],
    manifest: CheckpointManifest | None,
    possessions: Mapping[str, str] | None = None,
) -> None:
    """Make verified artifacts visible; a manifest makes its checkpoint the one to resume from.

    ``possessions``: by artifact id, of those whose parts were held to what the store confirmed.
    """
    fresh = unstored(tx.session, attempt.id, artifact_ids)
    for artifact in fresh:
        artifact.stored_at = tx.now
        artifact.possession = (possessions or {}).get(artifact.id, artifact.possession)
    artifact_uploads.forget(tx, [artifact.key for artifact in fresh])
    for artifact in filter(is_manifest, fresh):
        if manifest is not None:
            _adopt_checkpoint(tx, attempt, job, artifact, manifest)
    tx.wake(topics.job(job.id))


def _adopt_checkpoint(
    tx: Transaction,
    attempt: Attempt,
    job: Job,
    artifact: Artifact,
    manifest: CheckpointManifest,
) -> None:
    folder = artifact.path.rpartition("/")[0]
    stored = {
        found.path: (found.size, found.sha256)
        for found in checkpoint_files(tx.session, attempt.id, folder)
    }
    for file in manifest.files:
        if stored.get(f"{folder}/{file.path}") != (file.size, file.sha256):
            raise Conflict(
                f"{artifact.path} lists {file.path}, which is not stored so", code="incomplete"
            )
    if job.checkpoint_step is None or manifest.step >= job.checkpoint_step:
        job.checkpoint_step, job.checkpoint_id = manifest.step, artifact.id
        # What preempting it would lose begins here; the scheduler chooses by that.
        attempt.checkpoint_at = job.changed_at = tx.now
        topics.wake_queue(tx, [job.id])


def checkpoint_files(session: Session, attempt_id: str, folder: str) -> list[Artifact]:
    """The stored files of a checkpoint, the manifest included."""
    return list(
        session.scalars(
            select(Artifact)
            .where(
                Artifact.attempt_id == attempt_id,
                Artifact.kind == "checkpoint",
                Artifact.path.startswith(f"{folder}/", autoescape=True),
                Artifact.stored_at.is_not(None),
            )
            .order_by(Artifact.path)
        )
    )


def list_artifacts(
    session: Session, job_id: str, *, kind: str | None, after_id: str | None, limit: int
) -> tuple[list[Artifact], str | None]:
    """The visible artifacts of a job, oldest first, and the id after which the next page begins."""
    query = (
        select(Artifact)
        .where(Artifact.job_id == job_id, Artifact.stored_at.is_not(None))
        .order_by(Artifact.id)
        .limit(limit + 1)
    )
    if kind:
        query = query.where(Artifact.kind == kind)
    if after_id:
        query = query.where(Artifact.id > after_id)
    found = list(session.scalars(query))
    return found[:limit], found[limit - 1].id if len(found) > limit else None
