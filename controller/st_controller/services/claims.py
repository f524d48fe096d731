"""What a worker is handed with a lease."""

from collections.abc import Iterable, Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.services.artifacts import MANIFEST_NAME, checkpoint_files
from st_controller.store.requests import kept_as
from st_controller.store.schema import Artifact, Attempt, Dataset, Job
from st_shared.objectstore import ObjectStore
from st_shared.protocol.worker import (
    LARGEST_CLAIMS,
    CheckpointDownload,
    ClaimReply,
    DatasetDownload,
    Download,
    GangMember,
)

FALLBACKS = 2
"""Checkpoints before the newest that a claim names."""

DOWNLOAD_SECONDS = 6 * 3600
"""How long a signed download may be begun."""


def claim_replies(
    session: Session, objects: ObjectStore, claimed: Iterable[tuple[Attempt, Job]]
) -> Iterator[ClaimReply]:
    """The first of these leases, as many as one answer holds, and one at least."""
    room = LARGEST_CLAIMS
    for attempt, job in claimed:
        reply = claim_reply(session, objects, attempt, job)
        size = len(reply.model_dump_json().encode())
        if size > room and room < LARGEST_CLAIMS:
            return
        room -= size
        yield reply


def claim_reply(session: Session, objects: ObjectStore, attempt: Attempt, job: Job) -> ClaimReply:
    """The lease and everything that is needed to run it."""
    return ClaimReply(
        attempt_id=attempt.id,
        epoch=attempt.epoch,
        job_id=job.id,
        number=attempt.number,
        org=job.org,
        slots=attempt.slots,
        spec=job.spec,
        datasets=_datasets(session, objects, job),
        resume=_newest(session, objects, job),
        older=_older(session, objects, job),
        acked_seq=attempt.acked_seq,
        gang=GangMember(node=attempt.node, nodes=attempt.nodes) if attempt.nodes > 1 else None,
    )


def _datasets(session: Session, objects: ObjectStore, job: Job) -> list[DatasetDownload]:
    if not job.dataset_pins:
        return []
    pinned = session.scalars(select(Dataset).where(Dataset.id.in_(job.dataset_pins.values())))
    return [
        DatasetDownload(
            name=dataset.name,
            digest=dataset.digest,
            kept_as=kept_as(dataset.org, dataset.digest),
            archives=[
                Download(
                    path=f"{archive['sha256']}.tar",
                    url=objects.sign_download(archive["key"], expires_in=DOWNLOAD_SECONDS),
                    size=archive["size"],
                    sha256=archive["sha256"],
                )
                for archive in dataset.archives
            ],
        )
        for dataset in pinned
    ]


def _newest(session: Session, objects: ObjectStore, job: Job) -> CheckpointDownload | None:
    if job.checkpoint_id is None or job.checkpoint_step is None:
        return None
    manifest = session.get_one(Artifact, job.checkpoint_id)
    return _checkpoint(session, objects, manifest, job.checkpoint_step)


def _older(session: Session, objects: ObjectStore, job: Job) -> list[CheckpointDownload]:
    """What to fall back on: of the stored checkpoints before the newest, the last ones."""
    if job.checkpoint_id is None:
        return []
    manifests = session.scalars(
        select(Artifact)
        .where(
            Artifact.job_id == job.id,
            Artifact.kind == "checkpoint",
            Artifact.path.endswith(f"/{MANIFEST_NAME}", autoescape=True),
            Artifact.stored_at.is_not(None),
            Artifact.step < job.checkpoint_step,
        )
        .order_by(Artifact.step.desc(), Artifact.attempt.desc())
        .limit(FALLBACKS)
    )
    return [_checkpoint(session, objects, each, each.step or 0) for each in manifests]


def _checkpoint(
    session: Session, objects: ObjectStore, manifest: Artifact, step: int
) -> CheckpointDownload:
    folder = manifest.path.rpartition("/")[0]
    return CheckpointDownload(
        step=step,
        files=[
            Download(
                path=file.path.removeprefix(f"{folder}/"),
                url=objects.sign_download(file.key, expires_in=DOWNLOAD_SECONDS),
                size=file.size,
                sha256=file.sha256,
            )
            for file in checkpoint_files(session, manifest.attempt_id, folder)
        ],
    )
