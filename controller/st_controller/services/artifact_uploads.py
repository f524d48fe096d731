"""Artifacts that come in parts: begun, ticketed part by part, completed or abandoned."""

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from st_controller.domain.attempts import LEASED
from st_controller.errors import Conflict, InvalidRequest
from st_controller.services.uploads import UPLOAD_SECONDS
from st_controller.store.schema import Artifact, ArtifactUpload, Attempt
from st_controller.store.transaction import Transaction
from st_shared.objectstore import (
    DigestMismatchError,
    InvalidKeyError,
    ObjectStore,
    PartDigest,
    StoredPart,
    UploadMissingError,
    check_key,
)
from st_shared.objectstore.multipart import part_bytes, part_sizes, possession_of_parts
from st_shared.protocol.worker import PartFile, PartTicket, UploadedParts


def in_parts(session: Session, attempt_id: str, artifact_id: str) -> Artifact:
    """The announced artifact of this attempt that goes in parts.

    Raises:
        InvalidRequest: there is none, or it goes in one PUT.
        Conflict: it is stored, by this attempt or by whoever had the same content before.
    """
    artifact = session.get(Artifact, artifact_id)
    if artifact is None or artifact.attempt_id != attempt_id:
        raise InvalidRequest.of("artifact_id", "artifact_id is not one of this attempt")
    if part_bytes(artifact.size) is None:
        raise InvalidRequest.of(
            "artifact_id", f"{artifact.path} is sent in one PUT", hint="use its own ticket"
        )
    if artifact.stored_at is not None or not is_own(artifact):
        raise Conflict(f"{artifact.path} is stored", code="artifact_exists")
    return artifact


def key_of(job_id: str, number: int, sha256: str, path: str) -> str:
    """Where an attempt's bytes go; a key stands for one content, so no old URL overwrites any.

    Raises:
        InvalidRequest: the path makes no key.
    """
    try:
        return check_key(f"jobs/{job_id}/{number}/{sha256}/{path}")
    except InvalidKeyError as error:
        raise InvalidRequest.of(
            "path", str(error), code="bad_key", hint="use another path"
        ) from None


def is_own(artifact: Artifact) -> bool:
    """Whether the attempt stores the bytes itself; else the organisation has them elsewhere."""
    own = key_of(artifact.job_id, artifact.attempt, artifact.sha256, artifact.path)
    return artifact.key == own


def id_of(session: Session, key: str) -> str | None:
    """The store's id of the upload that becomes ``key``; none when none was begun."""
    return session.scalar(select(ArtifactUpload.upload_id).where(ArtifactUpload.key == key))


def ids_of(session: Session, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Artifact id -> the store's id of its upload, of those that come in parts."""
    found = {artifact.id: id_of(session, artifact.key) for artifact in artifacts}
    return {artifact_id: upload_id for artifact_id, upload_id in found.items() if upload_id}


def record(tx: Transaction, key: str, upload_id: str) -> str:
    """Note an upload that was begun; the id that counts, which is that of whoever was first."""
    known = id_of(tx.session, key)
    if known is not None:
        return known
    tx.session.add(ArtifactUpload(key=key, upload_id=upload_id, begun_at=tx.now))
    return upload_id


def forget(tx: Transaction, keys: Sequence[str]) -> None:
    """Their uploads are over."""
    tx.session.execute(delete(ArtifactUpload).where(ArtifactUpload.key.in_(keys)))


def tickets(
    objects: ObjectStore, artifact: Artifact, upload_id: str, wanted: Sequence[PartFile]
) -> list[PartTicket]:
    """How to store each part; network work, outside any transaction.

    Raises:
        UploadMissingError: the store does not know the upload any more.
        InvalidRequest: the file has no such part.
    """
    sizes = part_sizes(artifact.size)
    arrived = {part.number: part for part in objects.uploads.parts(artifact.key, upload_id)}
    made = []
    for each in wanted:
        if each.number > len(sizes):
            raise InvalidRequest.of(
                "parts", f"{artifact.path} has {len(sizes)} parts, not {each.number}"
            )
        part = PartDigest(each.number, sizes[each.number - 1], each.sha256)
        url = objects.uploads.sign_part(artifact.key, upload_id, part, expires_in=UPLOAD_SECONDS)
        made.append(_ticket(part, arrived.get(each.number), url.url, url.headers))
    return made


def _ticket(
    part: PartDigest, held: StoredPart | None, url: str, headers: dict[str, str]
) -> PartTicket:
    return PartTicket(
        number=part.number,
        is_stored=held is not None and held.sha256 is not None and held.is_proven(part),
        md5=held.md5 if held and held.sha256 is None and held.size == part.size else None,
        url=url,
        headers=headers,
    )


def complete(
    objects: ObjectStore,
    artifacts: Sequence[Artifact],
    begun: Mapping[str, str],
    told: Sequence[UploadedParts],
) -> dict[str, str]:
    """Make objects of uploads whose parts have all arrived; network work, as ``tickets``.

    By artifact id, what proves that somebody has such a file. What was completed by a call whose
    answer was lost is left to be verified, and its content not shared.

    Raises:
        InvalidRequest: not every part is told.
        Conflict: a part, or the whole, is not what was announced.
    """
    parts = {each.artifact_id: each for each in told}
    possessions = {}
    for artifact in artifacts:
        upload_id = begun.get(artifact.id)
        if upload_id is None:
            continue
        digests = _digests(artifact, parts.get(artifact.id))
        try:
            objects.uploads.complete(artifact.key, upload_id, digests, sha256=artifact.sha256)
        except UploadMissingError:
            continue
        except DigestMismatchError as error:
            raise Conflict(str(error), code="checksum", hint="send it again") from None
        possessions[artifact.id] = possession_of_parts([part.sha256 for part in digests])
    return possessions


def _digests(artifact: Artifact, told: UploadedParts | None) -> list[PartDigest]:
    sizes = part_sizes(artifact.size)
    if told is None or len(told.parts) != len(sizes):
        raise InvalidRequest.of(
            "uploads", f"uploads: name the {len(sizes)} parts of {artifact.path}"
        )
    return [
        PartDigest(number, size, part.sha256, part.md5)
        for number, (size, part) in enumerate(zip(sizes, told.parts, strict=True), 1)
    ]


def abandoned(session: Session, limit: int = 100) -> list[tuple[str, str]]:
    """Key and id of uploads that nobody may go on with: stored, or their lease is void."""
    wanted = (
        select(Artifact.id)
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .where(
            Artifact.key == ArtifactUpload.key,
            Artifact.stored_at.is_(None),
            Attempt.state.in_(LEASED),
        )
    )
    query = select(ArtifactUpload.key, ArtifactUpload.upload_id).where(~wanted.exists())
    return [(row.key, row.upload_id) for row in session.execute(query.limit(limit))]


def known_ids(session: Session, upload_ids: Sequence[str]) -> set[str]:
    """Those of these ids that are recorded."""
    query = select(ArtifactUpload.upload_id).where(ArtifactUpload.upload_id.in_(upload_ids))
    return set(session.scalars(query))
