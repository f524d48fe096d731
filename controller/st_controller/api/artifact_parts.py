"""Tickets for the parts of a file: the store is asked between two short transactions."""

from st_controller.errors import Conflict
from st_controller.platform import Platform
from st_controller.services import artifact_uploads, leases
from st_controller.store.schema import Artifact
from st_shared.objectstore import UploadMissingError
from st_shared.protocol.worker import PartsWanted, PartTickets


def part_tickets(
    platform: Platform, worker_id: str, attempt_id: str, wanted: PartsWanted
) -> PartTickets:
    """The tickets; the upload is begun with the first of them, and anew where the store lost it."""
    with platform.db.write() as tx:
        leases.held(tx, worker_id, attempt_id, wanted.epoch)
        artifact = artifact_uploads.in_parts(tx.session, attempt_id, wanted.artifact_id)
        upload_id = artifact_uploads.id_of(tx.session, artifact.key)
    upload_id = upload_id or _begin(platform, worker_id, artifact, wanted.epoch)
    try:
        found = artifact_uploads.tickets(platform.objects, artifact, upload_id, wanted.parts)
    except UploadMissingError:
        with platform.db.write() as tx:
            artifact_uploads.forget(tx, [artifact.key])
        raise Conflict(
            f"the store lost the upload of {artifact.path}",
            code="upload_lost",
            hint="announce the file again",
        ) from None
    return PartTickets(tickets=found)


def _begin(platform: Platform, worker_id: str, artifact: Artifact, epoch: int) -> str:
    uploads = platform.objects.uploads
    begun = uploads.begin(artifact.key, size=artifact.size, sha256=artifact.sha256)
    with platform.db.write() as tx:
        leases.held(tx, worker_id, artifact.attempt_id, epoch)
        kept = artifact_uploads.record(tx, artifact.key, begun)
    if kept != begun:
        uploads.abort(artifact.key, begun)
    return kept
