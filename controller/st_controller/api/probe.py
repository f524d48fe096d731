"""``/v1/probe``: by what ``st-worker doctor`` finds out what stands between it and us."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from st_controller.api.dependencies import PlatformDep, WorkerDep, public
from st_controller.platform import Platform
from st_controller.services.uploads import sign_upload
from st_shared.protocol import probe, sse

router = APIRouter(tags=["worker"])

_DOWNLOAD_SECONDS = 600


@router.get(probe.STREAM_PATH, response_class=StreamingResponse, dependencies=[public()])
async def stream(platform: PlatformDep) -> StreamingResponse:
    """Events some tenths of a second apart, with the controller's clock; then it ends."""
    return StreamingResponse(
        _ticks(platform),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )


async def _ticks(platform: Platform) -> AsyncIterator[bytes]:
    for number in range(1, probe.TICKS + 1):
        if number > 1:
            await asyncio.sleep(probe.TICK_SECONDS)
        tick = probe.Tick(number=number, at=platform.db.clock())
        yield sse.encode("tick", tick.model_dump_json())


@router.post(probe.UPLOAD_PATH)
def upload(platform: PlatformDep, caller: WorkerDep) -> probe.ProbeTicket:
    """Where this worker may store one small known object, the same each time."""
    key, content = f"probes/{caller.worker_id}", probe.PROBE_CONTENT
    digest = hashlib.sha256(content).hexdigest()
    signed = sign_upload(platform.objects, key, size=len(content), sha256=digest)
    download = platform.objects.sign_download(key, expires_in=_DOWNLOAD_SECONDS)
    return probe.ProbeTicket(url=signed.url, headers=signed.headers, download_url=download)
