"""Aborts uploads in parts that nobody will complete; any replica may, also twice."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import structlog

from st_controller.platform import Platform
from st_controller.services import artifact_uploads
from st_shared.objectstore import OpenUpload

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 600.0
STRAY_AGE = timedelta(days=1)
"""An upload that is not recorded and older than that was begun by a controller that died then."""
_MOST = 100


class UploadGarbage:
    """Sweeps from time to time."""

    def __init__(self, platform: Platform) -> None:
        self._db, self._objects = platform.db, platform.objects

    async def run(self) -> None:
        """Sweep, rest, and so on."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await asyncio.to_thread(self.sweep)

    def sweep(self) -> int:
        """Abort what is abandoned or recorded nowhere; how many uploads."""
        return self._abandoned() + self._strays()

    def _abandoned(self) -> int:
        aborted = 0
        while True:
            with self._db.read() as session:
                found = artifact_uploads.abandoned(session, _MOST)
            for key, upload_id in found:
                self._objects.uploads.abort(key, upload_id)
                log.info("upload aborted", key=key)
            with self._db.write() as tx:
                artifact_uploads.forget(tx, [key for key, _ in found])
            aborted += len(found)
            if len(found) < _MOST:
                return aborted

    def _strays(self) -> int:
        aborted = 0
        for upload in self._old():
            with self._db.read() as session:
                if artifact_uploads.known_ids(session, [upload.upload_id]):
                    continue
            self._objects.uploads.abort(upload.key, upload.upload_id)
            log.info("stray upload aborted", key=upload.key)
            aborted += 1
        return aborted

    def _old(self) -> Iterator[OpenUpload]:
        before = self._db.clock() - STRAY_AGE
        for upload in self._objects.uploads.unfinished():
            if upload.key.startswith("jobs/") and upload.begun_at < before:
                yield upload
