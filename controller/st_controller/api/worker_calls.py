"""Claims and ends of attempts, for their routes and for the way in front of the framework."""

from collections.abc import Mapping

from fastapi import Response

from st_controller.api.submissions import encoded
from st_controller.errors import Refusal
from st_controller.platform import Platform
from st_controller.services.caller import WorkerCaller
from st_controller.services.finishing import Ending
from st_controller.services.joint_claims import Claimed
from st_shared.protocol.worker import (
    ClaimBatch,
    ClaimBatchReply,
    FinishBatch,
    FinishBatchReply,
    FinishRequest,
    RefusedAttempt,
)


async def claim(platform: Platform, caller: WorkerCaller, attempt_id: str) -> Response:
    """Take the lease of an offered attempt.

    Raises:
        StaleLease: the offer is over, or was made to another worker.
    """
    claimed = await _claimed(platform, caller, [attempt_id])
    for refusal in claimed.refused.values():
        raise refusal
    return encoded(claimed.claims[0], 200)


async def claim_all(platform: Platform, caller: WorkerCaller, wanted: ClaimBatch) -> Response:
    """Take the leases of several; what is refused of them is named."""
    claimed = await _claimed(platform, caller, wanted.attempt_ids)
    reply = ClaimBatchReply(claims=claimed.claims, refused=_refused(claimed.refused))
    return encoded(reply, 200)


async def finish(
    platform: Platform, caller: WorkerCaller, attempt_id: str, request: FinishRequest
) -> Response:
    """End an attempt.

    Raises:
        StaleLease: the lease is not in force.
        SequenceGap: journal lines are missing.
    """
    refused = await platform.finishes.take((Ending(caller.worker_id, attempt_id, request),))
    for refusal in refused.values():
        raise refusal
    return Response(status_code=204)


async def finish_all(platform: Platform, caller: WorkerCaller, batch: FinishBatch) -> Response:
    """End several; what is refused of them is named, and the others are over."""
    endings = (Ending(caller.worker_id, each.attempt_id, each) for each in batch.finishes)
    refused = await platform.finishes.take(tuple(endings))
    return encoded(FinishBatchReply(refused=_refused(refused)), 200)


async def _claimed(platform: Platform, caller: WorkerCaller, attempt_ids: list[str]) -> Claimed:
    claimed = await platform.claims.take(caller, attempt_ids)
    for waited in claimed.waits:
        platform.telemetry.queue_wait.observe(waited.total_seconds())
    return claimed


def _refused(errors: Mapping[str, Refusal]) -> list[RefusedAttempt]:
    return [
        RefusedAttempt(attempt_id=attempt_id, problem=error.problem())
        for attempt_id, error in errors.items()
    ]
